"""The recipes: which members a gate is made of."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, cast, get_args

from calibrate.members import (
    Covariance,
    FittedMember,
    fit_ledoit_wolf,
    fit_logistic,
    fit_mixture_chain,
    fit_ppca,
    fold_mixture,
)
from calibrate.samples import Samples
from engines import UsageError

log = logging.getLogger(__name__)

Density = Literal["ledoit-wolf", "ppca"]
MIN_DISCRIMINATIVE = 20  # negatives below which a discriminative member would only learn these pictures by heart
MIXTURES = 18
MAX_COMPONENTS = 512


class Recipe(Protocol):
    """How members are fitted. ``normalise`` says that features are unit rows."""

    @property
    def name(self) -> str: ...

    @property
    def normalise(self) -> bool: ...

    def check(self, samples: Samples) -> None:
        """Raise :class:`UsageError` when the samples cannot give what was asked for."""
        ...

    def fit(self, samples: Samples, *, discriminative: bool) -> list[FittedMember]:
        """The members, fitted on ``samples``; ``discriminative`` ones only where that is said."""
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

    def fit(self, samples: Samples, *, discriminative: bool) -> list[FittedMember]:  # noqa: ARG002 - has no such member
        x = samples.features[samples.positive]
        components = min(self.components or self._default(len(x)), len(x), x.shape[1])
        return [fold_mixture(fit_mixture_chain(x, components, self._mixtures(len(x)), self.covariance, self.seed))]

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
    """Unit rows; a Gaussian that counts what lies outside its subspace; with negatives a logistic member beside it.

    The density is a veto: it is content with a picture that lies among the inner nine tenths of held-out positives,
    and leaves the finer decision to the discriminative member. Measured on held-out kinds and families this keeps
    the discriminative member's accuracy on what it knows and the density's on what nobody showed it.
    """

    density: Density = "ledoit-wolf"
    components: int | None = None
    name: str = "robust"
    normalise: bool = True

    def check(self, samples: Samples) -> None:
        """Components belong to ppca, and must not exceed what the positives can give."""
        if self.components is not None and self.density != "ppca":
            raise UsageError("--components belongs to --covariance ppca (or --recipe seed); ledoit-wolf keeps them all")
        _check_components(self.components, samples)

    def fit(self, samples: Samples, *, discriminative: bool) -> list[FittedMember]:
        x = samples.features[samples.positive]
        forgives = 0.1 if discriminative else 0.5
        if self.density == "ppca":
            density = fit_ppca(x, self._ppca_components(len(x), x.shape[1]), forgives=forgives)
        else:
            density = fit_ledoit_wolf(x, forgives=forgives)
        return [density, fit_logistic(samples.features, samples.positive)] if discriminative else [density]

    def options(self, samples: Samples) -> dict[str, str | int]:
        if self.density == "ledoit-wolf":
            return {"density": self.density}
        components = self._ppca_components(samples.positives, samples.features.shape[1])
        return {"density": self.density, "components": components}

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
