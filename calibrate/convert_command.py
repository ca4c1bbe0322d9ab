"""``calibrate convert``: the classic notebook's joblib files into a gate file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import typer

from calibrate.convert import Float32
from calibrate.convert import convert as convert_files
from calibrate.fingerprints import fingerprint
from calibrate.folders import pictures_in
from calibrate.options import DeviceOption, Model, Threads
from edge.gate_file import load_gate, save_gate
from edge.gate_manifest import GOLDEN_ROWS
from engines import ModelSpec, UsageError, load_spec, open_engine
from engines.base import Device
from engines.console import stderr

log = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(convert)


def convert(
    model: Model,
    scaler: Annotated[Path, typer.Option(help="StandardScaler")],
    pca: Annotated[Path, typer.Option(help="PCA")],
    gmm: Annotated[Path, typer.Option(help="GaussianMixture")],
    iso: Annotated[Path, typer.Option(help="IsotonicRegression")],
    out: Annotated[Path, typer.Option(help="gate file to write")],
    positives: Annotated[
        Path | None, typer.Option(help="pictures to prove the gate on; without, the mixture draws rows itself")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help=".npy (n, D) of the notebook's own features, in place of --positives")
    ] = None,
    threshold: Annotated[float, typer.Option(help="probability from which on a picture is accepted")] = 0.5,
    trust: Annotated[bool, typer.Option("--i-trust-these-files", help="run the code inside the joblib files")] = False,
    allow_version_skew: Annotated[
        bool, typer.Option("--allow-version-skew", help="take files of another scikit-learn")
    ] = False,
    device: DeviceOption = "auto",
    threads: Threads = None,
) -> None:
    """Turn scaler, PCA, mixture and isotonic regression of the classic notebook into a gate, proven equal."""
    if not trust:
        raise UsageError(
            "joblib files are programs: loading them runs whatever their author, or whoever changed them since, put "
            "inside, with your rights. If you made these files yourself and know that nobody touched them, pass "
            "--i-trust-these-files"
        )
    if not 0.0 < threshold < 1.0:
        raise UsageError(f"--threshold must lie between 0 and 1, not {threshold:g}")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent}: no such folder for the gate file; make it first")
    log.warning("WARNING: running the code inside %s, %s, %s and %s", scaler, pca, gmm, iso)
    spec = load_spec(model)
    given = _given(model, spec, positives, features, cast(Device, device), threads)
    name = "positives" if positives is None else positives.resolve().name
    found = convert_files(
        [scaler, pca, gmm, iso], spec, given, positive=name, threshold=threshold, allow_skew=allow_version_skew
    )
    save_gate(out, found.manifest, found.arrays)
    gate = load_gate(out, features=spec)
    stderr.print(
        f"{out}: {gate.name}; equal to scikit-learn's chain on {found.rows} rows, within {found.score_difference:.1g} "
        f"in score and {found.probability_difference:.1g} in probability "
        f"(the chain's own rounding: {found.rounding:.1g}); the files were unpickled "
        f"{'without' if found.offline else 'WITH'} a network. How good this gate is nobody has measured.",
        soft_wrap=True,
    )


def _given(
    model: Path, spec: ModelSpec, positives: Path | None, file: Path | None, device: Device, threads: int | None
) -> Float32 | None:
    """The rows that the gate is proven on, (n, D) float32, or None to have them drawn."""
    if positives is not None and file is not None:
        raise UsageError("give --positives or --features, not both")
    if file is not None:
        rows = _from_file(file, spec)
    elif positives is not None:
        rows = _from_pictures(model, positives, device, threads)
    else:
        log.warning("no --positives: golden rows and held-out scores are drawn from the mixture, not from pictures")
        return None
    if len(rows) < GOLDEN_ROWS:
        raise UsageError(f"{len(rows)} rows are too few to prove a gate on; give at least {GOLDEN_ROWS} pictures")
    return rows


def _from_pictures(model: Path, folder: Path, device: Device, threads: int | None) -> Float32:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give a folder of pictures")
    paths = list(pictures_in(folder))
    with open_engine(model, device, threads=threads) as engine:
        found = fingerprint([engine], paths)
    for row, reason in found.unreadable.items():
        log.warning("%s: %s", paths[row], reason)
    return found.features["full"][0]


def _from_file(file: Path, spec: ModelSpec) -> Float32:
    try:
        rows = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: is no .npy file of plain numbers ({error})") from error
    if rows.ndim != 2 or rows.shape[1] != spec.output.size or not np.isfinite(rows).all():
        raise UsageError(f"{file}: expected finite features (n, {spec.output.size}), found {rows.shape} {rows.dtype}")
    result: Float32 = rows.astype(np.float32)
    return result
