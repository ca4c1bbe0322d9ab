"""From torch to a feature engine: networks of torchvision and timm as ONNX, compared with torch before they are kept.

The only file of this room that imports torch, and only ``engines export`` imports this file.
"""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from engines.base import open_engine
from engines.errors import ModelError, UsageError
from engines.onnx_graph import parse_graph, write_model
from engines.spec import InputSpec, ModelSpec, OutputSpec

Library = Literal["torchvision", "timm"]
TOLERANCE = 1e-4  # of the largest output
_OPSET = 17
_UNKNOWN = "0" * 64
_PARITY_ROWS = 3


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """``weights``: ``default`` fetches the library's own, ``random`` is seeded and for trials only, else a file of a
    state dictionary. ``size`` None takes the side that the weights were made for."""

    library: Library = "torchvision"
    weights: str = "default"
    classifier: bool = False
    resize: Literal["stretch", "crop", "letterbox"] = "stretch"
    size: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Network:
    module: Any
    picture: InputSpec
    labels: tuple[str, ...] | None
    source: str
    licence: str


def export(name: str, out: Path, options: ExportOptions) -> tuple[ModelSpec, float]:
    """Write the network ``name`` as ONNX with its manifest.

    Returns:
        The manifest, and the largest difference between ONNX Runtime's answers and torch's, as a share of the
        largest answer.

    Raises:
        UsageError: the library knows no such network, or its weights cannot be fetched or read.
        ModelError: the weights belong to another network, or the answers differ by more than ``TOLERANCE``.
    """
    torch.manual_seed(options.seed)
    network = (_from_timm if options.library == "timm" else _from_torchvision)(name, options)
    network.module.eval()
    rows = torch.randn(_PARITY_ROWS, *network.picture.shape, generator=torch.Generator().manual_seed(options.seed))
    with torch.no_grad():
        expected: npt.NDArray[np.float32] = network.module(rows).numpy()
    kind: Literal["logits", "features"] = "logits" if options.classifier else "features"
    spec = ModelSpec(
        name=name, task="classifier" if options.classifier else "features", input=network.picture,
        output=OutputSpec(kind=kind, size=expected.shape[1]), sha256=_UNKNOWN, origin=_UNKNOWN,
        labels=network.labels, source=network.source, licence=network.licence,
    )  # fmt: skip
    try:
        # Beside ``out``, so that what is compared is what is moved; until then an older file stays as it is.
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
            draft = Path(folder, out.name)
            graph = parse_graph(_onnx_bytes(network.module, rows, draft.with_suffix(".torch")), name)
            written = write_model(draft, graph, spec, new_origin=True)
            with open_engine(draft, "cpu") as engine:
                difference = float(np.abs(engine.infer(rows.numpy()) - expected).max() / np.abs(expected).max())
            if not difference <= TOLERANCE:
                raise ModelError(f"{out}: differs from torch by {difference:.2g} of its largest answer; not written")
            for path in Path(folder).glob(f"{glob.escape(out.name)}*"):
                path.replace(out.with_name(path.name))
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror}); choose a folder that exists") from error
    return written, difference


def _onnx_bytes(module: Any, rows: Any, draft: Path) -> bytes:
    axes = {"input": {0: "batch"}, "output": {0: "batch"}}
    torch.onnx.export(
        module, (rows,), draft, input_names=["input"], output_names=["output"], dynamic_axes=axes,
        opset_version=_OPSET, dynamo=False,
    )  # fmt: skip
    return draft.read_bytes()


def _from_torchvision(name: str, options: ExportOptions) -> _Network:
    import torchvision
    from torchvision.models import get_model, get_model_weights

    try:
        weights = get_model_weights(name).DEFAULT
    except ValueError as error:
        raise UsageError(f"torchvision knows no network {name!r}; see torchvision.models.list_models()") from error
    use = weights if options.weights == "default" else None
    module = _fetched(name, lambda: get_model(name, weights=use))
    _load(module, name, options, None if options.classifier else _last_dense(module, name))
    side = options.size or weights.transforms().crop_size[0]
    preset = weights.transforms()
    labels = tuple(weights.meta["categories"]) if options.classifier and use is not None else None
    if not options.classifier:
        _drop_classifier(module, name)
    picture = _picture(side, preset.mean, preset.std, options)
    source = f"torchvision {torchvision.__version__} {_told(weights, options)}"
    return _Network(module, picture, labels, source, "BSD-3-Clause")


def _from_timm(name: str, options: ExportOptions) -> _Network:
    import timm

    if not timm.is_model(name):
        raise UsageError(f"timm knows no network {name!r}; see timm.list_models()")
    classes = {} if options.classifier else {"num_classes": 0}
    module = _fetched(name, lambda: timm.create_model(name, pretrained=options.weights == "default", **classes))
    _load(module, name, options)
    facts = module.pretrained_cfg
    picture = _picture(options.size or facts["input_size"][-1], facts["mean"], facts["std"], options)
    told = _told(facts.get("hf_hub_id") or name, options)
    return _Network(module, picture, None, f"timm {timm.__version__} {told}", facts.get("license") or "")


def _picture(side: int, mean: Any, std: Any, options: ExportOptions) -> InputSpec:
    return InputSpec(layout="NCHW", height=side, width=side, resize=options.resize, mean=tuple(mean), std=tuple(std))


def _fetched(name: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"{name}: its weights cannot be fetched ({error}); fetch the file yourself and give --weights FILE"
        ) from error


def _load(module: Any, name: str, options: ExportOptions, dropped: str | None = None) -> None:
    """Put the state dictionary of a file into ``module``; nothing in the file is executed. The tensors of the layer
    ``dropped`` may be missing, any other raises ``ModelError``."""
    if options.weights in ("default", "random"):
        return
    try:
        state = torch.load(options.weights, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"{options.weights}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise ModelError(f"{options.weights}: holds no plain state dictionary: {error}") from error
    try:
        missing = module.load_state_dict(state.get("state_dict", state), strict=options.classifier).missing_keys
    except (RuntimeError, AttributeError) as error:
        raise ModelError(f"{options.weights}: does not fit {name}: {error}") from error
    if lacking := [key for key in missing if dropped is None or not key.startswith(f"{dropped}.")]:
        raise ModelError(
            f"{options.weights}: does not fit {name}: {len(lacking)} tensors are missing ({', '.join(lacking[:3])} …), "
            "which would stay random; give the weights of this very network"
        )


def _drop_classifier(module: Any, name: str) -> None:
    """Put an identity in the place of the last dense layer, so that its input comes out."""
    *parents, last = _last_dense(module, name).split(".")
    setattr(module.get_submodule(".".join(parents)), last, nn.Identity())


def _last_dense(module: Any, name: str) -> str:
    dense: list[str] = [path for path, part in module.named_modules() if isinstance(part, nn.Linear)]
    if not dense:
        raise UsageError(f"{name}: has no dense layer to cut off; export it with --classifier and use `engines tap`")
    return dense[-1]


def _told(default: object, options: ExportOptions) -> str:
    if options.weights == "random":
        return f"random weights, seed {options.seed}: for trials only"
    return str(default) if options.weights == "default" else f"weights of {Path(options.weights).name}"
