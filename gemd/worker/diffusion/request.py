"""One request: its prompt, how its canvases are denoised, and what of it is still open."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from gemd.errors import UnsupportedInputError
from gemd.worker.diffusion.head import Bias, Filters

if TYPE_CHECKING:
    from gemd import wire
    from gemd.worker.diffusion.checkpoint import SamplerDefaults
    from gemd.worker.diffusion.infill import Layout
    from gemd.worker.diffusion.sampler import Schedule

BANNED: Final = -1e4
"""A bias that no logit outweighs, and that is a number: an infinite one leaves no entropy."""
LEAST_TEMPERATURE: Final = 1e-4
"""Below it a canvas is what it is at it, and at last nothing that float32 can hold."""


@dataclass(slots=True, eq=False)
class Task:
    """A request whose prompt is ready.

    Attributes:
        request: As it came.
        prompt: Its tokens; of a text with gaps, with what precedes the first gap.
        schedule: How canvases are denoised.
        filters: Of the tokens drawn.
        bias: Of logits.
        ends: Tokens that end the answer.
        limit: The most tokens of an answer.
        limit_reason: What it is called if they are reached.
        seed: Of the draws.
        layout: Of a text with gaps.
        arrived: Clock reading, seconds.
        deadline: Likewise; None for none.
        started: Likewise, when the first candidate got its place.
        unfinished: Candidates that have not ended.

    """

    request: wire.Generate
    prompt: tuple[int, ...]
    schedule: Schedule
    filters: Filters
    bias: Bias | None
    ends: frozenset[int]
    limit: int
    limit_reason: wire.FinishReason
    seed: int
    arrived: float
    deadline: float | None
    layout: Layout | None = None
    started: float | None = None
    unfinished: int = field(init=False)

    def __post_init__(self) -> None:
        """All candidates are open."""
        self.unfinished = self.request.candidates


def schedule_of(defaults: SamplerDefaults, temperature: float | None) -> Schedule:
    """The schedule of a request.

    The released schedule goes from 0.8 to 0.4. A temperature takes the place of the first, and the
    last keeps its ratio to it; 0 takes the likeliest token wherever one is accepted, at the
    temperatures of the release: they also say how sure the model is, and how sure is sure enough.
    """
    released = defaults.schedule
    if temperature is None:
        return released
    if temperature == 0:
        return replace(released, greedy=True)
    first = max(temperature, LEAST_TEMPERATURE)
    return replace(released, t_min=first * (released.t_min / released.t_max), t_max=first)


def check_sampling(sampling: wire.Sampling) -> None:
    """Refuse what has no meaning where all tokens of a canvas are drawn at once.

    Raises:
        UnsupportedInputError: A penalty for repetition, or log-probabilities.

    """
    for name, neutral in (
        ("repeat_penalty", 1.0),
        ("frequency_penalty", 0.0),
        ("presence_penalty", 0.0),
    ):
        value = getattr(sampling, name)
        if value != neutral and sampling.penalty_last_n != 0:
            raise _unsupported(
                f"sampling.{name}",
                f"it looks at the tokens before a token, and a canvas has none before the others; "
                f"{value:g} was asked for, {neutral:g} is neutral",
            )
    if sampling.logprobs is not None:
        raise _unsupported(
            "sampling.logprobs",
            "a canvas is denoised in steps, and no step's probabilities are those of its tokens",
        )


def check_order(request: wire.Generate) -> None:
    """Refuse what has no meaning where an answer is not written from left to right.

    Raises:
        UnsupportedInputError: A beginning of the answer, or a draft of it.

    """
    for name, used in (
        ("answer_prefix", bool(request.answer_prefix)),
        ("draft", bool(request.draft)),
    ):
        if used:
            raise _unsupported(
                name, "it writes the tokens of a canvas in any order, and not one after another"
            )


def filters_of(sampling: wire.Sampling) -> Filters:
    """Which tokens may be drawn."""
    return Filters(top_k=sampling.top_k, top_p=sampling.top_p, min_p=sampling.min_p)


def bias_of(sampling: wire.Sampling, ends: frozenset[int]) -> Bias | None:
    """What is added to logits; a request that goes on past the end never draws it."""
    bias = {token: max(BANNED, min(-BANNED, value)) for token, value in sampling.logit_bias.items()}
    if sampling.ignore_eos:
        bias |= dict.fromkeys(ends, BANNED)
    return Bias.of(bias)


def _unsupported(field_name: str, why: str) -> UnsupportedInputError:
    return UnsupportedInputError(
        f"{field_name} is not supported by a block-diffusion model",
        why=why,
        metadata={"field": field_name},
    )
