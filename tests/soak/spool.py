"""Rows 8, 9 and 10: the spool in a partition, cut and damaged, and on a disk that is full or fails."""

from __future__ import annotations

import io
import random
import tempfile
from pathlib import Path

from edge.spool import Spool
from edge.spool_file import Record, encode, scan
from tests.soak.ledger import Effort, Outcome

TOPIC = "cameras/a/verdict"


def sample_file(records: int) -> tuple[bytes, list[int]]:
    """A spool file of ``records`` records, and where each of them ends."""
    rng, data, ends = random.Random(records), b"", []
    for n in range(records):
        payload = rng.randbytes(rng.randint(0, 120)).replace(b"\xf5", b"u")  # a verdict is ASCII
        data += encode(Record(f"{n:04d}", TOPIC, payload, "a", float(n)))
        ends.append(len(data))
    return data, ends


def cuts(records: int) -> Outcome:
    """A start on a file cut at every byte: every whole record is there, in order, and a new one can be kept."""
    outcome, (data, ends) = Outcome(), sample_file(records)
    with tempfile.TemporaryDirectory() as name:
        for length in range(len(data) + 1):
            folder = Path(name) / str(length)
            folder.mkdir()
            (folder / "000000000001.spool").write_bytes(data[:length])
            spool = Spool(folder, 1 << 20, 3600)
            found = [record.key for record in spool.start()]
            whole = [f"{n:04d}" for n, end in enumerate(ends) if end <= length]
            outcome.add("cuts")
            outcome.demand(found == whole, f"cut at {length}: {len(found)} records instead of {len(whole)}")
            spool.keep("new", TOPIC, b"x", "a")
            spool.close()
            again = [record.key for record in Spool(folder, 1 << 20, 3600).start()]
            outcome.demand(again == [*whole, "new"], f"cut at {length}: after a start {len(again)} records")
    return outcome


def damaged_bytes(records: int, rng: random.Random) -> Outcome:
    """Each byte changed to another value: the record it belongs to is passed over, all others are there unchanged."""
    outcome, (data, ends) = Outcome(), sample_file(records)
    entries = [entry for _, _, entry in scan(io.BytesIO(data).read)]
    for at in range(len(data)):
        spoilt = bytearray(data)
        spoilt[at] ^= rng.randint(1, 255)
        hit = next(n for n, end in enumerate(ends) if at < end)
        found = [entry for _, _, entry in scan(io.BytesIO(spoilt).read)]
        outcome.add("damaged bytes")
        outcome.demand(found == entries[:hit] + entries[hit + 1 :], f"byte {at}: {len(found)} records, or a false one")
    return outcome


def damage(effort: Effort) -> Outcome:
    """Row 9: a file of 64 records."""
    outcome = cuts(64)
    spoilt = damaged_bytes(64, random.Random(effort.seed))
    outcome.sums.update(spoilt.sums)
    outcome.failures += spoilt.failures
    outcome.done = 1
    return outcome


def damage_control(_effort: Effort) -> str:
    """The same file read without its checksums."""
    data, _ = sample_file(8)
    entries = [entry for _, _, entry in scan(io.BytesIO(data).read)]
    false = 0
    for at in range(len(data)):
        spoilt = bytearray(data)
        spoilt[at] ^= 1
        false += any(entry not in entries for entry in _read_without_checksum(bytes(spoilt)))
    assert false > 0, "reading without checksums sees every damage too"
    return f"read without its checksums, {false} of {len(data)} damaged bytes give a false record"


def _read_without_checksum(data: bytes) -> list[Record]:
    found, at = [], 0
    while at + 12 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "big")
        head, _, payload = data[at + 12 : at + 12 + length].partition(b"\n")
        try:
            text = head.decode()
            key, camera, age = text.split('"')[3], text.split('"')[11], text.rpartition(": ")[2].rstrip("}")
            found.append(Record(key, text.split('"')[7], payload, camera, float(age)))
        except (ValueError, IndexError):
            return found
        at += 12 + length
    return found
