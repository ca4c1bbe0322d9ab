"""``calibrate species``: a species classifier from labelled folders, as one ONNX file for ``edge run``."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from calibrate.fingerprints import VIEWS
from calibrate.options import Cache, DeviceOption, NoCache, Threads, chosen_cache
from calibrate.species import SpeciesOptions, export_species, fit_species
from calibrate.species import report as species_report
from calibrate.species_figures import classes_table, confusion_table, figures_table
from calibrate.species_graph import check_inputs
from calibrate.species_samples import gather_species
from engines import UsageError, load_spec, open_engine
from engines.base import Device
from engines.console import stderr

Models = Annotated[list[Path], typer.Option("--model", help="feature model; repeat it to fuse several")]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(species)


def species(
    model: Models,
    classes: Annotated[Path, typer.Option(help="folder with one sub folder per species; folders in those are groups")],
    out: Annotated[Path, typer.Option(help="classifier to write, ending in .onnx")],
    method: Annotated[
        str | None, typer.Option(help="lda, lda-strong, softmax or logistic; default: the best on inner folds")
    ] = None,
    augment: Annotated[
        str, typer.Option(help="views to learn from beside the whole picture: hflip, centre, centre_hflip, or none")
    ] = "hflip",
    folds: Annotated[int, typer.Option(min=2, help="of the cross-validation")] = 5,
    near: Annotated[
        float, typer.Option(help="cosine similarity from which on pictures of a class share a group; 0: never")
    ] = 0.97,
    report: Annotated[Path | None, typer.Option(help="folder for species.json: figures, confusion matrix")] = None,
    seed: Annotated[int, typer.Option(help="same pictures and seed, same file")] = 0,
    device: DeviceOption = "auto",
    threads: Threads = None,
    cache: Cache = None,
    no_cache: NoCache = False,
) -> None:
    """Fit a species classifier on frozen features and export it, with what it achieves on held-out pictures."""
    options = SpeciesOptions(method, folds, seed)
    views = _views(augment)
    _check_paths(out, near)
    check_inputs([load_spec(path) for path in model])
    with ExitStack() as stack:
        engines = [stack.enter_context(open_engine(path, cast(Device, device), threads=threads)) for path in model]
        caches = [chosen_cache(cache, no_cache, engine) for engine in engines]
        samples = gather_species(engines, classes, views, near or None, caches)
        fitted = fit_species(samples, options)
        difference = export_species(out, model, engines, samples, fitted.chosen.head)
        digest = load_spec(out).sha256
        content = species_report(samples, fitted, engines, options, digest)
    for table in (figures_table, classes_table, confusion_table):
        stderr.print(table(fitted.figures))
    stderr.print(
        f"{out}: {fitted.chosen.method}, {samples.classes} classes from {len(samples.label)} pictures; "
        f"its answers lie within {difference:.1g} of the fitted head's",
        soft_wrap=True,
    )
    if report is not None:
        _write_report(report, content)


def _views(augment: str) -> tuple[str, ...]:
    names = [name.strip() for name in augment.split(",") if name.strip() not in ("", "none")]
    extra = [view for view in VIEWS if view != "full"]
    if any(name not in extra for name in names):
        raise UsageError(f"--augment takes names out of {', '.join(extra)}, separated by commas, or none")
    return ("full", *dict.fromkeys(names))


def _check_paths(out: Path, near: float) -> None:
    if out.suffix != ".onnx":
        raise UsageError(f"{out}: the classifier's name must end in .onnx")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent}: no such folder for the classifier; make it first")
    if not 0.0 <= near <= 1.0:
        raise UsageError(f"--near must lie in 0 to 1, not {near:g}")


def _write_report(folder: Path, content: dict[str, Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (folder / "species.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: the report cannot be written ({error.strerror})") from error
