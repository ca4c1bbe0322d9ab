"""Archives and videos as folders of pictures, for as long as they are needed."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2

from calibrate.folders import SUFFIXES
from calibrate.untar import untar
from engines import UsageError
from engines.console import track

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
VIDEOS = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm"})
MAX_BYTES = 32 << 30
MAX_MEMBERS = 2_000_000


@contextmanager
def unpacked(path: Path, every_s: float = 1.0) -> Iterator[Path]:
    """``path`` itself when it is a folder or a picture, else a temporary folder of its pictures.

    Of a .zip or .tar that is every member that looks like a picture, below the folders it lies in; of a video a frame
    every ``every_s`` seconds, as PNG. Raises :class:`UsageError` for anything that cannot be read.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if path.is_dir() or suffix in SUFFIXES:
        yield path
        return
    archive = path.name.lower().endswith(ARCHIVES)
    if not archive and suffix not in VIDEOS:
        known = f"an archive ({', '.join(ARCHIVES)}) or a video ({', '.join(sorted(VIDEOS))})"
        raise UsageError(f"{path}: expected a folder, a picture, {known}")
    with TemporaryDirectory(prefix="parrotgate-") as name:
        folder = Path(name, path.stem)
        folder.mkdir()
        if not archive:
            _frames(path, folder, every_s)
        elif suffix == ".zip":
            _unzip(path, folder)
        elif not untar(path, folder, SUFFIXES, MAX_MEMBERS, MAX_BYTES):
            raise _no_picture(path)
        yield folder


def _unzip(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if Path(m.filename).suffix.lower() in SUFFIXES]
            if len(members) > MAX_MEMBERS or sum(m.file_size for m in members) > MAX_BYTES:
                raise UsageError(f"{path}: more than {MAX_BYTES >> 30} GiB or {MAX_MEMBERS} pictures; unpack it first")
            for member in track(members, f"unpacking {path.name}"):
                archive.extract(member, folder)  # stays below the folder: zipfile drops ".." and absolute names
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise UsageError(f"{path}: cannot be unpacked ({error})") from error
    if not members:
        raise _no_picture(path)


def _no_picture(path: Path) -> UsageError:
    return UsageError(f"{path}: no picture found; expected members ending in {', '.join(sorted(SUFFIXES))}")


def _frames(path: Path, folder: Path, every_s: float) -> None:
    capture = cv2.VideoCapture(str(path))
    try:
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        step = max(1, round(every_s * fps)) if 0.1 < fps < 1000 else 1
        number = 0
        while capture.grab():
            if number % step == 0:
                decoded, pixels = capture.retrieve()
                if decoded:
                    cv2.imwrite(str(folder / f"{number:08}.png"), pixels)
            number += 1
    finally:
        capture.release()
    if not any(folder.iterdir()):
        raise UsageError(f"{path}: no frame can be read; is it a video?")
