"""Options that several commands of ``calibrate`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[Path, typer.Option("--model", help="feature model with its manifest beside it")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda")]
Threads = Annotated[int | None, typer.Option("--threads", help="threads inside one inference; default: every core")]
