"""Tar archives that nobody vouches for."""

from __future__ import annotations

import io
import logging
import tarfile
from pathlib import Path

import pytest

from calibrate.untar import untar
from engines import UsageError

LIMITS = (frozenset({".png"}), 100, 64 << 20)


def pack(path: Path, *members: tuple[str, bytes], mode: str = "w", kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("root", ["/", "//", "///", "../", "/../", "a/../../", "./"])
def test_every_name_comes_to_lie_below_the_folder(tmp_path: Path, root: str) -> None:
    (tmp_path / "in").mkdir()
    name = f"{root}{tmp_path.relative_to('/')}/outside.png"
    assert untar(pack(tmp_path / "a.tar", (name, b"x")), tmp_path / "in", *LIMITS) == 1
    assert not (tmp_path / "outside.png").exists()
    (found,) = (tmp_path / "in").rglob("*.png")
    assert found.read_bytes() == b"x"


def test_names_of_nothing_are_left_out(tmp_path: Path) -> None:
    names = ("..", "/", "//", ".png", "notes.txt")
    assert untar(pack(tmp_path / "a.tar", *((n, b"") for n in names)), tmp_path / "in", *LIMITS) == 0


def test_links_are_told_and_not_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            ("soft.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/hostname"
            archive.addfile(info)
    with caplog.at_level(logging.WARNING):
        assert untar(path, tmp_path / "in", *LIMITS) == 0
    assert "3 that are named like pictures" in caplog.text
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_bit_anywhere_in_a_header_or_a_cut_anywhere_is_told(tmp_path: Path, mode: str) -> None:
    path = pack(tmp_path / "a.tar", *((f"{i}.png", bytes([i]) * 700) for i in range(10)), mode=mode)
    whole = path.read_bytes()
    assert untar(path, tmp_path / "in", *LIMITS) == 10
    cuts = range(0, 10 * 3 * 512, 256) if mode == "w" else range(0, len(whole) - 1, 7)
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with pytest.raises(UsageError, match="cannot be unpacked"):
            untar(path, tmp_path / "in", *LIMITS)
    for header in range(10) if mode == "w" else ():
        damaged = bytearray(whole)
        damaged[header * 3 * 512 + 5] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match="cannot be unpacked"):
            untar(path, tmp_path / "in", *LIMITS)


def test_archive_that_is_too_large_is_refused_before_it_is_written(tmp_path: Path) -> None:
    many = pack(tmp_path / "many.tar", *((f"{i}.txt", b"") for i in range(101)))
    with pytest.raises(UsageError, match="or 100 members; unpack it first"):
        untar(many, tmp_path / "in", *LIMITS)
    large = pack(tmp_path / "large.tar.gz", ("notes.txt", bytes(65 << 20)), mode="w:gz")
    with pytest.raises(UsageError, match="unpack it first"):
        untar(large, tmp_path / "in", *LIMITS)


def test_name_of_megabytes_is_refused_unread(tmp_path: Path) -> None:
    names = pack(tmp_path / "names.tar.gz", ("x", b"n" * (8 << 20)), mode="w:gz", kind=tarfile.GNUTYPE_LONGNAME)
    with pytest.raises(UsageError, match="cannot be unpacked"):
        untar(names, tmp_path / "in", *LIMITS)
    chained = pack(tmp_path / "chain.tar", *[("x", b"n")] * 3000, kind=tarfile.GNUTYPE_LONGNAME)
    with pytest.raises(UsageError, match="cannot be unpacked"):
        untar(chained, tmp_path / "in", *LIMITS)
