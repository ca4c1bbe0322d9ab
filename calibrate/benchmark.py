"""One-vs-rest over the classes of a train/test folder tree: how well frozen features tell one class from the others.

Each class in turn is the positive one: members fit on its training pictures alone, and score every test picture.
With outlier exposure the other classes' training pictures are negatives. Nothing is picked on a test picture: the views
are a fixed rule (``RULE``), and the outlier exposure's penalty comes from inner folds of the training pictures.
"""

from __future__ import annotations

import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import OneClassSVM
from threadpoolctl import threadpool_limits

from calibrate.folders import pictures_in
from calibrate.members import fit_ledoit_wolf, fit_mixture_chain, fit_ppca
from calibrate.metrics import auroc
from calibrate.samples import Float64, Floats, Strings
from edge.gate import unit_rows
from engines import UsageError
from engines.console import track

DEFAULT = "ledoit-wolf"
FUSED = "ledoit-wolf, zoomed out"
SEED_COMPONENTS, SEED_MIXTURES = 512, 18
SOFTMAX_C = (3.0, 10.0, 30.0)  # inverse strengths of the penalty, the best of them on inner folds
HEADING = 8  # columns of text of a member's heading
INNER_FOLDS = 3
RULE = (
    "views are a rule stated beforehand: whole, at 0.8 and at half its size amid its mirror images, each averaged with "
    "its flip, side by side at equal weight; chosen by one-vs-rest over kinds of parrots, birds and objects on "
    "photographs shrunk to 32 pixels, not on this data; six inferences a picture"
)

# Mean AUROC on CIFAR-10, one class against the rest, as published: (figure, features, input size).
PUBLISHED: Mapping[str, tuple[float, str]] = {
    "OCSVM": (0.5856, "raw pixels, 32"),
    "KDE": (0.6097, "raw pixels, 32"),
    "DAE": (0.5358, "trained from scratch, 32"),
    "VAE": (0.5833, "trained from scratch, 32"),
    "PixelCNN": (0.5506, "trained from scratch, 32"),
    "GAN": (0.5916, "trained from scratch, 32"),
    "AND": (0.6172, "trained from scratch, 32"),
    "AnoGAN": (0.6179, "trained from scratch, 32"),
    "DSVDD": (0.6481, "trained from scratch, 32"),
    "OCGAN": (0.6566, "trained from scratch, 32"),
    "OCGAN, attention": (0.673, "trained from scratch, 32"),
    "CSI": (0.943, "ResNet-18 trained from scratch, 32"),
    "DN2": (0.925, "ImageNet ResNet, frozen, 224"),
    "PANDA": (0.962, "ImageNet ResNet-152, adapted, 224"),
    "MSC": (0.972, "ImageNet ResNet-152, adapted, 224"),
    "PANDA, outlier exposure": (0.989, "ImageNet ResNet-152, adapted, 224"),
}

Scorer = Callable[[Float64, Float64], Float64]


@dataclass(frozen=True, slots=True)
class Tree:
    """The pictures of a train/test tree and the class of each."""

    train: tuple[Path, ...]
    train_class: Strings
    test: tuple[Path, ...]
    test_class: Strings


@dataclass(frozen=True, slots=True)
class Result:
    """AUROC of each class, by member; ``exposed`` with outlier exposure, whose ``choice`` inner folds of the training
    pictures made. ``pictures``: how many in train and test; ``rule``: how the ``member``'s views were chosen."""

    members: dict[str, dict[str, float]]
    exposed: dict[str, float]
    choice: str
    pictures: tuple[int, int]
    member: str = DEFAULT
    rule: str = ""

    def as_json(self) -> dict[str, Any]:
        """The object that ``calibrate benchmark --json`` prints."""
        classes = self.members[self.member]
        return {
            "one_class": {
                "mean": _mean(classes),
                "classes": classes,
                "members": {name: _mean(found) for name, found in self.members.items()},
            },
            "outlier_exposure": {"mean": _mean(self.exposed), "classes": self.exposed, "choice": self.choice},
            "member": self.member,
            "rule": self.rule,
        }


def find_tree(folder: Path) -> Tree:
    """The tree at ``folder`` or in its only sub folder; raises :class:`UsageError` where there is none."""
    inside = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    root = inside[0] if len(inside) == 1 and not (folder / "train").is_dir() else folder
    found = {part: _classes(root / part) for part in ("train", "test")}
    if found["train"].keys() != found["test"].keys() or len(found["train"]) < 2:
        raise UsageError(
            f"{folder}: expected train/CLASS and test/CLASS with the same classes, at least two; found train "
            f"{', '.join(found['train']) or 'nothing'} and test {', '.join(found['test']) or 'nothing'}"
        )
    train, test = (_flat(found[part]) for part in ("train", "test"))
    return Tree(*train, *test)


def fuse(views: Sequence[Floats]) -> Float64:
    """Unit rows of all ``views`` (n, D) side by side: (n, 3 D) for three."""
    return np.concatenate([np.asarray(unit_rows(view.astype(np.float64)), np.float64) for view in views], axis=1)


def benchmark(
    train: Floats,
    train_class: Strings,
    test: Floats,
    test_class: Strings,
    seed: int = 0,
    fused: tuple[Floats, Floats] | None = None,
) -> Result:
    """AUROC of every member on features (n, D) and (m, D) whose views are joined.

    ``fused`` are the same pictures' features of several views side by side; a Ledoit-Wolf density of them is the
    default member where they are given, and outlier exposure may take them too.
    """
    scorers = _scorers(seed)
    members: dict[str, dict[str, float]] = {name: {} for name in scorers}
    raw_train, raw_test = train.astype(np.float64), test.astype(np.float64)
    unit_train, unit_test = (np.asarray(unit_rows(x), np.float64) for x in (raw_train, raw_test))
    known, fresh = (np.asarray(unit_rows(x.astype(np.float64)), np.float64) for x in fused or (train, test))
    names = sorted(set(map(str, train_class)))
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for name in track(names, "classes"):
            own, truth = train_class == name, test_class == name
            for member, scorer in scorers.items():
                raw = member.startswith("seed")
                score = scorer((raw_train if raw else unit_train)[own], raw_test if raw else unit_test)
                members[member][name] = round(auroc(score[truth], score[~truth]), 6)
            if fused is not None:
                score = fit_ledoit_wolf(known[own]).score(fresh)
                members.setdefault(FUSED, {})[name] = round(auroc(score[truth], score[~truth]), 6)
        given = {"whole pictures": (unit_train, unit_test)}
        if fused is not None:
            given["zoomed out"] = (known, fresh)
        name, strength = _chosen({name: x for name, (x, _) in given.items()}, train_class, seed)
        exposed = _exposed(given[name][0], train_class, given[name][1], test_class, strength)
    choice = f"softmax on {name}, C = {strength:g}, by {INNER_FOLDS} folds of the training pictures"
    counts = (len(train), len(test))
    if fused is None:
        return Result(members, exposed, choice, counts)
    return Result(members, exposed, choice, counts, FUSED, RULE)


def tables(result: Result) -> list[Table]:
    """The members' AUROC by class, a column for each, and the published figures; both within 80 columns."""
    ours = _table(
        f"AUROC, one class against the rest; {result.pictures[0]} training, {result.pictures[1]} test pictures",
        "\n".join(line for line in (result.rule, f"outlier exposure: {result.choice}") if line),
    )
    columns = {**result.members, "outliers exposed: softmax": result.exposed}
    ours.add_column("class", overflow="fold")
    for member in columns:
        ours.add_column(textwrap.fill(member, HEADING, break_long_words=False), justify="right", no_wrap=True)
    for name in result.exposed:
        ours.add_row(name, *(_short(found[name]) for found in columns.values()))
    ours.add_section()
    ours.add_row("mean", *(_short(_mean(found), 4) for found in columns.values()), style="bold")
    ours.add_row("worst", *(_short(min(found.values())) for found in columns.values()))
    published = _table(
        "Published means on the whole of CIFAR-10 (5000 positives a class): other features, other pictures",
        "for orientation, not measured here; DN2's figure is from memory of its paper",
    )
    for column in ("method", "mean AUROC", "features, input"):
        published.add_column(column)
    for name, (figure, features) in PUBLISHED.items():
        published.add_row(name, f"{figure:.3f}", features)
    return [ours, published]


def _table(title: str, caption: str) -> Table:
    return Table(
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )


def _short(figure: float, places: int = 3) -> str:
    """Without the zero before the point."""
    return f"{figure:.{places}f}".removeprefix("0")


def _scorers(seed: int) -> dict[str, Scorer]:
    def seed_mixture(x: Float64, test: Float64) -> Float64:
        components = min(SEED_COMPONENTS, len(x) // 2, x.shape[1])
        mixtures = max(1, min(SEED_MIXTURES, len(x) // 2))
        return fit_mixture_chain(x, max(1, components), mixtures, "spherical", seed).score_samples(test)

    def nearest(x: Float64, test: Float64) -> Float64:
        return np.asarray(np.sort(test @ x.T, axis=1)[:, -min(2, len(x))])

    return {
        DEFAULT: lambda x, test: fit_ledoit_wolf(x).score(test),
        "ppca": lambda x, test: fit_ppca(x, max(1, min(len(x) // 5, x.shape[1] - 1))).score(test),
        "knn-2": nearest,
        "seed: mixture": seed_mixture,
        "seed: one-class SVM": lambda x, test: np.asarray(OneClassSVM(nu=0.08).fit(x).score_samples(test)),
        "seed: isolation forest": lambda x, test: np.asarray(
            IsolationForest(random_state=seed).fit(x).score_samples(test)
        ),
    }


def _chosen(given: Mapping[str, Float64], classes: Strings, seed: int) -> tuple[str, float]:
    """The features and the penalty whose mean AUROC over classes is best on inner folds of the training pictures.

    The first features with the middle penalty where a class has fewer pictures than there are folds.
    """
    if min(Counter(map(str, classes)).values()) < INNER_FOLDS:
        return next(iter(given)), SOFTMAX_C[1]
    folds = list(StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=seed).split(classes, classes))
    found = {
        (name, strength): float(
            np.mean([_mean(_exposed(x[a], classes[a], x[b], classes[b], strength)) for a, b in folds])
        )
        for name, x in given.items()
        for strength in SOFTMAX_C
    }
    return max(found, key=found.__getitem__)


def _exposed(
    train: Float64, train_class: Strings, test: Float64, test_class: Strings, strength: float
) -> dict[str, float]:
    """Log odds of each class against all others together, from one softmax regression over the named classes."""
    centre = train.mean(axis=0)
    scale = float(np.sqrt(np.square(train - centre).sum(axis=1).mean())) or 1.0
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=300, tol=1e-3)
    model.fit((train - centre) / scale, train_class)
    log_p = model.predict_log_proba((test - centre) / scale)
    found = {}
    for column, name in enumerate(map(str, model.classes_)):
        log_odds = log_p[:, column] - np.logaddexp.reduce(np.delete(log_p, column, axis=1), axis=1)
        truth = test_class == name
        found[name] = round(auroc(log_odds[truth], log_odds[~truth]), 6)
    return found


def _classes(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        return {}
    named = {path.name: list(pictures_in(path)) for path in sorted(folder.iterdir()) if path.is_dir()}
    return {name: pictures for name, pictures in named.items() if pictures}


def _flat(classes: Mapping[str, Sequence[Path]]) -> tuple[tuple[Path, ...], Strings]:
    paths = tuple(path for pictures in classes.values() for path in pictures)
    return paths, np.repeat(list(classes), [len(pictures) for pictures in classes.values()])


def _mean(found: Mapping[str, float]) -> float:
    return round(float(np.mean(list(found.values()))), 6)
