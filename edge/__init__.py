"""What runs on the box. The life of one frame:

    broker --frame--> link     paho's hands; only hands the message on                      edge.link
                      courier  gives it a ticket: the right to acknowledge it, once         edge.courier, edge.delivery
                      mailbox  bounded, fair between cameras; drops are counted             edge.mailbox
                      intake   decodes ahead of the engine, in order                        edge.pool, edge.decode
                      worker   takes what is decoded as one batch                           edge.worker, edge.pipeline
                      cascade  features -> gate -> species for the positives                edge.cascade, edge.gate
    broker <-verdict- courier  publishes the verdict; its PUBACK lets the frame's ack go    edge.judge, edge.verdict

Read ``edge.records`` next, then ``edge.cascade`` and ``edge.worker``.
"""
