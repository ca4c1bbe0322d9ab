"""A decoder child that some pictures kill: what comes behind a JPEG's end tells it how to die."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

from edge import decode_child
from edge.picture import Picture, PictureOpener

ABORT, HANG, GREEDY, LYING, RAISING, DEAF = b"#abort", b"#hang", b"#greedy", b"#lying", b"#raising", b"#deaf"


class FaultyOpener(PictureOpener):
    """Decodes like any other, but for the pictures that end in a magic word."""

    def __call__(self, image: bytes, digest: str) -> Picture:
        if image.endswith(ABORT):
            os.abort()
        if image.endswith(HANG):
            time.sleep(60)
        if image.endswith(GREEDY):
            hoard = [np.zeros(1 << 28, np.uint8) for _ in range(40)]
            raise AssertionError(len(hoard))
        if image.endswith(DEAF):
            os.close(1)
            time.sleep(60)
        if image.endswith(RAISING):
            raise ZeroDivisionError
        return super().__call__(image, digest)


def lie(picture: dict[str, Any]) -> dict[str, Any]:
    """An answer that points far beyond the shared memory."""
    return {**picture, "rows": 1 << 20, "columns": 1 << 20}


if __name__ == "__main__":
    decode_child.PictureOpener = FaultyOpener
    honest = decode_child._open
    decode_child._open = lambda opener, memory, length, at: (
        lie(honest(opener, memory, length, at))
        if memory[:length].endswith(LYING)
        else honest(opener, memory, length, at)
    )
    decode_child.main(*sys.argv[1:3])
