"""The public networks that ``engines pull`` knows: addresses, sizes, hashes and manifests, as data beside this file.

The addresses are only places to look; which bytes are the right ones is said by size and SHA-256 alone. To add a
network, add its entry to ``registry.json`` with the hash computed over the file itself.
"""

from __future__ import annotations

import difflib
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from engines import strict_json
from engines.errors import UsageError
from engines.spec import InputSpec, ModelSpec, OutputSpec, Sha256

MAX_REGISTRY_BYTES = 1 << 20
Urls = Annotated[
    tuple[Annotated[str, Field(pattern=r"^https://[^/]+/.")], ...], Field(min_length=1), BeforeValidator(tuple)
]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Remote(_Strict):
    """A file somewhere else: its addresses in the order in which to try them, its size and its hash."""

    urls: Urls
    size: Annotated[int, Field(ge=1, le=1 << 32, alias="bytes")]
    sha256: Sha256


class KnownModel(Remote):
    """A network, the name of its file, and what its manifest will say; ``labels`` is a text file, a line a class."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    about: str
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.(onnx|tflite)$")]
    input: InputSpec
    output: OutputSpec
    labels: Remote | None
    source: str
    licence: str

    def spec(self, labels: tuple[str, ...] | None) -> ModelSpec:
        """The manifest of the file; raises ``ModelError`` when the labels do not fit the output."""
        return ModelSpec(
            name=self.name,
            task="features" if self.output.kind == "features" else "classifier",
            input=self.input,
            output=self.output,
            sha256=self.sha256,
            origin=self.sha256,
            labels=labels,
            source=f"{self.source}: {self.urls[0]}",
            licence=self.licence,
        )


class _Registry(_Strict):
    format: Literal[1]
    models: Annotated[tuple[KnownModel, ...], BeforeValidator(tuple)]


def known_models() -> tuple[KnownModel, ...]:
    """Every network of the registry, in its order."""
    data = files("engines").joinpath("registry.json").read_bytes()
    return _Registry.model_validate(strict_json.loads(data, max_bytes=MAX_REGISTRY_BYTES)).models


def find_model(name: str) -> KnownModel:
    """The network of that name.

    Raises:
        UsageError: there is none; the message names the nearest ones.
    """
    models = {model.name: model for model in known_models()}
    if name not in models:
        near = difflib.get_close_matches(name, models, 3, 0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(f"no network called {name!r} is known; {hint}engines pull --list shows them")
    return models[name]
