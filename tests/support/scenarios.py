"""Scenario files of residency: what is in them. `tests.support.stage` plays them."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gemd.residency.decisions import DecisionKind  # noqa: TC001 - pydantic needs it at run time.

if TYPE_CHECKING:
    from pathlib import Path

Violation = Literal[
    "busy_evicted", "cut_off", "over_capacity", "overbooked", "pinned_evicted", "two_workers"
]
"""What may be forbidden: a model goes by `Evict` while it answers; an answer ends with its worker;
more is wanted of a device than exists; a load begins beyond the budget or beyond what is free; a
pinned model goes by `Evict`; a model has two processes."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Device(_Strict):
    """A memory; GiB."""

    capacity: float
    others: float = 0.0
    margin: float = 0.0
    budget: float | None = None
    hidden: bool = False
    late_s: float = 0.0


class Model(_Strict):
    """A model; GiB by device. What it takes is its estimate times `error`."""

    takes: dict[str, float]
    load_s: float = 2.0
    stop_s: float = 0.25
    error: float = 1.0
    sequences: int = 2


class _Step(_Strict):
    at: float


class Request(_Step):
    """A client asks, is answered for so long, and was to get its turn by then."""

    do: Literal["request"]
    model: str
    name: str = ""
    runs_s: float = 1.0
    deadline_s: float | None = None
    background: bool = False
    granted_by_s: float | None = None
    every_s: float = 0.0
    times: int = 1


class Cancel(_Step):
    """The clients of that name go away."""

    do: Literal["cancel"]
    name: str


class Others(_Step):
    """Other programs hold so many GiB from now on."""

    do: Literal["others"]
    device: str
    hold: float


class Sensor(_Step):
    """The sensor fails for this reason; or, where it is empty, sees again, late by `lag_s`."""

    do: Literal["sensor"]
    blind: str = ""
    lag_s: float = 0.0


class Lost(_Step):
    """These devices do not answer."""

    do: Literal["lost"]
    devices: list[str]


class Touch(_Step):
    """Something is done to a model."""

    do: Literal["pin", "unpin", "unload", "crash"]
    model: str


class Grow(_Step):
    """A worker takes so many GiB more of a device."""

    do: Literal["grow"]
    model: str
    device: str
    by: float


Step = Annotated[
    Request | Cancel | Others | Sensor | Lost | Touch | Grow, Field(discriminator="do")
]


class Expected(_Strict):
    """What has to come of it.

    Attributes:
        decisions: Kind, model and code of the first reason, in order; None where only their
            effect counts.
        loads_at_most: Of all models together.
        answered: Requests that got a worker and were done with it.
        refused: Of the others, by the reason of the error.
        expired: Those whose deadline passed first.
        cancelled: Those whose client went away.
        warm: Models that are READY at the end.
        never: What may not happen on the way.

    """

    decisions: list[tuple[DecisionKind, str, str]] | None = None
    loads_at_most: int | None = None
    answered: int
    refused: dict[str, int] = {}
    expired: int = 0
    cancelled: int = 0
    warm: list[str] | None = None
    never: list[Violation]


class Scenario(_Strict):
    """One file."""

    lasts_s: float
    keep_warm_s: float = 3600.0
    queue_limit: int = 16
    devices: dict[str, Device]
    models: dict[str, Model]
    steps: list[Step]
    expect: Expected


def read(path: Path) -> Scenario:
    """A scenario of a file.

    Raises:
        pydantic.ValidationError: It is none.

    """
    return Scenario.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
