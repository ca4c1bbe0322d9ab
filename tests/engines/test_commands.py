"""``engines info`` and ``engines bench``, started as a user starts them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engines import UsageError, open_engine
from engines.bench import bench
from tests.engines import networks


def engines(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engines", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return networks.save(tmp_path, networks.graph())


def test_info_json_tells_what_is_in_the_file(tiny: Path) -> None:
    facts = json.loads(engines("info", tiny, "--json").stdout)
    assert facts["hash_verified"] is True
    assert (facts["name"], facts["parameters"], facts["opset"]) == ("tiny", 14, 18)
    assert facts["bytes"] == tiny.stat().st_size
    assert facts["input"]["layout"] == "NCHW"
    assert facts["runtime"]["input"] == "x tensor(float) (n, 3, 8, 8)"


def test_info_shows_a_table(tiny: Path) -> None:
    shown = engines("info", tiny)
    assert shown.returncode == 0
    assert "8x8 RGB NCHW float32, stretch" in shown.stdout


def test_info_of_a_damaged_model_ends_with_78_and_one_sentence(tiny: Path) -> None:
    tiny.write_bytes(tiny.read_bytes() + b"\0")
    shown = engines("info", tiny)
    assert (shown.returncode, shown.stdout) == (78, "")
    assert shown.stderr.startswith(f"engines: {tiny}: its SHA-256 is")
    assert "Traceback" not in shown.stderr


def test_bench_json_holds_every_batch_size_side_by_side(tiny: Path) -> None:
    ended = engines("bench", tiny, "--batch", "4,1", "--threads", 1, "--seconds", 0.3, "--json")
    report = json.loads(ended.stdout)
    assert (report["model"], report["device"], report["threads"]) == ("tiny", "cpu", 1)
    assert [row["batch"] for row in report["batches"]] == [1, 4]
    for row in report["batches"]:
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["images_per_s"] > 0
        assert 0 < row["peak_rss_mib"] <= report["peak_rss_mib"]


def test_bench_shows_a_table(tiny: Path) -> None:
    shown = engines("bench", tiny, "--seconds", 0.2)
    assert "img/s" in shown.stdout
    assert "p99 ms" in shown.stdout


@pytest.mark.parametrize("words", [["--batch", "1,x"], ["--batch", "0"], ["--threads", "0"], ["--device", "tpu"]])
def test_bench_with_senseless_words_ends_with_2(tiny: Path, words: list[str]) -> None:
    ended = engines("bench", tiny, "--seconds", 0.1, *words)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


def test_bench_takes_batch_sizes_in_turns(tiny: Path) -> None:
    with open_engine(tiny, "cpu") as engine:
        small, large = bench(engine, [1, 8], 0.5)
        assert small.calls > 1
        assert large.images_per_s > small.images_per_s  # a tiny network is all overhead
        with pytest.raises(UsageError):
            bench(engine, [], 1)
