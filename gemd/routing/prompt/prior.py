"""How likely it is, from its prompt alone, that the drafter's answer will not do.

A logistic regression over the figures of a prompt. Its coefficients are shipped as
``profiles/routing/prior.json``, which says what they were fitted on and how good they were there;
`tests.bench.routing.fit_prior` writes it.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from gemd.errors import ConfigError
from gemd.paths import data_dir
from gemd.routing.prompt.features import FEATURES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

FILE: Final = "prior.json"
_MOST_BYTES: Final = 1 << 20
_FARTHEST: Final = 4.0
"""Standard deviations. Beyond them no straight line is known to hold."""


class Provenance(BaseModel):
    """What the coefficients were fitted on, and how well they did.

    Attributes:
        sets: Rows of each outcome set.
        label: What counts as a draft that will not do.
        penalty: Of the squared coefficients, in rows.
        date: Of the fit, YYYY-MM-DD.
        auroc: Of five-fold cross-validation over these rows, set by set.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sets: dict[str, int]
    label: str
    penalty: float = Field(gt=0)
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    auroc: dict[str, float]


class _Scale(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    mean: FiniteFloat
    scale: Annotated[FiniteFloat, Field(gt=0)]
    coefficient: FiniteFloat


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    intercept: FiniteFloat
    features: tuple[_Scale, ...]
    fitted: Provenance

    @model_validator(mode="after")
    def _known(self) -> Self:
        names = tuple(each.name for each in self.features)
        if names != FEATURES:
            differing = sorted(set(names) ^ set(FEATURES)) or ["their order"]
            raise ValueError(f"the features are not those of this version: {', '.join(differing)}")
        return self


@dataclass(frozen=True, slots=True)
class Prior:
    """Logistic regression over standardised features.

    Attributes:
        intercept: Log-odds of a prompt whose features are all at their means.
        means: By feature.
        scales: Standard deviations by feature.
        coefficients: Log-odds for each standard deviation, by feature.
        fitted: On what.

    """

    intercept: float
    means: tuple[float, ...]
    scales: tuple[float, ...]
    coefficients: tuple[float, ...]
    fitted: Provenance

    @classmethod
    def load(cls, path: Path) -> Prior:
        """The prior in a file.

        Raises:
            ConfigError: It cannot be read, or is not one for the features of this version.

        """
        try:
            with path.open("rb") as file:
                text = file.read(_MOST_BYTES + 1)
            if len(text) > _MOST_BYTES:
                raise ConfigError(
                    f"{path} is no prior", why="it has more than a MiB", metadata={"path": path}
                )
            read = _File.model_validate(json.loads(text))
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be read", why=str(error.strerror), metadata={"path": path}
            ) from None
        except (ValidationError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"{path} is no prior", why=_reason(error), metadata={"path": path}
            ) from None
        return cls(
            intercept=read.intercept,
            means=tuple(each.mean for each in read.features),
            scales=tuple(each.scale for each in read.features),
            coefficients=tuple(each.coefficient for each in read.features),
            fitted=read.fitted,
        )

    @property
    def average(self) -> float:
        """Of a prompt whose features are all at their means."""
        return _sigmoid(self.intercept)

    def probability(self, features: Sequence[float]) -> float:
        """That a draft will not do, between 0 and 1.

        Args:
            features: As `features_of` gives them.

        """
        score = self.intercept
        for value, mean, scale, coefficient in zip(
            features, self.means, self.scales, self.coefficients, strict=True
        ):
            away = (value - mean) / scale
            score += coefficient * max(-_FARTHEST, min(_FARTHEST, away))
        return _sigmoid(score)


def _sigmoid(score: float) -> float:
    return 0.5 * (1 + math.tanh(score / 2))


@functools.cache
def shipped_prior() -> Prior:
    """The prior that travels with gemd; read once in a process.

    Raises:
        ConfigError: The installation is damaged.

    """
    return Prior.load(data_dir("profiles") / "routing" / FILE)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}" if place else first["msg"]
    return str(error)
