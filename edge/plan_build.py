"""``build: auto`` of a section: the TensorRT plan of this box, in the cache or built before the worker begins."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge.config import Config, FeaturesConfig, SpeciesConfig
from engines import EngineRunError, ModelError
from engines.build import Source, Wanted, build, default_cache, find, plan_section, read_source, this_machine
from engines.build_progress import Progress
from engines.plan_manifest import PlanSection, Profile

log = logging.getLogger(__name__)

Role = Literal["features", "species"]
Building = Callable[[Role], Progress]
ROLES: tuple[Role, ...] = ("features", "species")
LOG_STEP = 0.1  # of the build, from one line of the log to the next


@dataclass(frozen=True, slots=True)
class Planned:
    """What the configuration asks for on this box; ``plan`` is None until it is built."""

    source: Source
    section: PlanSection
    plan: Path | None

    def __str__(self) -> str:
        made, rows = self.section, self.section.profile
        return (
            f"{made.onnx} for {made.gpu} with TensorRT {made.tensorrt}: {made.precision}, "
            f"batches of {rows.min} to {rows.max}"
        )


def planned(config: Config, role: Role) -> Planned | None:
    """The plan that ``config`` has built for the engine of ``role``; None where it asks for none, or where this box has
    no GPU or TensorRT and ``device`` is ``auto`` (which is logged).

    Raises:
        ModelError: the ONNX file cannot be used, or the GPU is missing although ``device`` is ``cuda``.
        EngineRunError: the GPU has no memory left although ``device`` is ``cuda``.
    """
    section: FeaturesConfig | SpeciesConfig | None = getattr(config, role)
    if section is None or section.build == "never":
        return None
    source = read_source(section.model, section.sha256, section.manifest_sha256)
    try:
        machine = this_machine()
    except (ModelError, EngineRunError) as error:
        if config.features.device == "cuda":
            raise
        log.warning("slower than it could be: no plan is built here for %s: %s", source.path.name, error)
        return None
    rows = config.batch.max
    made = plan_section(source, Wanted(Profile(min=1, opt=rows, max=rows)), machine)
    plan = find(source, made, default_cache())
    return Planned(source, made, plan.path if plan is not None else None)


def ready_plan(config: Config, role: Role, building: Building | None) -> Path | None:
    """The plan to run, built now where the cache lacks it and ``building`` is there to be told.

    Raises:
        ModelError: as ``planned``, or TensorRT cannot build it.
        BuildStoppedError: ``building``'s progress has answered False.
    """
    wanted = planned(config, role)
    if wanted is None or wanted.plan is not None or building is None:
        return wanted.plan if wanted is not None else None
    log.info("building a plan of %s", wanted)
    plan = build(wanted.source, wanted.section, default_cache(), building(role))
    log.info("built plan=%s cached=%s", plan.path, plan.cached)
    return plan.path


def logged(tell: Callable[[str], object], going: Callable[[], bool]) -> Building:
    """Progress for a worker, anew for each engine: ``tell`` hears every sentence, the log one for each tenth; ``going``
    says whether to go on."""

    def building(role: Role) -> Progress:
        next_line = [0.0]

        def progress(fraction: float, phase: str) -> bool:
            sentence = f"building the {role} engine: {fraction:.0%}"
            tell(sentence)
            if fraction >= next_line[0]:
                next_line[0] = fraction + LOG_STEP
                log.info("%s phase=%r", sentence, phase)
            return going()

        return progress

    return building
