"""``engines pull`` with a local mirror, and the registry that comes with the package."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from engines import ModelError, UsageError, load_spec
from engines.pull import pull, pull_model
from engines.registry import KnownModel, Remote, find_model, known_models
from tests.engines import networks
from tests.engines.file_server import FileServer, file_server

LABELS = "".join(f"kind {number}\n" for number in range(4)).encode()


def engines(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engines", "pull", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        yield running


@pytest.fixture
def tiny(server: FileServer) -> KnownModel:
    """A network that the local server holds under the names that a mirror would use."""
    content = networks.graph().SerializeToString()
    server.files = {"/m/tiny.onnx": content, "/m/kinds.txt": LABELS}
    dead = ("https://127.0.0.1:9/kinds.txt",)
    labels = Remote(urls=dead, bytes=len(LABELS), sha256=hashlib.sha256(LABELS).hexdigest())
    return KnownModel(
        name="tiny", about="a test", file="tiny.onnx", bytes=len(content), sha256=hashlib.sha256(content).hexdigest(),
        urls=("https://127.0.0.1:9/tiny.onnx",), input={"layout": "NCHW", "height": 8, "width": 8},
        output={"kind": "logits", "size": 4}, labels=labels, source="tests", licence="none",
    )  # fmt: skip


def test_pulled_network_opens_with_its_manifest_and_labels(
    server: FileServer, tiny: KnownModel, tmp_path: Path
) -> None:
    path = pull_model(tiny, tmp_path / "models", mirror=f"{server.url}/m/", http=True)
    spec = load_spec(path)
    assert (spec.name, spec.task, spec.sha256, spec.origin) == ("tiny", "classifier", tiny.sha256, tiny.sha256)
    assert spec.labels == ("kind 0", "kind 1", "kind 2", "kind 3")
    names = sorted(each.name for each in path.parent.iterdir())
    assert names == ["tiny.onnx", "tiny.onnx.json", "tiny.onnx.labels.txt"]


def test_second_pull_asks_nobody(server: FileServer, tiny: KnownModel, tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        pull_model(tiny, tmp_path, mirror=f"{server.url}/m", http=True, notify=said.append)
    assert [path for path, _ in server.requests] == ["/m/tiny.onnx", "/m/kinds.txt"]
    assert said[-1] == f"{tmp_path / 'tiny.onnx'}: already there, SHA-256 verified"


def test_damaged_file_is_fetched_again(server: FileServer, tiny: KnownModel, tmp_path: Path) -> None:
    path = pull_model(tiny, tmp_path, mirror=f"{server.url}/m", http=True)
    path.write_bytes(path.read_bytes()[:-1])
    pull_model(tiny, tmp_path, mirror=f"{server.url}/m", http=True)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == tiny.sha256


def test_manifest_of_another_file_is_not_overwritten(server: FileServer, tiny: KnownModel, tmp_path: Path) -> None:
    path = networks.save(tmp_path, networks.graph(keep_axes=True, output_shape=("n", 4, 1, 1)))
    kept = path.read_bytes()
    with pytest.raises(ModelError, match="speaks of another file; remove it"):
        pull_model(tiny, tmp_path, mirror=f"{server.url}/m", http=True)
    assert path.read_bytes() == kept
    assert not server.requests


def test_folder_that_cannot_be_made_is_a_usage_error(tiny: KnownModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        pull_model(tiny, tmp_path / "file" / "models")


def test_labels_that_do_not_fit_are_refused(server: FileServer, tiny: KnownModel, tmp_path: Path) -> None:
    odd = tiny.model_copy(update={"output": tiny.output.model_copy(update={"size": 5})})
    with pytest.raises(ModelError, match="4 labels for 5 outputs"):
        pull_model(odd, tmp_path, mirror=f"{server.url}/m", http=True)


def test_list_shows_every_network_and_fetches_nothing(tmp_path: Path) -> None:
    shown = engines("--list", "--to", tmp_path)
    assert shown.returncode == 0
    assert all(model.name in shown.stdout for model in known_models())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("resnet50", r"did you mean resnet50-v"), ("qqq", r"--list shows them"), (None, r"which network\?")],
)
def test_unknown_name_is_a_usage_error(name: str | None, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        pull(name)


def test_command_without_a_network_ends_with_75_and_one_sentence(server: FileServer, tmp_path: Path) -> None:
    # A proxy that nobody answers at stands for every network being away.
    command = [sys.executable, "-m", "engines", "pull", "birds-inat", "--to", str(tmp_path)]
    environ = {"https_proxy": "http://127.0.0.1:9", "PATH": "/usr/bin", "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environ)
    assert ended.returncode == 75
    assert "no address gave it, check the network" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.tflite
def test_bird_network_is_pulled_from_a_mirror_and_judged_whole(
    shared: Path, server: FileServer, tmp_path: Path
) -> None:
    model = find_model("birds-inat")
    server.files = {
        f"/{model.file}": (shared / "models/mobilenet_v2_inat_birds.tflite").read_bytes(),
        "/inat_bird_labels.txt": (shared / "models/mobilenet_v2_inat_birds.labels.txt").read_bytes(),
    }
    ended = engines("birds-inat", "--to", tmp_path, "--mirror", server.url, "--allow-http")
    assert (ended.returncode, ended.stdout.strip()) == (0, str(tmp_path / model.file))
    assert "cannot be opened" not in ended.stderr
    pulled, given = load_spec(tmp_path / model.file), load_spec(shared / "models/mobilenet_v2_inat_birds.tflite")
    assert (pulled.input, pulled.output, pulled.labels) == (given.input, given.output, given.labels)


@pytest.mark.parametrize("model", known_models(), ids=lambda model: model.name)
def test_registry_entry_is_complete(model: KnownModel) -> None:
    hosts = [urlsplit(url).hostname for url in model.urls]
    assert len(set(hosts)) >= 2
    for remote in (model, *([model.labels] if model.labels else [])):
        assert all(url.startswith("https://") for url in remote.urls)
    if model.labels is None:
        assert model.spec(None).sha256 == model.sha256
    assert model.licence
    assert model.file.endswith(".tflite") == (model.input.layout == "NHWC")


def test_names_and_files_of_the_registry_are_unique() -> None:
    models = known_models()
    assert len({model.name for model in models}) == len({model.file for model in models}) == len(models)
    with pytest.raises(UsageError):
        find_model("")
