"""A decoder child that some pictures kill: what comes behind a JPEG's end tells it how to die."""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from edge import decode_child
from edge.picture import Picture, PictureOpener

ABORT, HANG, GREEDY, LYING = b"#abort", b"#hang", b"#greedy", b"#lying"
RAISING, DEAF, SLOW = b"#raising", b"#deaf", b"#slow"


class FaultyOpener(PictureOpener):
    """Decodes like any other, but for the pictures that end in a magic word."""

    def __call__(self, image: bytes, digest: str) -> Picture:
        if image.endswith(ABORT):
            os.abort()
        if image.endswith(HANG):
            time.sleep(60)
        if image.endswith(SLOW):
            time.sleep(0.7)
        if image.endswith(GREEDY):
            hoard = [np.zeros(1 << 28, np.uint8) for _ in range(40)]
            raise AssertionError(len(hoard))
        if image.endswith(DEAF):
            os.closerange(1, 1024)
            time.sleep(60)
        if image.endswith(RAISING):
            raise ZeroDivisionError
        return super().__call__(image, digest)


honest = decode_child._open


def answer(opener: PictureOpener, slot: memoryview, length: int, layout: decode_child.Layout) -> bytes:
    """As an honest child answers, but for one word: then what points far beyond the shared memory."""
    if bytes(slot[:length]).endswith(LYING):
        return decode_child.ANSWER.pack(decode_child.PICTURE, 0, 160, 120, 1 << 20, 1 << 20)
    return honest(opener, slot, length, layout)


if __name__ == "__main__":
    decode_child.PictureOpener = FaultyOpener
    decode_child._open = answer
    decode_child.main(*sys.argv[1:3])
