"""The recipes: which members a gate is made of."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, cast, get_args

import numpy as np
import numpy.typing as npt

from calibrate.joins import Factor
from calibrate.members import (
    Covariance,
    FittedMember,
    fit_ledoit_wolf,
    fit_logistic,
    fit_mixture_chain,
    fit_ppca,
    fold_mixture,
)
from calibrate.samples import Floats, Samples
from engines import UsageError

log = logging.getLogger(__name__)

Density = Literal["ledoit-wolf", "ppca"]
MIN_DISCRIMINATIVE = 20  # negatives below which a discriminative member would only learn these pictures by heart
MIXTURES = 18
MAX_COMPONENTS = 512
NEAR_C, FAR_C = 30.0, 10.0  # inverse L2 strengths; what is far is told apart by a smoother border


class Recipe(Protocol):
    """How members are fitted. ``normalise`` says that features are unit rows."""

    @property
    def name(self) -> str: ...

    @property
    def normalise(self) -> bool: ...

    def check(self, samples: Samples) -> None:
        """Raise :class:`UsageError` when the samples cannot give what was asked for."""
        ...

    def planned(self, samples: Samples, fold: npt.NDArray[np.intp]) -> Recipe:
        """The recipe with everything settled that must be alike in all folds of ``samples``, ``fold`` (n,)."""
        ...

    def fit(self, samples: Samples, *, discriminative: bool) -> list[FittedMember]:
        """The members, fitted on ``samples``; ``discriminative`` ones only where that is said."""
        ...

    def factors(self, samples: Samples) -> Sequence[Factor]:
        """What the members that :meth:`fit` gives, numbered in its order, tell apart one after the other; none where
        their deviations are summed."""
        ...

    def options(self, samples: Samples) -> Mapping[str, str | int]:
        """What the manifest says about the fit."""
        ...


@dataclass(frozen=True, slots=True)
class SeedRecipe:
    """StandardScaler, whitened PCA, Gaussian mixture: the classic notebook, kept as the reference."""

    components: int | None = None
    covariance: Covariance = "spherical"
    seed: int = 0
    name: str = "seed"
    normalise: bool = False

    def check(self, samples: Samples) -> None:
        """An explicit number of components must not exceed what the positives can give."""
        _check_components(self.components, samples)

    def planned(self, samples: Samples, fold: npt.NDArray[np.intp]) -> SeedRecipe:  # noqa: ARG002 - counts all alike
        """With the components of all samples: likelihoods of other numbers of dimensions cannot be calibrated."""
        return replace(self, components=self.components or self._default(samples.positives))

    def fit(self, samples: Samples, *, discriminative: bool) -> list[FittedMember]:  # noqa: ARG002 - has no such member
        x = samples.features[samples.positive]
        components = min(self.components or self._default(len(x)), len(x), x.shape[1])
        return [fold_mixture(fit_mixture_chain(x, components, self._mixtures(len(x)), self.covariance, self.seed))]

    def factors(self, samples: Samples) -> Sequence[Factor]:  # noqa: ARG002 - has one member
        """None: one member needs no join."""
        return ()

    def options(self, samples: Samples) -> dict[str, str | int]:
        n = samples.positives
        components = min(self.components or self._default(n), n, samples.features.shape[1])
        return {"components": components, "mixtures": self._mixtures(n), "covariance": self.covariance}

    @staticmethod
    def _default(n: int) -> int:
        return max(1, min(MAX_COMPONENTS, n // 2))

    @staticmethod
    def _mixtures(n: int) -> int:
        return max(1, min(MIXTURES, n // 2))


@dataclass(frozen=True, slots=True)
class RobustRecipe:
    """Unit rows; a Gaussian that counts what lies outside its subspace; with negatives logistic members beside it.

    One source of negatives: positives against it, and the density of the positives as a veto.

    Several: the nearest source (the one whose pictures the positives' density likes best) is a neighbourhood, and two
    probabilities are multiplied. That a picture lies in it: positives and neighbours together are told from all that
    is farther (``far``), and their common density speaks against what is neither. That it is positive, given that it
    does: positives are told from neighbours alone (``discriminative``). Kinds never shown lie among the neighbours far
    more surely than among the positives, so both hold for them where a border drawn from positives alone does not.
    """

    density: Density = "ledoit-wolf"
    components: int | None = None
    name: str = "robust"
    normalise: bool = True
    nearest: str | None = None  # the source that is the neighbourhood; None: all negatives are treated alike
    summed: bool = False  # join deviations by their sum where probabilities could be multiplied; for ``ablate``

    def check(self, samples: Samples) -> None:
        """Components belong to ppca, and must not exceed what the positives can give."""
        if self.components is not None and self.density != "ppca":
            raise UsageError("--components belongs to --covariance ppca (or --recipe seed); ledoit-wolf keeps them all")
        _check_components(self.components, samples)

    def fit(self, samples: Samples, *, discriminative: bool) -> list[FittedMember]:
        if not discriminative:
            return [self._density(samples.features[samples.positive], 0.5)]
        if self.nearest is None:
            density = self._density(samples.features[samples.positive], 0.1)
            return [density, fit_logistic(samples.features, samples.positive)]
        near = samples.positive | (samples.source == self.nearest)
        neighbours = samples.features[near]  # the largest copy of a fit: made once
        finer = fit_logistic(neighbours, samples.positive[near], strength=NEAR_C, forgives=1.0)
        far = fit_logistic(samples.features, near, name="far", strength=FAR_C)
        return [self._density(neighbours, 0.5), finer, far]

    def factors(self, samples: Samples) -> Sequence[Factor]:
        """That a picture is in the neighbourhood, and that it is positive where it is."""
        if self.nearest is None or self.summed:
            return ()
        near = samples.positive | (samples.source == self.nearest)
        density, finer, far = range(3)
        everything = np.ones(len(near), np.bool_)
        return (Factor((density, far), everything, near), Factor((finer,), near, samples.positive))

    def planned(self, samples: Samples, fold: npt.NDArray[np.intp]) -> RobustRecipe:
        """With the nearest source of those that leave every fold enough of themselves and of what is farther."""
        negative = ~samples.positive
        sources = [str(source) for source in np.unique(samples.source[negative])]
        if len(sources) < 2:
            return self
        density = fit_ledoit_wolf(samples.features[samples.positive])
        likes = {
            s: float(np.median(density.score(samples.features[negative & (samples.source == s)]))) for s in sources
        }
        for source in sorted(sources, key=likes.__getitem__, reverse=True):
            near = negative & (samples.source == source)
            left = [int((rows & (fold != f)).sum()) for rows in (near, negative & ~near) for f in np.unique(fold)]
            if min(left) >= MIN_DISCRIMINATIVE:
                return replace(self, nearest=source)
        return self

    def _density(self, x: Floats, forgives: float) -> FittedMember:
        if self.density == "ppca":
            return fit_ppca(x, self._ppca_components(len(x), x.shape[1]), forgives=forgives)
        return fit_ledoit_wolf(x, forgives=forgives)

    def options(self, samples: Samples) -> dict[str, str | int]:
        said: dict[str, str | int] = {"density": self.density}
        if self.density == "ppca":
            said["components"] = self._ppca_components(samples.positives, samples.features.shape[1])
        return said if self.nearest is None else said | {"neighbourhood": self.nearest}

    def _ppca_components(self, n: int, size: int) -> int:
        # One direction fewer than the centred pictures span, so that a residual is left to measure.
        return max(1, min(self.components or n // 5, n - 2, size - 1))


def make_recipe(name: str, components: int | None, covariance: str | None, seed: int) -> Recipe:
    """The recipe ``name`` with its options; raises :class:`UsageError` for what does not exist."""
    if components is not None and components < 1:
        raise UsageError(f"--components must be at least 1, not {components}")
    if name == "seed":
        chosen = covariance or "spherical"
        _check_choice("--covariance", chosen, get_args(Covariance), name)
        return SeedRecipe(components, cast(Covariance, chosen), seed)
    if name == "robust":
        chosen = covariance or "ledoit-wolf"
        _check_choice("--covariance", chosen, get_args(Density), name)
        return RobustRecipe(cast(Density, chosen), components)
    raise UsageError(f"--recipe must be robust or seed, not {name!r}")


def wants_discriminative(recipe: Recipe, samples: Samples) -> bool:
    """Whether a discriminative member is fitted; says why not in the log."""
    if recipe.name == "seed" or not samples.negatives:
        return False
    if samples.negatives < MIN_DISCRIMINATIVE:
        log.warning(
            "only %d negatives: they calibrate the probability; a discriminative member wants %d",
            samples.negatives,
            MIN_DISCRIMINATIVE,
        )
        return False
    return True


def _check_choice(option: str, value: str, choices: tuple[str, ...], recipe: str) -> None:
    if value not in choices:
        raise UsageError(f"{option} must be one of {', '.join(choices)} for recipe {recipe}, not {value!r}")


def _check_components(components: int | None, samples: Samples) -> None:
    limit = min(samples.positives, samples.features.shape[1])
    if components is not None and components > limit:
        raise UsageError(
            f"--components {components} cannot be had from {samples.positives} readable positives with "
            f"{samples.features.shape[1]} features: at most {limit}; leave it out for a sensible number"
        )
