"""How requests are shared between the two tiers, as the daemon's status tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.client.decisions import Reason
from gemd.client.protos import enum_word, model_id, optional, seconds

if TYPE_CHECKING:
    from gemd.v1 import status_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpeed:
    """What a model was measured to do on this machine; None where that is not known."""

    model: str
    prefill_tokens_per_second: float | None
    decode_tokens_per_second: float | None
    canvas: float | None
    """Seconds for a canvas of a block-diffusion model, all its denoising steps together."""
    load: float | None
    """Seconds for a load."""
    samples: int
    """Requests that it was measured on; 0: predicted."""

    @classmethod
    def of(cls, proto: status_pb2.Routing.Speed) -> ModelSpeed:
        """Convert the proto message."""
        return cls(
            model=model_id(proto.model),
            prefill_tokens_per_second=optional(proto, "prefill_tokens_per_second"),
            decode_tokens_per_second=optional(proto, "decode_tokens_per_second"),
            canvas=seconds(proto, "canvas"),
            load=seconds(proto, "load"),
            samples=proto.samples,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """The two tiers, and how far the daemon has learned when a draft is good enough."""

    raw: status_pb2.Routing = field(repr=False, compare=False)
    fast: str
    """The model that drafts; empty if none is on disk, as `strong` may be."""
    strong: str
    """The model that answers what is hard."""
    checker: str
    """The model that scores drafts; empty if none does."""
    drafts_off: Reason | None
    """Why nothing is drafted; None if drafts are made."""
    judged_drafts: int
    refined_drafts: int
    """Of the judged ones: those that were continued or replaced."""
    basis: str
    """How the limit of the risk is set: ``REFERENCE`` by fixed scales, ``BUDGET`` by the share of
    drafts that may be refined, ``CALIBRATED`` by what became of earlier drafts."""
    labels: int
    """Drafts of which it is known whether they were good enough."""
    speeds: tuple[ModelSpeed, ...]

    @property
    def refine_rate(self) -> float | None:
        """Share of the judged drafts that were continued or replaced; None if there is none."""
        return self.refined_drafts / self.judged_drafts if self.judged_drafts else None

    @classmethod
    def of(cls, proto: status_pb2.Routing) -> Routing:
        """Convert the proto message."""
        return cls(
            raw=proto,
            fast=model_id(proto.fast),
            strong=model_id(proto.strong),
            checker=model_id(proto.checker),
            drafts_off=Reason.of(proto.drafts_off) if proto.HasField("drafts_off") else None,
            judged_drafts=proto.judged_drafts,
            refined_drafts=proto.refined_drafts,
            basis=proto.basis,
            labels=proto.labels,
            speeds=tuple(ModelSpeed.of(one) for one in proto.speeds),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteShare:
    """How the requests fared that took one way, since the daemon started."""

    strategy: str
    """``DIRECT``, ``DRAFT``, ``DRAFT_AND_CHECK`` or ``SPECULATE``."""
    tier: str
    """``FAST`` or ``STRONG``: the one that answered."""
    resolution: str
    """``KEPT``, ``CONTINUED`` or ``REPLACED``; ``UNSPECIFIED`` if there was no draft."""
    requests: int
    median: float | None
    """Seconds to the end of the answer; None if unknown, as `p95` may be."""
    p95: float | None

    @classmethod
    def of(cls, proto: status_pb2.Statistics.RouteShare) -> RouteShare:
        """Convert the proto message."""
        return cls(
            strategy=enum_word(proto, "strategy"),
            tier=enum_word(proto, "tier"),
            resolution=enum_word(proto, "resolution"),
            requests=proto.requests,
            median=seconds(proto, "median_duration"),
            p95=seconds(proto, "p95_duration"),
        )
