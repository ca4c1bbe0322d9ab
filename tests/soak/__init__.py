"""The long runs behind ``tests/RESULTS.md``: ``python -m tests.soak`` runs what ``rows`` lists."""
