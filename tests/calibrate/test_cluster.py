"""Clusters of drawn pictures: who belongs together, what is written, and what the knobs do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist
from typer.testing import CliRunner

from calibrate.__main__ import app
from calibrate.capture_time import captured_at
from calibrate.cluster import MAX_PICTURES, ClusterOptions, check_count, cluster, distances
from calibrate.extract import extract
from calibrate.feature_cache import open_cache
from calibrate.fingerprints import fingerprint, fuse
from edge.demo.camera import encode_jpeg
from edge.demo.simulator import draw
from engines import UsageError, open_engine

DEMO = Path(__file__).resolve().parents[2] / "edge" / "demo" / "models" / "features.onnx"
KINDS = ("scarlet_macaw", "cockatoo", "duck")


def rows(seed: int, *sizes: int, spread: float = 0.2) -> npt.NDArray[np.float32]:
    """Unit rows in well-parted bundles of the given sizes."""
    rng = np.random.default_rng(seed)
    parts = [np.eye(16)[i] + spread * rng.standard_normal((size, 16)) / 4 for i, size in enumerate(sizes)]
    return fuse([np.concatenate(parts)])


def exif(text: str, order: str = "little") -> bytes:
    """The start of a JPEG whose EXIF block holds DateTimeOriginal."""
    mark = b"II*\0" if order == "little" else b"MM\0*"

    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        return b"".join(n.to_bytes(size, order) for n, size in ((tag, 2), (kind, 2), (count, 4), (value, 4)))

    def directory(only: bytes) -> bytes:
        return (1).to_bytes(2, order) + only + bytes(4)

    first, second, written = 8, 26, 44
    tiff = mark + first.to_bytes(4, order) + directory(entry(0x8769, 4, 1, second))
    tiff += directory(entry(0x9003, 2, 20, written)) + text.encode() + b"\0"
    return b"\xff\xd8\xff\xe1\0\x50Exif\0\0" + tiff


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawings")
    rng = np.random.default_rng(3)
    for kind in KINDS:
        (folder / kind).mkdir()
        for number in range(6):
            (folder / kind / f"{number}.jpg").write_bytes(encode_jpeg(draw(kind, rng, 320, 240), 88))
    (folder / "duck" / "broken.jpg").write_bytes(b"no picture")
    return folder


def run(drawings: Path, out: Path, *words: str) -> dict[str, object]:
    result = CliRunner().invoke(app, ["cluster", str(drawings), "--model", str(DEMO), "--out", str(out), *words])
    assert result.exit_code == 0, result.exception
    content: dict[str, object] = json.loads((out / "clusters.json").read_text())
    return content


def test_command_sorts_kinds_into_folders_of_relative_links(drawings: Path, tmp_path: Path) -> None:
    content = run(drawings, tmp_path / "out", "--similarity", "0.6")
    clusters = content["clusters"]
    assert isinstance(clusters, list)
    assert {Path(entry["central"]).parent.name for entry in clusters} == set(KINDS)
    for entry in clusters:
        assert len(entry["folders"]) == 1
        links = sorted((tmp_path / "out" / entry["name"]).iterdir())
        assert [link.resolve() for link in links] == [Path(one["path"]).resolve() for one in entry["pictures"]]
        assert not any(os.path.isabs(os.readlink(link)) for link in links)
    assert content["unreadable"].keys() == {str(drawings / "duck" / "broken.jpg")}
    sheet = cv2.imread(str(tmp_path / "out" / "contact.jpg"))
    assert sheet is not None
    assert sheet.std() > 20


def test_command_refuses_a_folder_with_old_links_and_pictures_that_are_not_there(
    drawings: Path, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "link").touch()
    words = ["--model", str(DEMO), "--out"]
    full = CliRunner().invoke(app, ["cluster", str(drawings), *words, str(tmp_path / "old")])
    gone = CliRunner().invoke(app, ["cluster", str(tmp_path / "gone"), *words, str(tmp_path / "new")])
    assert "not an empty folder" in str(full.exception)
    assert "no such file or folder" in str(gone.exception)


def test_crops_and_a_second_engine_join_the_fingerprint(drawings: Path) -> None:
    paths = sorted((drawings / "duck").glob("?.jpg"))
    with open_engine(DEMO, "cpu") as one, open_engine(DEMO, "cpu") as two:
        found = fingerprint([one, two], paths, ("full", "centre"))
    fused = fuse([part for view in ("full", "centre") for part in found.features[view]])
    assert fused.shape == (6, 4 * 128)
    assert np.linalg.norm(fused, axis=1) == pytest.approx(np.ones(6))
    assert not np.allclose(found.features["full"][0], found.features["centre"][0])
    assert found.features["full"][0] == pytest.approx(found.features["full"][1])


def test_second_run_computes_nothing_and_finds_the_same(drawings: Path, tmp_path: Path) -> None:
    paths = sorted((drawings / "duck").glob("*.jpg"))
    views = ("full", "centre")
    with open_engine(DEMO, "cpu") as engine:
        cache = open_cache(tmp_path, engine.spec, engine.device)
        first = fingerprint([engine], paths, views, [cache])
        engine.infer = None  # type: ignore[method-assign, assignment]  # whoever computes now fails
        again = fingerprint([engine], paths, views, [cache])
        whole = extract(engine, paths, ("full",), cache)
    for view in views:
        np.testing.assert_array_equal(again.features[view][0], first.features[view][0])
    assert (again.digests, again.unreadable) == (first.digests, first.unreadable)
    np.testing.assert_array_equal(whole.views["full"], first.features["full"][0])


def test_second_engine_computes_what_only_the_first_has_kept(drawings: Path, tmp_path: Path) -> None:
    paths = sorted((drawings / "duck").glob("?.jpg"))
    with open_engine(DEMO, "cpu") as one, open_engine(DEMO, "cpu") as two:
        first, second = (open_cache(tmp_path / name, one.spec, one.device) for name in "ab")
        fingerprint([one], paths, ("full",), [first])
        one.infer = None  # type: ignore[method-assign, assignment]  # it must not be asked again
        both = fingerprint([one, two], paths, ("full",), [first, second])
    assert both.features["full"][1] == pytest.approx(both.features["full"][0], rel=1e-5)


def test_clusters_equal_scipy_on_cosine_distances() -> None:
    x = rows(0, 9, 14, 5, spread=2.0)
    options = ClusterOptions(similarity=0.5, min_size=1)
    reference = fcluster(linkage(pdist(x.astype(np.float64), "cosine"), "average"), 0.5, "distance")
    found = {frozenset(one.rows.tolist()) for one in cluster(x, np.zeros(len(x)), options)}
    assert found == {frozenset(np.flatnonzero(reference == label).tolist()) for label in np.unique(reference)}


def test_distances_in_blocks_equal_all_pairs_with_the_time_term() -> None:
    x = rows(1, 260, 280)
    times = np.random.default_rng(0).uniform(0, 9000, len(x))
    found = distances(x, times, ClusterOptions(time_weight=0.3, time_scale=3600))
    gap = pdist(times[:, None], "cityblock") / 3600
    assert found == pytest.approx(pdist(x.astype(np.float64), "cosine") + 0.3 * np.minimum(gap, 1), abs=2e-6)


def test_time_parts_what_looks_the_same() -> None:
    x = rows(2, 12)
    times = np.repeat([0.0, 86_400.0], 6)
    assert [len(one.rows) for one in cluster(x, times, ClusterOptions())] == [12]
    apart = cluster(x, times, ClusterOptions(time_weight=0.5))
    assert sorted(sorted(one.rows.tolist()) for one in apart) == [list(range(6)), list(range(6, 12))]


def test_small_clusters_are_dissolved_and_large_ones_come_first() -> None:
    found = cluster(rows(3, 2, 7, 4), np.zeros(13), ClusterOptions(similarity=0.7, min_size=3))
    assert [len(one.rows) for one in found] == [7, 4]


def test_one_picture_and_none_are_no_fault() -> None:
    assert len(cluster(rows(0, 1), np.zeros(1), ClusterOptions(min_size=1))) == 1
    assert cluster(rows(0, 2)[:0], np.zeros(0), ClusterOptions()) == []


def test_too_many_pictures_are_refused_before_any_memory_is_taken() -> None:
    with pytest.raises(UsageError, match=r"100000 pictures.*would take 80 GB; at most 20000"):
        check_count(100_000)
    check_count(MAX_PICTURES)


@pytest.mark.parametrize("order", ["little", "big"])
def test_capture_time_is_read_from_exif(order: str) -> None:
    assert captured_at(exif("2024:02:29 12:30:05", order)) == 1_709_209_805.0


@pytest.mark.parametrize("data", [b"", exif("0000:00:00 00:00:00"), exif("2024:02:29 12:30:05")[:40], b"Exif\0\0II*\0"])
def test_missing_or_broken_capture_time_is_none(data: bytes) -> None:
    assert captured_at(data) is None
