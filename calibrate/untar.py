"""Pictures out of a tar archive that nobody vouches for."""

from __future__ import annotations

import logging
import lzma
import shutil
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

from engines import UsageError
from engines.console import track

log = logging.getLogger(__name__)

MAX_NAME_BYTES = 1 << 16  # of a header that holds a long name: tarfile reads it whole
_NAMES = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
_FAULTS = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, ValueError, OSError, RecursionError)


class _Header(tarfile.TarInfo):
    """Looked at before what it announces is read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _NAMES and found.size > MAX_NAME_BYTES:
            raise tarfile.ReadError(f"a member's name takes {found.size} bytes")
        return found


def untar(path: Path, folder: Path, suffixes: Collection[str], most: int, most_bytes: int) -> int:
    """Copy the plain files of ``path`` that end in one of ``suffixes`` below ``folder``, and say how many there were.

    No link, device, owner or mode of an archive is made. ``most`` members and ``most_bytes`` of all of them, wanted
    or not, are looked at: what is left out is decompressed too.

    Raises:
        UsageError: the archive is larger, damaged or incomplete.
    """
    found = count = size = links = 0
    try:
        with tarfile.open(path, tarinfo=_Header) as archive:
            for member in track(archive, f"unpacking {path.name}"):
                count, size = count + 1, size + member.size
                if count > most or size > most_bytes:
                    raise UsageError(f"{path}: more than {most_bytes >> 30} GiB or {most} members; unpack it first")
                target = _below(folder, member.name)
                if target is None or target.suffix.lower() not in suffixes:
                    continue
                if not member.isreg() or member.issparse():
                    links += 1
                    continue
                _copy(archive, member, target)
                found += 1
            _check_end(archive, most_bytes)
    except _FAULTS as error:
        raise UsageError(f"{path}: cannot be unpacked ({error})") from error
    if links:
        log.warning("%s: links and special files are left out: %d that are named like pictures", path, links)
    return found


def _below(folder: Path, name: str) -> Path | None:
    """Where ``name`` comes to lie, whatever it says of roots and parents; None where nothing is left of it."""
    parts = [part for part in PurePosixPath(name.lstrip("/")).parts if part != ".."]
    target = folder.joinpath(*parts)
    return target if parts and target.is_relative_to(folder) else None


def _copy(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = archive.extractfile(member)
    if source is None:
        raise tarfile.ReadError(f"{member.name} has no content")
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as into:
        shutil.copyfileobj(source, into)


def _check_end(archive: tarfile.TarFile, most_bytes: int) -> None:
    """A header that is damaged or cut off ends the iteration as the end does; the end is a block of zeros."""
    stream: Any = archive.fileobj
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it is damaged or cut off: no end stands where its members end")
    for _ in range(most_bytes >> 20):  # the checksum of what is compressed stands behind it all
        if not stream.read(1 << 20):
            return
    raise tarfile.ReadError("it does not end")
