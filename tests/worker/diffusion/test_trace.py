"""The trace tells a model that knows its answers from one that does not."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from gemd.worker.diffusion.draws import SeededDraws
from gemd.worker.diffusion.sampler import RANDOM, Canvas, Reading, Schedule
from gemd.worker.diffusion.trace import Recorder, summary
from tests.support.diffusion import bench
from tests.support.tiny_diffusion import ANSWERS, TINY, UNDERTRAINED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gemd import wire

LENGTH = 4


def reading(likeliest: list[int], entropy: list[float], margin: float = 0.5) -> Reading:
    """A step; the entropy of the schedule is nothing that is traced."""
    return Reading(
        likeliest=np.array(likeliest),
        drawn=np.array(likeliest),
        entropy=np.full(LENGTH, 9.0, dtype=np.float32),
        raw_entropy=np.array(entropy, dtype=np.float32),
        confidence=np.full(LENGTH, 0.5, dtype=np.float32),
        margin=np.full(LENGTH, margin, dtype=np.float32),
    )


def traced(readings: list[Reading], counted: list[bool]) -> wire.Trace | None:
    """One canvas that had these steps, and what is told of the positions that count."""
    canvas = Canvas.start(
        Schedule(max_steps=8),
        SeededDraws(1, 0, 0),
        vocabulary=50,
        given=np.full(LENGTH, RANDOM),
        fixed=np.zeros(LENGTH, dtype=np.bool_),
    )
    recorder = Recorder()
    for each in readings:
        canvas.take(each)
        recorder.observe(each)
    return summary([recorder.canvas(canvas, np.array(counted))])


def test_only_positions_before_the_end_count() -> None:
    """Behind it stands padding, of which any model is sure."""
    trace = traced(
        [
            reading([1, 2, 3, 4], [2.0, 4.0, 0.0, 0.0]),
            reading([1, 5, 3, 9], [1.0, 3.0, 0.0, 0.0], margin=0.25),
        ],
        [True, True, False, False],
    )
    assert trace is not None
    assert (trace.canvases, trace.steps, trace.max_steps, trace.positions) == (1, 2, 8, 2)
    assert trace.capped == 1
    assert (trace.first_entropy_mean, trace.first_entropy_max) == (3.0, 4.0)
    assert trace.first_entropy_q90 == pytest.approx(3.8)
    assert (trace.last_entropy_mean, trace.last_entropy_max) == (2.0, 3.0)
    # One of two counted positions changed, once.
    assert trace.flips == 0.5
    assert trace.margin_q10 == 0.25


def test_late_is_the_last_quarter_and_the_last_three_steps() -> None:
    """A model that made up its mind early is told from one that still changes it."""
    early = [reading([step % 2] * 4, [4.0] * 4) for step in range(4)]
    late = [reading([7] * 4, [1.0] * 4) for _ in range(4)]
    trace = traced([*early, *late], [True] * 4)
    assert trace is not None
    assert trace.late_entropy_area == pytest.approx(1.0 * 2 / 8)
    assert (trace.flips, trace.late_flips) == (4, 0)


def test_an_answer_without_positions_has_no_trace() -> None:
    """There is nothing to judge."""
    assert traced([reading([1] * 4, [1.0] * 4)], [False] * 4) is None


def scores(path: Path) -> list[wire.Trace]:
    """The traces of a third of the questions."""
    torch.set_num_threads(1)
    found = []
    with bench(path) as made:
        for question in list(ANSWERS)[::3]:
            request = made.ask(question, max_tokens=32)
            made.run()
            trace = made.end(request).trace
            assert trace is not None
            found.append(trace)
    return found


def auroc(good: list[float], bad: list[float]) -> float:
    """The chance that a bad one has the larger figure; ties count half."""
    pairs = [(b > g) + 0.5 * (b == g) for g in good for b in bad]
    return sum(pairs) / len(pairs)


def test_signals_tell_the_undertrained_model_from_the_good_one(
    record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Over the questions that both were trained on; figures are printed."""
    good, bad = scores(TINY), scores(UNDERTRAINED)
    signals: dict[str, Callable[[wire.Trace], float]] = {
        "steps": lambda trace: trace.steps / trace.max_steps,
        "capped": lambda trace: trace.capped,
        "first_entropy_mean": lambda trace: trace.first_entropy_mean,
        "first_entropy_q90": lambda trace: trace.first_entropy_q90,
        "late_entropy_area": lambda trace: trace.late_entropy_area,
        "flips": lambda trace: trace.flips,
        "last_entropy_max": lambda trace: trace.last_entropy_max,
        "margin_q10": lambda trace: -trace.margin_q10,
    }
    found = {
        name: auroc([signal(each) for each in good], [signal(each) for each in bad])
        for name, signal in signals.items()
    }
    for name, value in found.items():
        record_property(f"auroc_{name}", value)
    rounded = {name: round(value, 3) for name, value in found.items()}
    with capsys.disabled():
        sys.stdout.write(f"\nAUROC, undertrained against good: {rounded}\n")
    assert found["first_entropy_mean"] > 0.9
    assert found["steps"] > 0.9
    assert found["late_entropy_area"] > 0.9
    assert found["flips"] > 0.9
