"""What a prompt tells before a model has seen it. Pure, and bounded for prompts of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.routing.prompt.features import features_of
from gemd.routing.prompt.length import expected_length
from gemd.routing.prompt.prior import shipped_prior
from gemd.routing.prompt.task import Task, task_of
from gemd.routing.prompt.window import estimate_tokens, window

if TYPE_CHECKING:
    from gemd import wire
    from gemd.routing.prompt.prior import Prior

_TURN_TOKENS = 5
"""What a chat template puts around a turn."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a prompt.

    Attributes:
        text: The last user turn, or the raw text; "" of token ids.
        task: What kind of task it is.
        prior: Probability that the drafter's answer will not do, 0 to 1.
        expected_tokens: Expected length of the answer.
        long_output: Why the answer will take more than one canvas; "" if it will not.
        prompt_tokens: Of the whole prompt, estimated from its characters.

    """

    text: str
    task: Task
    prior: float
    expected_tokens: int
    long_output: str
    prompt_tokens: int


def look_at(prompt: wire.Prompt, prior: Prior | None = None) -> Look:
    """Look at a prompt.

    Args:
        prompt: Chat, text or token ids.
        prior: What judges the features; by default the shipped one.

    Raises:
        ConfigError: The shipped prior cannot be read.

    """
    text = _asked(prompt)
    task = task_of(text)
    length = expected_length(text, task)
    judge = prior or shipped_prior()
    return Look(
        text=text,
        task=task,
        # Nothing can be said of token ids: as bad as the average.
        prior=judge.probability(features_of(text)) if window(text).strip() else judge.average,
        expected_tokens=length.tokens,
        long_output=length.why_long,
        prompt_tokens=_prompt_tokens(prompt),
    )


def _asked(prompt: wire.Prompt) -> str:
    if prompt.chat is None:
        return prompt.text or ""
    return next((each.text for each in reversed(prompt.chat) if each.role == "user"), "")


def _prompt_tokens(prompt: wire.Prompt) -> int:
    if prompt.tokens is not None:
        return len(prompt.tokens)
    if prompt.chat is None:
        return estimate_tokens(prompt.text or "")
    words = estimate_tokens("\n".join(message.text for message in prompt.chat))
    return words + _TURN_TOKENS * len(prompt.chat)
