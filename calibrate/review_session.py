"""One review in its folder: ``review.json`` says of what, ``labels.jsonl`` holds the answers, and what came of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from calibrate.feature_cache import FeatureCache
from calibrate.folders import Picture, find_pictures
from calibrate.gather import gather
from calibrate.review_apply import Change, compare_gates, link_training
from calibrate.review_labels import LabelFile
from calibrate.review_queue import Item, build_queue, labelled_candidates, unlabelled_candidates
from calibrate.study import Study, held_out_study, paths_by_digest, refit, refit_on_the_same
from edge.gate import Gate
from edge.gate_file import load_gate, save_gate
from engines import Engine, UsageError

GATE, CANDIDATE, COMPARISON = "gate.npz", "candidate.npz", "comparison.json"


@dataclass(frozen=True, slots=True)
class Session:
    """What a review is about, with absolute paths; ``positives`` None where the gate's own pictures are not given."""

    gate: str
    model: str
    sha256: str
    folders: tuple[str, ...]
    positives: str | None
    negatives: tuple[str, ...]

    def save(self, out: Path) -> None:
        """Write ``review.json`` below ``out``; raises :class:`UsageError` when that cannot be done."""
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / "review.json").write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{out}: the review cannot be kept there ({error.strerror})") from error


def load_session(out: Path) -> Session:
    """The review kept in ``out``; raises :class:`UsageError` when there is none."""
    try:
        values = json.loads((out / "review.json").read_text(encoding="utf-8"))
        values |= {name: tuple(values[name]) for name in ("folders", "negatives")}
        return Session(**values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{out}: holds no review; label first: calibrate review FOLDER… --out {out}") from error


def open_labels(out: Path) -> LabelFile:
    """The labels of the review kept in ``out``."""
    return LabelFile(out / "labels.jsonl")


def make_queue(
    gate: Gate, engine: Engine, session: Session, limit: int, cache: FeatureCache | None = None
) -> list[Item]:
    """The questions of ``session``, at most ``limit``; pictures that lie in both kinds of folder count as labelled."""
    candidates, features = [], []
    if session.positives is not None:
        labelled, rows = labelled_candidates(_own_study(gate, engine, session, cache))
        candidates += labelled
        features.append(rows.astype(np.float32))
    if session.folders:
        known = {candidate.digest for candidate in candidates}
        fresh, rows = unlabelled_candidates(gate, engine, [Path(folder) for folder in session.folders], cache)
        new = [i for i, candidate in enumerate(fresh) if candidate.digest not in known]
        candidates += [fresh[i] for i in new]
        features.append(rows[new].astype(np.float32))
    return build_queue(candidates, np.concatenate(features), gate.threshold, limit, gate.manifest.training.seed)


def apply_labels(
    gate: Gate, engine: Engine, session: Session, out: Path, cache: FeatureCache | None = None
) -> list[Change]:
    """Fit again on the gate's own pictures as labelled now; writes ``candidate.npz`` and the comparison below ``out``.

    Raises:
        UsageError: nothing is labelled, or the gate's own pictures were not given.
    """
    labels = open_labels(out).labels
    if not labels:
        raise UsageError(f"{out}: nothing is labelled yet")
    if session.positives is None:
        raise UsageError("fitting again needs the gate's own pictures: review with --positives and --negatives")
    own = _own_study(gate, engine, session, cache)
    folders = link_training(out / "training", _with_digests(session), labels)
    samples = gather(engine, *folders, gate.views, normalise=gate.manifest.normalise, cache=cache)
    fitted = refit(gate, samples, engine.spec)
    save_gate(out / CANDIDATE, fitted.manifest, fitted.arrays)
    load_gate(out / CANDIDATE, features=engine.spec)
    after = fitted.held_out.decisive >= fitted.manifest.decision.threshold
    judged = gate.judge(samples.features)
    before = {digest: bool(judged.accepted[row]) for row, digest in enumerate(samples.digests) if judged.finite[row]}
    before |= dict(zip(own.samples.digests, own.accepted.tolist(), strict=True))
    changes = compare_gates(fitted.samples, after, before)
    text = json.dumps({"before": gate.name, "changes": [change.json() for change in changes]}, indent=2)
    (out / COMPARISON).write_text(text + "\n", encoding="utf-8")
    return changes


def accept_candidate(out: Path) -> Path:
    """Make the candidate the review's gate and return its path."""
    os.replace(out / CANDIDATE, out / GATE)
    return out / GATE


def _own_study(gate: Gate, engine: Engine, session: Session, cache: FeatureCache | None) -> Study:
    positives, negatives = _folders(session)
    samples = gather(engine, positives, negatives, gate.views, normalise=gate.manifest.normalise, cache=cache)
    fitted = refit_on_the_same(gate, samples, engine.spec)
    return held_out_study(gate.name, fitted, paths_by_digest(positives, negatives))


def _with_digests(session: Session) -> Sequence[tuple[Picture, str]]:
    pictures = find_pictures(*_folders(session))
    return [(picture, hashlib.sha256(picture.path.read_bytes()).hexdigest()) for picture in pictures]


def _folders(session: Session) -> tuple[Path, list[Path]]:
    return Path(str(session.positives)), [Path(folder) for folder in session.negatives]
