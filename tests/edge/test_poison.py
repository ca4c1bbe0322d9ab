"""The journal of the pictures that killed their decoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edge.config_file import load_config
from edge.parts import load_parts, open_spool
from edge.poison import PoisonJournal
from tests.edge.worker_process import demo_config


def test_poison_is_known_after_a_restart_by_its_journal(tmp_path: Path) -> None:
    journal = PoisonJournal(tmp_path / "poison.json")
    for _ in range(2):
        assert not journal.is_poison("ab")
        journal.crashed("ab")
    journal.crashed("cd")
    after = PoisonJournal(tmp_path / "poison.json")
    assert after.is_poison("ab")
    assert not after.is_poison("cd")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b'{"ab": "x"}', b"[" * 100_000, b'{"ab": 2' + b" " * 300_000])
def test_damaged_journal_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "poison.json"
    path.write_bytes(content)
    journal = PoisonJournal(path)
    assert not journal.is_poison("ab")
    journal.crashed("ab")
    journal.crashed("ab")
    assert PoisonJournal(path).is_poison("ab")


def test_workers_under_one_spool_folder_keep_a_journal_each(tmp_path: Path) -> None:
    found = []
    for name in ("one", "other"):
        path = tmp_path / f"{name}.yaml"
        changes = {"worker": name, "spool": {"folder": str(tmp_path / "spool")}, "decode": {"mode": "isolated"}}
        path.write_text(yaml.safe_dump(demo_config("mqtt://127.0.0.1:1", **changes)))
        config = load_config(path, {})
        spool = open_spool(config)  # a worker has locked its folder by then
        parts = load_parts(config)
        assert spool is not None
        assert parts.journal is not None
        for _ in range(2):
            parts.journal.crashed(name)
        found.append((config, parts.journal))
        spool.close()
        parts.close()
    for name, (config, journal) in zip(("one", "other"), found, strict=True):
        parts = load_parts(config)
        assert parts.journal is not None
        assert parts.journal is not journal
        assert [parts.journal.is_poison(one) for one in ("one", "other")] == [name == one for one in ("one", "other")]
        parts.close()


def test_journal_remembers_the_latest_thousand() -> None:
    journal = PoisonJournal()
    for n in range(1500):
        journal.crashed(str(n))
        journal.crashed(str(n))
    assert sum(journal.is_poison(str(n)) for n in range(1500)) == 1000
    assert journal.is_poison("1499")
