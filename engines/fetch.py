"""One file from the network: several addresses, resumed where it broke off, and nothing kept that has a wrong hash.

Standard library: one GET with a Range is all that is needed, and the core has no HTTP client. What urllib would do
beyond that is left out: it opens https alone, through every redirect, unless http is allowed by name.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engines.errors import FetchError

CHUNK = 1 << 18
TIMEOUT_S = 30.0
TRIES = 3  # connections in a row to one address that bring nothing new
MAX_CONNECTIONS = 100
Advance = Callable[[int], None]  # told how many bytes of the file are there

_NETWORK_ERRORS = (OSError, http.client.HTTPException)  # URLError is an OSError


@dataclass(frozen=True, slots=True)
class Wanted:
    """The file as it must be: its length in bytes and its SHA-256 in lower-case hex digits."""

    size: int
    sha256: str


class _AddressError(Exception):
    """This address will not do; the next one may."""


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Redirects stay within the schemes that were allowed."""

    def __init__(self, schemes: frozenset[str]) -> None:
        self._schemes = schemes

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in self._schemes:
            raise _AddressError(f"it leads to {newurl}, which is not {' or '.join(sorted(self._schemes))}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(urls: Iterable[str], target: Path, wanted: Wanted, *, http: bool = False, advance: Advance) -> None:
    """Bring the file to ``target``, which appears whole or not at all.

    What has come so far lies beside it as ``.<name>.<hash>.part`` and is gone on with, also at another address and in
    another run. The hash is computed over the bytes on the disk. Never more than ``wanted.size`` are taken.

    Args:
        http: allow plain http too; the hash still decides.

    Raises:
        FetchError: no address gave the file, or it cannot be written; the message tells of each address.
    """
    schemes = frozenset({"https", "http"} if http else {"https"})
    part = target.with_name(f".{target.name}.{wanted.sha256[:12]}.part")
    faults = []
    for url in urls:
        fault = _fault_of(url, part, wanted, schemes, advance)
        if fault is None:
            os.replace(part, target)
            return
        faults.append(f"{url}: {fault}")
    raise FetchError(
        f"{target.name}: no address gave it, check the network (or a proxy: HTTPS_PROXY); " + "; ".join(faults)
    )


def _fault_of(url: str, part: Path, wanted: Wanted, schemes: frozenset[str], advance: Advance) -> str | None:
    """None when ``part`` is now the whole file, else what is wrong with this address."""
    try:
        _from_one(url, part, wanted, schemes, advance)
    except _AddressError as fault:
        return str(fault)
    except OSError as error:
        raise FetchError(f"{part}: cannot be written: {error.strerror or error}") from error
    return None


def is_whole(path: Path, wanted: Wanted) -> bool:
    """Whether the file is there with the right length and hash."""
    if not path.is_file() or path.stat().st_size != wanted.size:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == wanted.sha256


def _from_one(url: str, part: Path, wanted: Wanted, schemes: frozenset[str], advance: Advance) -> None:
    """Complete ``part`` from one address; a wrong hash over bytes of several connections is tried once more afresh."""
    if urlsplit(url).scheme not in schemes:
        raise _AddressError(f"only {' and '.join(sorted(schemes))} addresses are opened")
    opener = _opener(schemes)
    joined = _length(part) > 0
    _complete(opener, url, part, wanted, advance)
    if joined and not is_whole(part, wanted):
        part.unlink(missing_ok=True)
        _complete(opener, url, part, wanted, advance)
    if not is_whole(part, wanted):
        part.unlink(missing_ok=True)
        raise _AddressError("its file has another SHA-256 than the one wanted")


def _complete(opener: urllib.request.OpenerDirector, url: str, part: Path, wanted: Wanted, advance: Advance) -> None:
    """Connect until ``part`` has its length; connections that bring nothing new are not repeated for ever."""
    stalled = 0
    for _ in range(MAX_CONNECTIONS):
        before = _length(part)
        fault = _attempt(opener, url, part, wanted, advance) if before < wanted.size else None
        if fault is None:
            return
        stalled = 0 if _length(part) > before else stalled + 1
        if stalled >= TRIES:
            break
    raise _AddressError(fault or "too many connections")


def _attempt(
    opener: urllib.request.OpenerDirector, url: str, part: Path, wanted: Wanted, advance: Advance
) -> str | None:
    """One connection; None when the length is complete, else why it broke off. A refusal ends the address."""
    have = _length(part)
    headers = {"User-Agent": "parrotgate", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the opener knows the allowed schemes only
        answer = opener.open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # what we have is longer than what they have
            part.unlink(missing_ok=True)
        raise _AddressError(f"HTTP {error.code} {error.reason}") from error
    except _NETWORK_ERRORS as error:
        raise _AddressError(f"cannot be reached: {getattr(error, 'reason', None) or error}") from error
    with answer:
        return _take(answer, part, _begin(answer, have, part, wanted), wanted, advance)


def _begin(answer: Any, have: int, part: Path, wanted: Wanted) -> int:
    """Where the answer's bytes belong. A server that ignores Range sends everything from the start."""
    start = 0
    if answer.status == 206:
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if place is None or int(place[1]) != have or place[2] not in ("*", str(wanted.size)):
            raise _AddressError(f"its Content-Range does not fit: {answer.headers.get('Content-Range')!r}")
        start = have
    elif answer.status != 200:
        raise _AddressError(f"HTTP {answer.status} is no file")
    length = answer.headers.get("Content-Length")
    if length is not None and length.isdigit() and int(length) != wanted.size - start:
        raise _AddressError(f"it offers {int(length) + start} bytes, the registry says {wanted.size}")
    if start == 0:
        part.unlink(missing_ok=True)
    return start


def _take(answer: Any, part: Path, start: int, wanted: Wanted, advance: Advance) -> str | None:
    with part.open("ab") as file:
        have = start
        while have <= wanted.size:
            try:
                chunk = answer.read(min(CHUNK, wanted.size + 1 - have))
            except _NETWORK_ERRORS as error:
                return f"broke off after {have} of {wanted.size} bytes: {error or type(error).__name__}"
            if not chunk:
                break
            have += len(chunk)
            file.write(chunk[: len(chunk) - max(0, have - wanted.size)])
            advance(min(have, wanted.size))
        file.flush()
        os.fsync(file.fileno())
    if have > wanted.size:
        part.unlink(missing_ok=True)
        raise _AddressError(f"it goes on after the {wanted.size} bytes of the registry")
    return None if have == wanted.size else f"broke off after {have} of {wanted.size} bytes"


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _opener(schemes: frozenset[str]) -> urllib.request.OpenerDirector:
    """urllib without file, ftp and data addresses; proxies are those of the environment."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _SameScheme(schemes),
    ):
        opener.add_handler(handler)
    if "http" in schemes:
        opener.add_handler(urllib.request.HTTPHandler())
    return opener
