"""A species classifier made of real photos, in a worker that takes those photos from a real broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from calibrate.fit import FitOptions, fit_gate
from calibrate.gather import gather
from calibrate.recipes import make_recipe
from calibrate.species import SpeciesOptions, export_species, fit_species
from calibrate.species_heads import Head
from calibrate.species_samples import SpeciesSamples, gather_species
from edge.gate_file import save_gate
from edge.publish import Publisher
from edge.sources import Picture
from engines import open_engine
from tests.edge.worker_process import Verdicts, WorkerProcess, client, wait_for
from tests.mosquitto import Broker

SPECIES = ("abbotts_booby", "american_kestrel", "american_robin", "andean_siskin")
MODEL = "mobilenet_v2_features.onnx"


@pytest.fixture(scope="module")
def photos(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in SPECIES:
        (folder / name).mkdir()
        for path in (shared / "images" / "other_birds" / name).iterdir():
            (folder / name / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def fitted(shared: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SpeciesSamples, Head]:
    """The folder with species.onnx and a gate, the pictures with their features, and the fitted head."""
    out = tmp_path_factory.mktemp("made")
    model = shared / "models" / MODEL
    with open_engine(model, "cpu") as engine:
        samples = gather_species([engine], photos, ("full", "hflip"), None)
        head = fit_species(samples, SpeciesOptions("lda", folds=2)).chosen.head
        export_species(out / "species.onnx", [model], [engine], samples, head)
        gate = fit_gate(
            gather(engine, photos, [], ("full",), normalise=True),
            engine.spec,
            make_recipe("robust", None, None, 0),
            FitOptions(),
        )
    save_gate(out / "gate.npz", gate.manifest, gate.arrays)
    return out, samples, head


@pytest.fixture
def worker(fitted: tuple[Path, SpeciesSamples, Head], shared: Path, mosquitto: Broker) -> Iterator[WorkerProcess]:
    """A worker that lets every frame through to the species."""
    folder = fitted[0]
    process = WorkerProcess(
        folder,
        {
            "worker": "species-worker",
            "mqtt": {"url": mosquitto.url, "prefix": "species"},
            "features": {"model": str(shared / "models" / MODEL)},
            "gate": {"file": "gate.npz", "threshold": 0.0},
            "species": {"model": "species.onnx", "top": len(SPECIES)},
            "mailbox": {"policy": "every"},
            "status": {"port": 0},
        },
    )
    process.start().wait_ready()
    yield process
    if process.is_running():
        process.kill()


@pytest.mark.usefixtures("worker")
def test_verdicts_over_the_broker_name_what_the_fitted_head_names(
    fitted: tuple[Path, SpeciesSamples, Head], mosquitto: Broker
) -> None:
    _, samples, head = fitted
    pictures = (Picture(f"{row}", path.read_bytes()) for row, path in enumerate(samples.paths))
    with Verdicts(client(mosquitto, "species-reader"), "species") as verdicts:
        Publisher(client(mosquitto, "species-camera"), "species/yard/frame", pictures, None).run()
        wait_for(lambda: len(verdicts.by_frame) >= len(samples.paths), 30, "a verdict for every photo")
    expected = head.probabilities(samples.views["full"])
    for row, probability in enumerate(expected):
        (verdict,) = verdicts.by_frame["yard", f"{row}"]
        assert (verdict["verdict"], verdict["error"]) == ("positive", None)
        named = {one["label"]: one["probability"] for one in verdict["species"]["top"]}
        assert verdict["species"]["label"] == samples.labels[int(probability.argmax())]
        assert [named[label] for label in samples.labels] == pytest.approx(probability.tolist(), abs=1e-5)
