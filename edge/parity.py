"""The parity report beside a quantised model: proof that it answers as the float model does.

Of a feature model gate by gate: it must decide alike. Of a species classifier: it must name alike. Written by
``calibrate parity``; a worker takes no quantised variant without it. The report of the ONNX file that a TensorRT plan
was built from holds for the plan too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.gate import Gate
from engines import ModelError, ModelSpec
from engines.files import read_bounded
from engines.spec import Sha256

FORMAT = 1
MAX_REPORT_BYTES = 1 << 20
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Side(_Part):
    """One of the two models: ``auroc`` of the gate's score (null without negatives), recall and the share of negatives
    accepted (null without), both at the gate's own threshold."""

    sha256: Sha256
    auroc: Share | None
    recall: Share
    false_accepts: Share | None


class GateParity(_Part):
    """How one gate judges the same pictures through the float model (``before``) and the variant (``after``).

    ``flipped`` counts pictures whose decision changes, ``cosine`` is the mean between the two models' features.
    ``seen`` says that the gate was fitted on these very pictures, which flatters both sides.
    """

    gate: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    passed: bool
    verdict: str
    before: Side
    after: Side
    positives: int = Field(ge=1)
    negatives: int = Field(ge=0)
    flipped: int = Field(ge=0)
    lost: int = Field(ge=0)
    gained: int = Field(ge=0)
    cosine: float
    worst_cosine: float
    seen: bool
    max_auroc_loss: float
    max_flipped: Share


class SpeciesParity(_Part):
    """How a species classifier names the same pictures as float model (hash ``before``) and as variant (``after``).

    ``agreed`` of ``pictures`` keep their best class; ``agreement_low`` is the lower end of that share with a confidence
    of 95 %. ``confident`` pictures have a class that the float model finds more probable than all others together, and
    ``confident_flipped`` of them get another. ``moved`` is the mean change of the float model's best probability.
    """

    passed: bool
    verdict: str
    before: Sha256
    after: Sha256
    pictures: int = Field(ge=1)
    agreed: int = Field(ge=0)
    agreement_low: Share
    confident: int = Field(ge=0)
    confident_flipped: int = Field(ge=0)
    cosine: float
    worst_cosine: float
    moved: Share
    min_agreement: Share
    max_confident_flipped: Share


class ParityReport(_Part):
    """The file ``<model file>.parity.json``; ``variant`` is the SHA-256 of that model file."""

    format: Literal[1] = 1
    variant: Sha256
    origin: Sha256
    gates: tuple[GateParity, ...] = ()
    species: SpeciesParity | None = None


def report_path(model: Path) -> Path:
    """Where the parity report of ``model`` stands."""
    return model.with_name(model.name + ".parity.json")


def load_report(path: Path) -> ParityReport:
    """Read a parity report; raises :class:`ModelError` if there is none or it is malformed."""
    data = read_bounded(path, MAX_REPORT_BYTES)
    try:
        return ParityReport.model_validate_json(data)
    except ValidationError as error:
        fault = error.errors()[0]
        raise ModelError(
            f"{path}: is no parity report ({'.'.join(map(str, fault['loc']))}: {fault['msg']}); "
            "write it again with `calibrate parity`"
        ) from error


def check_parity(model: Path, spec: ModelSpec, gate: Gate) -> None:
    """Raise :class:`ModelError` if ``model`` is a quantised variant that is not proven to decide as its origin does.

    The report must speak of the very file, or of the ONNX file that a plan was built from.
    """
    if not spec.is_quantized_variant:
        return
    remedy = f"measure it with `calibrate parity --gate GATE --model ITS-FLOAT-MODEL --variant {model.name} …`"
    reports = _reports(model, spec, "for the gate ", remedy)
    entries = [entry for one in reports for entry in one.gates if entry.gate == gate.name]
    if not entries:
        raise ModelError(
            f"{model}: its parity report says nothing of this file and the gate {gate.name[:19]}…; {remedy}"
        )
    if not all(entry.passed for entry in entries):
        faults = "; ".join(entry.verdict for entry in entries if not entry.passed)
        raise ModelError(f"{model}: this variant moves the gate {gate.name[:19]}…: {faults}; use the float model")


def check_species_parity(model: Path, spec: ModelSpec) -> None:
    """Raise :class:`ModelError` if ``model`` is a quantised classifier not proven to name as its origin does."""
    if not spec.is_quantized_variant:
        return
    remedy = (
        f"measure it with `calibrate parity --model ITS-FLOAT-MODEL --variant {model.name} --pictures FOLDER`, "
        "or use the float model"
    )
    entries = [one.species for one in _reports(model, spec, "", remedy) if one.species is not None]
    if not entries:
        raise ModelError(f"{model}: its parity report says nothing of this file as a species model; {remedy}")
    if not all(entry.passed for entry in entries):
        faults = "; ".join(entry.verdict for entry in entries if not entry.passed)
        raise ModelError(f"{model}: this variant names other species: {faults}; use the float model")


def _reports(model: Path, spec: ModelSpec, of_what: str, remedy: str) -> list[ParityReport]:
    """Those that speak of the very file, or of the ONNX file that a plan was built from; ``ModelError`` where no report
    is there at all."""
    beside, digests = [report_path(model)], {spec.sha256}
    if spec.plan is not None:
        beside.append(report_path(model.with_name(spec.plan.onnx)))
        digests.add(spec.plan.onnx_sha256)
    reports = [load_report(path) for path in dict.fromkeys(beside) if path.is_file()]
    if not reports:
        raise ModelError(
            f"{model}: a quantised variant needs a parity report {of_what}beside it, and there is no "
            f"{beside[-1].name}; {remedy}"
        )
    return [one for one in reports if one.variant in digests]
