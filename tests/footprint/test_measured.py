"""Predictions against what the processes of real workers take."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from gemd.footprint import Placement, gguf_shape, predict_gguf, read_gguf_model
from gemd.hardware import RAM
from gemd.residency.corrections import Corrections, file_of
from gemd.residency.states import Located
from tests.support.measured import (
    CONTEXTS,
    PROMPT_TOKENS,
    SEQUENCES,
    peak_after_a_prompt,
    worker_spec,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")


def predicted(path: Path, context_tokens: int) -> int:
    """Of a worker that answers prompts, bytes."""
    return predict_gguf(
        gguf_shape(read_gguf_model(path)),
        context_tokens=context_tokens,
        max_sequences=SEQUENCES,
        placement=Placement(),
    ).host.total


def learned(path: Path, context_tokens: int, *, measured: int) -> int:
    """The prediction for the next load, after one life of a worker that took so much."""
    before = predicted(path, context_tokens)
    located = Located(worker_spec(path, context_tokens), before)
    corrections = Corrections()
    corrections.note(file_of(located), RAM, predicted=before, measured=measured)
    return corrections.corrected(located).estimate_bytes


async def check(path: Path, context_tokens: int, prompt_tokens: int, *, threads: int = 2) -> None:
    """Within 5 % before a load was seen, within 2 % after one."""
    measured = await peak_after_a_prompt(path, context_tokens, prompt_tokens, threads=threads)
    before = predicted(path, context_tokens) / measured
    after = learned(path, context_tokens, measured=measured) / measured
    # For the figures of a run by hand: pytest -s.
    sys.stdout.write(
        f"{path.name[:8]} {context_tokens}: {measured / 2**20:.1f} MiB measured, "
        f"{(before - 1) * 100:+.1f} % before, {(after - 1) * 100:+.1f} % after\n"
    )
    assert before == pytest.approx(1, abs=0.05)
    assert after == pytest.approx(1, abs=0.02)


@pytest.fixture(params=["smollm2", "gemma3"])
def path(request: pytest.FixtureRequest) -> Path:
    """Both real models; the larger one takes its time."""
    found: Path = request.getfixturevalue(request.param)
    return found


async def test_a_worker_takes_what_was_predicted(smollm2: Path) -> None:
    """A small context, and a prompt of a whole step.

    One thread: two on cores that others want too wait for each other, and use them for it.
    """
    await check(smollm2, 1024, 520, threads=1)


@pytest.mark.slow
async def test_a_longer_prompt_takes_what_was_predicted(path: Path) -> None:
    """With a worker as the daemon starts it, of both models."""
    await check(path, 1024, PROMPT_TOKENS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("context_tokens", CONTEXTS)
async def test_a_full_context_takes_what_was_predicted(path: Path, context_tokens: int) -> None:
    """Five sizes of two models, each filled with one prompt."""
    await check(path, context_tokens, context_tokens)
