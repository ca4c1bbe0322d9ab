"""Options that several commands of ``calibrate`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calibrate.feature_cache import FeatureCache, default_folder, open_cache
from engines import Engine

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
NoCache = Annotated[bool, typer.Option("--no-cache", help="compute every feature, keep none")]


def chosen_cache(folder: Path | None, without: bool, engine: Engine) -> FeatureCache | None:
    """The cache that ``--cache`` and ``--no-cache`` ask for."""
    return None if without else open_cache(folder or default_folder(), engine.spec, engine.device)
