"""``calibrate extract``: folders, archives and videos; kept, resumed, spread over a cluster."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from calibrate.__main__ import app
from calibrate.extract import extract
from calibrate.feature_cache import open_cache
from engines import Engine, OutputSpec, UsageError, open_engine
from tests.engines import networks


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    networks.save(tmp_path, networks.graph(), output=OutputSpec(kind="features", size=4))
    (tmp_path / "birds").mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        cv2.imwrite(str(tmp_path / "birds" / f"{i:02}.png"), rng.integers(0, 255, (24, 32, 3)).astype(np.uint8))
    (tmp_path / "birds" / "broken.jpg").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["extract", "--model", "tiny.onnx", "--cache", "cache", *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def features(name: str) -> dict[str, np.ndarray]:
    with np.load(name, allow_pickle=False) as file:
        return dict(file)


class Counting:
    """An engine that counts the rows it is given."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.spec, self.device, self.rows = engine, engine.spec, engine.device, 0

    def infer(self, batch: np.ndarray) -> np.ndarray:
        self.rows += len(batch)
        return self.engine.infer(batch)


def test_second_run_computes_nothing_and_says_the_same(place: Path) -> None:
    pictures = sorted((place / "birds").iterdir())
    with open_engine(place / "tiny.onnx", "cpu") as engine:
        counting = Counting(engine)
        cache = open_cache(place / "cache", engine.spec, engine.device)
        first = extract(counting, pictures[:7], ("full", "hflip"), cache)
        assert counting.rows == 14
        resumed = extract(counting, pictures, ("full", "hflip"), cache)
        assert counting.rows == 40
        again = extract(counting, pictures, ("full", "hflip"), cache)
        assert counting.rows == 40
    np.testing.assert_array_equal(first.views["hflip"], resumed.views["hflip"][:7])
    for view in ("full", "hflip"):
        np.testing.assert_array_equal(resumed.views[view], again.views[view])
    assert list(again.unreadable) == [20]


def test_damaged_entry_is_computed_again(place: Path) -> None:
    run("birds", "--out", "a.npz")
    for number, entry in enumerate(sorted((place / "cache").rglob("*.npy"))):
        entry.write_bytes([b"", b"garbage", entry.read_bytes()[:-3]][number % 3])
    run("birds", "--out", "b.npz")
    np.testing.assert_array_equal(features("a.npz")["full"], features("b.npz")["full"])


def test_archive_gives_what_its_folder_gives(place: Path) -> None:
    with zipfile.ZipFile("birds.zip", "w") as archive:
        for path in sorted((place / "birds").iterdir()):
            archive.write(path, f"inside/{path.name}")
        archive.writestr("../escaped.png", b"no picture")
    run("birds", "--out", "folder.npz")
    assert "20 pictures" in run("birds.zip", "--out", "archive.npz")
    a, b = features("folder.npz"), features("archive.npz")
    assert sorted(a["digests"]) == sorted(b["digests"])
    assert str(b["paths"][0]) == "birds.zip/inside/00.png"
    assert not (place.parent / "escaped.png").exists()


@pytest.mark.parametrize("name", ["birds.tar", "birds.tgz", "birds.tar.xz"])
def test_tar_gives_what_its_folder_gives_and_nothing_but_plain_files(place: Path, name: str) -> None:
    packing = {"tar": "w", "tgz": "w:gz", "xz": "w:xz"}[name.rpartition(".")[2]]
    with tarfile.open(name, packing) as archive:  # type: ignore[call-overload]
        archive.add("birds", "inside")
        for member, kind in (("../escaped.png", tarfile.REGTYPE), ("link.png", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(member)
            info.type, info.linkname = kind, str(place / "birds" / "00.png")
            archive.addfile(info)
    run("birds", "--out", "folder.npz")
    assert "20 pictures" in run(name, "--out", "archive.npz")
    a, b = features("folder.npz"), features("archive.npz")
    assert sorted(a["digests"]) == sorted(b["digests"])
    assert f"{name}/inside/00.png" in [str(path) for path in b["paths"]]
    assert not (place.parent / "escaped.png").exists()
    whole = Path(name).read_bytes()
    Path(name).write_bytes(whole[: len(whole) // 2 + 100])
    with pytest.raises(UsageError, match=rf"{name}: cannot be unpacked"):
        run(name)


@pytest.mark.parametrize("cut", [False, True])
def test_archive_with_a_damaged_picture_is_refused_in_a_sentence(place: Path, cut: bool) -> None:
    with zipfile.ZipFile("birds.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write("birds/00.png", "00.png")
        start = archive.getinfo("00.png").header_offset + 30 + len("00.png")
    data = bytearray(Path("birds.zip").read_bytes())
    data[start : start + 8] = b"\x03\x00" * 4 if cut else b"\xff" * 8
    Path("birds.zip").write_bytes(data)
    with pytest.raises(UsageError, match=r"birds\.zip: cannot be unpacked"):
        run("birds.zip")


def test_video_gives_a_frame_a_second(place: Path) -> None:
    writer = cv2.VideoWriter("feeder.avi", cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for i in range(35):
        writer.write(np.full((48, 64, 3), 7 * i, np.uint8))
    writer.release()
    run("feeder.avi", "--out", "video.npz")
    assert [str(path) for path in features("video.npz")["paths"]] == [
        f"feeder.avi/{number:08}.png" for number in (0, 10, 20, 30)
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nowhere",), "no such file or folder"),
        (("birds/broken.txt",), "expected a folder"),
        (("birds", "--no-cache"), "would keep nothing"),
        (("birds", "--backend", "spark"), "threads or dask"),
        (("torn.zip",), "cannot be unpacked"),
        (("torn.mp4",), "no frame can be read"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(place: Path, words: tuple[str, ...], sentence: str) -> None:
    for name in ("birds/broken.txt", "torn.zip", "torn.mp4"):
        (place / name).write_bytes(b"neither this nor that")
    with pytest.raises(UsageError, match=sentence):
        run(*words)


@pytest.mark.soak
def test_local_cluster_gives_what_threads_give(place: Path) -> None:
    distributed = pytest.importorskip("dask.distributed", reason="needs the extra 'distributed'")
    run("birds", "--out", "threads.npz", "--no-cache")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        run("birds", "--out", "dask.npz", "--no-cache", "--backend", "dask", "--scheduler", cluster.scheduler_address)
    np.testing.assert_allclose(features("threads.npz")["full"], features("dask.npz")["full"], rtol=1e-5, atol=1e-6)
