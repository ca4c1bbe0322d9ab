"""Named arrays as one .npz, read without trust and written the same for ever.

Reading: only stored (uncompressed) members with plain names, each header checked for dtype, order and shape against
the bytes that are there, before anything is allocated; nothing is unpickled. So memory stays within twice the file.
Writing: members sorted, timestamps fixed, format version 1.0 headers: the same arrays give the same bytes.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import GateError

MAX_MEMBERS = 128
MAX_DIRECTORY_BYTES = 1 << 16
_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?\.npy")
_DTYPES = ("float64", "float32", "uint8")
_MAX_AXES = 3
_EPOCH = (1980, 1, 1, 0, 0, 0)
# What zipfile lets through when a header is damaged: a bit anywhere may make an offset negative or a name undecodable.
_ZIP_FAULTS = (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, OverflowError, RuntimeError, ValueError)


def read_arrays(source: str, data: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays in ``data`` by name, read-only; ``source`` names the file in errors.

    Raises :class:`GateError` for anything that :func:`write_arrays` would not have written.
    """
    _check_directory(source, data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_members(source, members, len(data))
            return {info.filename[: -len(".npy")]: _array(source, info, archive.read(info)) for info in members}
    except _ZIP_FAULTS as error:
        raise GateError(f"{source}: not a whole .npz file ({error}); copy it again or fit the gate again") from error


def write_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """``arrays`` as the bytes of an .npz file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            info = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, _npy(np.ascontiguousarray(arrays[name]).reshape(np.shape(arrays[name]))))
    return buffer.getvalue()


def _npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _check_directory(source: str, data: bytes) -> None:
    # zipfile reads the whole directory before anyone can look at it, so its size is checked here.
    end, locator = data[-22:], data[-42:-38]
    if (
        end[:4] != b"PK\x05\x06"
        or locator == b"PK\x06\x07"
        or int.from_bytes(end[12:16], "little") > MAX_DIRECTORY_BYTES
    ):
        raise GateError(f"{source}: not a whole gate file (its .npz directory is missing or too large); copy it again")


def _check_members(source: str, members: list[zipfile.ZipInfo], size: int) -> None:
    names = [info.filename for info in members]
    if len(names) > MAX_MEMBERS or len(set(names)) != len(names):
        raise GateError(f"{source}: a gate file holds at most {MAX_MEMBERS} arrays of different names")
    for info in members:
        if not _NAME.fullmatch(info.filename):
            raise GateError(f"{source}: {info.filename[:60]!r} is not the name of a gate's array")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise GateError(f"{source}: {info.filename!r} is compressed or encrypted; gate files are plainly stored")
    if sum(info.file_size for info in members) > size:
        raise GateError(f"{source}: its arrays claim more bytes than the file has")


def _array(source: str, info: zipfile.ZipInfo, data: bytes) -> npt.NDArray[Any]:
    stream = io.BytesIO(data)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("not version 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=1024)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise GateError(f"{source}: {info.filename!r} has no readable array header ({str(error)[:80]})") from error
    known = dtype.name in _DTYPES and dtype.isnative
    if fortran or not known or len(shape) > _MAX_AXES or any(type(n) is not int or n < 0 for n in shape):
        raise GateError(f"{source}: {info.filename!r} is {dtype} {shape}; expected {', '.join(_DTYPES)} in C order")
    body = memoryview(data)[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise GateError(f"{source}: {info.filename!r} says shape {shape} but holds {len(body)} bytes")
    return np.frombuffer(body, dtype=dtype).reshape(shape)
