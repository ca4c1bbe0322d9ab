"""Options that several commands of ``calibrate`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calibrate.chooser import Use
from calibrate.decision import Wish, parse_wish
from calibrate.feature_cache import FeatureCache, default_folder, open_cache
from engines import Engine, UsageError

Model = Annotated[Path, typer.Option("--model", help="feature model with its manifest beside it")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda")]
Threads = Annotated[int | None, typer.Option("--threads", help="threads inside one inference; default: every core")]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="folder of features known already; default: in the user's cache folder")
]
Together = Annotated[
    list[str] | None,
    typer.Option("--together", help="related kinds, held out together, as macaw,scarlet_macaw; repeatable"),
]
Threshold = Annotated[
    str | None,
    typer.Option(
        "--threshold",
        help="a number, or what is wanted: recall:0.9, promise:0.9 (of fresh pictures, with confidence 0.95), "
        "precision:0.8, false_a_day:10, cost:5 (a miss worth five false alarms); default: probability 0.5; without "
        "negatives p 0.05",
    ),
]
Prior = Annotated[float, typer.Option("--prior", help="share of frames that show the animal, where the gate is used")]
FramesADay = Annotated[float, typer.Option("--frames-a-day", help="frames a day, where the gate is used")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="compute every feature, keep none")]


def chosen_wish(threshold: str | None, prior: float, frames: float) -> Wish | None:
    """What ``--threshold``, ``--prior`` and ``--frames-a-day`` ask for; None where no threshold was named.

    Raises :class:`UsageError` for what cannot be read, and where a use is stated that nothing asks about.
    """
    use = Use(prior, frames)
    if threshold is None and use != Use():
        raise UsageError("--prior and --frames-a-day say where a rule applies: add one, such as --threshold cost:5")
    return None if threshold is None else parse_wish(threshold, use)


def chosen_cache(folder: Path | None, without: bool, engine: Engine) -> FeatureCache | None:
    """The cache that ``--cache`` and ``--no-cache`` ask for."""
    return None if without else open_cache(folder or default_folder(), engine.spec, engine.device)
