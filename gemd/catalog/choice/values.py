"""What a choice of weights is made from and what comes out. Values only; bytes, seconds."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.catalog.profile import Profile, Role
    from gemd.catalog.variant import Variant
    from gemd.footprint.memory import Method, Parts, Placement, Prediction
    from gemd.hardware.inventory import Gpu

DEFAULT_CONTEXT: Final = 16_384
"""Tokens that the strong tier has to have room for."""
DEFAULT_FAST_CONTEXT: Final = 8192
"""The same for the fast tier, whose requests are short ones."""
DEFAULT_SEQUENCES: Final = 8
"""Requests that one model decodes together."""
DEFAULT_MIN_SPEED: Final = 15.0
"""Tokens per second below which quality is not worth the wait: faster than one reads."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason of a plan.

    Attributes:
        code: Stable, in UPPER_SNAKE_CASE.
        message: One sentence with its numbers.
        metadata: Every number of it.

    """

    code: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reads:
    """Bytes that one step of generating reads from each memory.

    For an autoregressive model a step is a token; for a block-diffusion one it is one pass over
    the canvas.
    """

    gpu: int
    host: int


class Sized(Protocol):
    """What the choice asks about one variant."""

    @property
    def layers(self) -> int:
        """Of the model, without the output."""

    @property
    def experts(self) -> bool:
        """Whether its layers have experts that can stay in main memory."""

    @property
    def canvas(self) -> int:
        """Tokens that one canvas holds; 0 for an autoregressive model."""

    @property
    def weights_bytes(self) -> int:
        """All tensors, as in the file."""

    def predict(
        self, placement: Placement, *, context_tokens: int, sequences: int, backend: str
    ) -> Prediction:
        """The memory it takes to decode so many requests together on that backend."""

    def reads(self, placement: Placement) -> Reads:
        """What one step reads."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant that might be chosen.

    Attributes:
        profile: The model.
        variant: Which form of it.
        sized: Its memory.
        on_disk: Whether it need not be fetched.
        factors: What was measured of it here against what was predicted, by device.

    """

    profile: Profile
    variant: Variant
    sized: Sized
    on_disk: bool = False
    factors: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Model and variant."""
        return self.profile.id, self.variant.id


@dataclass(frozen=True, slots=True)
class Engines:
    """What can run here.

    Attributes:
        considered: Engines that a plan may lean on. On this machine an engine that gemd does not
            bring along is one of them only if it is installed.
        shipped: Those that this version of gemd has.
        backends: By engine, the backends that are installed; None where that does not matter, for
            a machine that is not this one.

    """

    considered: frozenset[str]
    shipped: frozenset[str]
    backends: Mapping[str, frozenset[str]] | None = None

    def lacks(self, engine: str, backend: str) -> bool:
        """Whether the engine would have to be installed first."""
        return self.backends is not None and backend not in self.backends.get(engine, frozenset())


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user asks of a plan.

    Attributes:
        name: What was asked for; empty for whatever is best.
        models: Ids that the name may mean: one, or those of a named choice.
        why: Why the name is a choice; empty if it is none.
        variant: Only this one of them.
        context_tokens: Room for so many tokens in the strong tier.
        fast_context_tokens: The same for the fast tier.
        min_speed: Tokens per second that the strong tier should reach.
        sequences: Requests that a model should decode together; it may be fewer.
        cpu_consent: Whether a GPU may be left unused.
        loaded_tokens: Of context that a worker gets on this machine; 0 if that is no matter.

    """

    name: str = ""
    models: frozenset[str] = frozenset()
    why: str = ""
    variant: str = ""
    context_tokens: int = DEFAULT_CONTEXT
    fast_context_tokens: int = DEFAULT_FAST_CONTEXT
    min_speed: float = DEFAULT_MIN_SPEED
    sequences: int = DEFAULT_SEQUENCES
    cpu_consent: bool = False
    loaded_tokens: int = 0

    def asks_for(self, candidate: Candidate) -> bool:
        """Whether a variant is one that was asked for; all are if none was named."""
        return (not self.models or candidate.profile.id in self.models) and (
            self.variant in {"", candidate.variant.id}
        )


class Where(enum.Enum):
    """Which memory holds a model's weights. Names as in the API."""

    GPU = "GPU"
    SPLIT = "SPLIT"
    CPU = "CPU"


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a placed model would be.

    Attributes:
        decode: Tokens per second of one stream; None if a bandwidth is unknown.
        canvas_s: Of a block-diffusion model, seconds for one canvas.

    """

    decode: float | None = None
    canvas_s: float | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A variant in a place where it fits.

    Attributes:
        candidate: Which.
        gpu: On which GPU; None for none.
        backend: What it computes on.
        placement: What of it lies where.
        context_tokens: With room for so many.
        sequences: Requests that it decodes together.
        parts: What it holds of each memory pool once it is ready, corrected by what was measured.
        demand: The same at the peak of the load.
        method: Where the figures come from.
        speed: Predicted.

    """

    candidate: Candidate
    gpu: Gpu | None
    backend: str
    placement: Placement
    context_tokens: int
    sequences: int
    parts: Mapping[str, Parts]
    demand: Mapping[str, int]
    method: Method
    speed: Speed

    @property
    def where(self) -> Where:
        """Which memory holds the weights."""
        if self.placement.gpu_layers == 0:
            return Where.CPU
        sized = self.candidate.sized
        whole = self.placement.gpu_layers > sized.layers and not self.placement.host_experts
        return Where.GPU if whole else Where.SPLIT


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A model of a plan.

    Attributes:
        placed: What of it lies where.
        role: The part it plays.
        warm: Whether it stays in memory; if not it is swapped in when it is needed.
        reasons: Why this one.

    """

    placed: Placed
    role: Role
    warm: bool
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about one variant.

    Attributes:
        candidate: Which.
        chosen: Whether it is part of the plan.
        fits: Whether it would fit by itself.
        needed_bytes: On the device that decides.
        available_bytes: What it could have there.
        speed: In the place it would have.
        reason: Why it was taken or left.

    """

    candidate: Candidate
    chosen: bool
    fits: bool
    needed_bytes: int
    available_bytes: int
    speed: Speed
    reason: Reason


@dataclass(frozen=True, slots=True)
class PlannedDevice:
    """A device and what the warm models of a plan take of it; all add up to the capacity.

    Attributes:
        device: Its id.
        capacity_bytes: Its memory.
        budget_bytes: What models may take of it.
        parts: Of the warm models.
        others_bytes: What other programs hold.
        margin_bytes: What stays free.

    """

    device: str
    capacity_bytes: int
    budget_bytes: int
    parts: Parts
    others_bytes: int
    margin_bytes: int

    @property
    def free_bytes(self) -> int:
        """What is left."""
        taken = self.parts.total + self.others_bytes + self.margin_bytes
        return self.capacity_bytes - taken


@dataclass(frozen=True, slots=True)
class Plan:
    """What gemd would run on a machine, and why.

    Attributes:
        models: A pair, with a verifier maybe; a single one; none if nothing fits.
        devices: Memory, GPUs first.
        verdicts: Of every variant that was looked at, best first.
        reasons: What holds for the plan as a whole.
        needs_cpu_consent: It leaves a GPU unused.
        swap_s: How long a change between the tiers takes; None if they are warm together.

    """

    models: tuple[PlannedModel, ...]
    devices: tuple[PlannedDevice, ...]
    verdicts: tuple[Verdict, ...]
    reasons: tuple[Reason, ...]
    needs_cpu_consent: bool = False
    swap_s: float | None = None

    def of(self, role: Role) -> PlannedModel | None:
        """The model that plays this part."""
        return next((each for each in self.models if each.role == role), None)
