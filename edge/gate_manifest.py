"""The JSON manifest inside a gate file: what the gate was made of, for which features, and how well it did.

To change the format: raise ``FORMAT``, keep the old reader in ``edge.gate_file`` and an old file in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from edge.errors import GateError
from engines.spec import InputSpec

FORMAT = 1
VIEWS = ("full", "hflip", "centre")  # of ``edge.views``
GOLDEN_ROWS = 16
MAX_FEATURES = 65_536


def band_holds(band: tuple[float, float], threshold: float) -> bool:
    """Whether ``threshold`` lies in ``band``; one without width is no band and holds every threshold."""
    return band[0] == band[1] or band[0] <= threshold <= band[1]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FeatureModel(_Part):
    """The feature engine that the gate belongs to; ``origin`` is the SHA-256 of its float model, ``size`` D."""

    name: str
    origin: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=1, le=MAX_FEATURES)
    input: InputSpec


class Member(_Part):
    """One score of the features: its name prefixes its arrays, its kind says the formula (see ``edge.gate_math``)."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    kind: Literal["mixture", "gaussian", "linear"]
    covariance: Literal["spherical", "diag", "tied", "full"] | None = None

    @model_validator(mode="after")
    def _covariance_belongs_to_a_mixture(self) -> Member:
        if (self.kind == "mixture") != (self.covariance is not None):
            raise ValueError(f"member {self.name!r}: a covariance type is given exactly for kind 'mixture'")
        return self


class Decision(_Part):
    """What decides and from which value on a frame is accepted (the value itself is accepted); values from the lower
    end of ``abstain`` up to its upper are uncertain, None: none is."""

    by: Literal["probability", "p_value"]
    threshold: float = Field(ge=0.0, le=1.0)
    abstain: tuple[float, float] | None = None

    @field_validator("abstain")
    @classmethod
    def _band(cls, band: tuple[float, float] | None, info: ValidationInfo) -> tuple[float, float] | None:
        threshold = info.data.get("threshold", 0.0)
        if band is not None and not (0.0 <= band[0] <= band[1] <= 1.0 and band_holds(band, threshold)):
            raise ValueError(f"a band of uncertain verdicts holds the threshold, {threshold}; found {list(band)}")
        return band

    @model_serializer(mode="wrap")
    def _without_an_absent_band(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A worker from before there were bands reads the file as well.
        values: dict[str, Any] = handler(self)
        return values if self.abstain is not None else {k: v for k, v in values.items() if k != "abstain"}


class Training(_Part):
    """What the gate was fitted on. ``digest`` is a SHA-256 over the sorted (role, family, picture hash) lines."""

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    positives: int = Field(ge=1)
    negatives: dict[str, int]
    groups: dict[str, int]
    folds: str
    seed: int


class GateManifest(_Part):
    """Everything about a gate but its numbers.

    ``positive`` names what is accepted: the name of the folder of positives. ``normalise`` says that features are
    put on the unit sphere first. ``join`` says how member scores become one (``edge.gate_calibration``).
    """

    format: int
    name: str
    recipe: str
    positive: str
    features: FeatureModel
    views: tuple[str, ...]
    normalise: bool
    members: tuple[Member, ...] = Field(min_length=1, max_length=16)
    join: Literal["single", "clipped_sum", "product"]
    calibration: Literal["isotonic", "platt", "beta", "none"]
    decision: Decision
    training: Training
    metrics: dict[str, Any]
    options: dict[str, Any]
    versions: dict[str, str]

    @field_validator("format")
    @classmethod
    def _format_is_ours(cls, value: int) -> int:
        if value != FORMAT:
            raise ValueError(f"gate format {value} is not format {FORMAT}, the one this build reads")
        return value

    @field_validator("views")
    @classmethod
    def _views_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value) or any(view not in VIEWS for view in value):
            raise ValueError(f"views must be distinct names out of {', '.join(VIEWS)}; found {list(value)}")
        return value

    @model_validator(mode="after")
    def _parts_fit_together(self) -> GateManifest:
        names = [member.name for member in self.members]
        if len(set(names)) != len(names):
            raise ValueError(f"member names must differ; found {names}")
        if (self.join == "single") != (len(names) == 1):
            raise ValueError("join is 'single' for one member and 'clipped_sum' or 'product' for several")
        if self.calibration == "none" and self.decision.by == "probability":
            raise ValueError("a gate without calibration has no probability to decide by")
        return self


def parse_manifest(source: str, values: Mapping[str, Any]) -> GateManifest:
    """Check ``values``; raises :class:`GateError` with one sentence for the first faults found."""
    try:
        return GateManifest.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'manifest'}: {e['msg']}" for e in error.errors()[:3])
        raise GateError(
            f"{source}: its manifest is not one of format {FORMAT} ({faults}); fit the gate again"
        ) from error
