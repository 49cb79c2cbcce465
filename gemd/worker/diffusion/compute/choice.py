"""Which way to compute: each that can run is checked against the reference, then timed.

A decision by measurement, because what is fastest depends on the GPU, the driver, the versions of
torch and Triton, and how many canvases go together. A path whose numbers are wrong here, or that
does not fit into memory, is left out and named with the reason.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from gemd.worker.diffusion.compute.check import error_of
from gemd.worker.diffusion.compute.paths import (
    REFERENCE_PATH,
    available_paths,
    packed_modules,
    use_path,
)
from gemd.worker.diffusion.memory import OutOfMemoryError, recover, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import nn

PLAIN: Final = "plain"
"""What it is called if no weights are packed, and there is nothing to choose."""

REPEATS: Final = 3
"""Timed steps of a path, after one that warms it up. The middle one counts."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one path.

    Attributes:
        name: Of the path.
        milliseconds: A step takes; None if it was not timed.
        error: Relative to the reference; None if it was not compared.
        bound: That the error has to keep.
        problem: Why it cannot be used, as a clause; empty if it can.

    """

    name: str
    milliseconds: float | None = None
    error: float | None = None
    bound: float = 0.0
    problem: str = ""

    @property
    def obstacle(self) -> str:
        """Why it is not chosen whatever the others do; empty if it might be."""
        if self.problem:
            return self.problem
        # Written so that an error that is no number counts as one that is too large.
        if self.error is not None and not self.error <= self.bound:
            return (
                f"its numbers are off by {self.error:.2g} of the reference's, "
                f"and {self.bound:.2g} is allowed"
            )
        return "" if self.milliseconds is not None else "it was not timed"


@dataclass(frozen=True, slots=True)
class Choice:
    """How packed weights are multiplied from here on.

    Attributes:
        name: Of the path, or `PLAIN`.
        milliseconds: A step takes on each path that can be used.
        reason: In one or two sentences.

    """

    name: str
    milliseconds: Mapping[str, float]
    reason: str


def decide(trials: Sequence[Trial]) -> Choice | None:
    """The fastest path that computes correctly; None if there is none.

    Args:
        trials: Of every path; earlier ones are taken where two are as fast.

    """
    left_out = [f"{one.name} is left out: {one.obstacle}" for one in trials if one.obstacle]
    times = {
        one.name: one.milliseconds
        for one in trials
        if not one.obstacle and one.milliseconds is not None
    }
    if not times:
        return None
    best = min(times, key=lambda name: times[name])
    figures = ", ".join(f"{name} {ms:.1f} ms" for name, ms in times.items() if name != best)
    against = f", the fastest step ({figures})" if figures else ""
    said = [f"{best} takes {times[best]:.1f} ms{against}", *left_out]
    return Choice(best, times, ". ".join(part[0].upper() + part[1:] for part in said) + ".")


def choose_path(
    decoder: nn.Module,
    step: Callable[[], object],
    device: torch.device,
    *,
    clock: Callable[[], float] = time.perf_counter,
    repeats: int = REPEATS,
) -> Choice:
    """Try all paths and leave the decoder on the best one.

    Args:
        decoder: With packed modules.
        step: One denoising step of the size that counts; what it returns is ignored. It runs
            1 + `repeats` times on each path, or once if that shows that it is far too slow.
        device: Where the weights are.
        clock: Seconds, from anywhere.
        repeats: Timed steps of a path.

    Raises:
        OutOfMemoryError: No path works, and for the last one memory was short.
        Exception: No path works; what the reference failed with.

    """
    modules = list(packed_modules(decoder))
    if not modules:
        return Choice(PLAIN, {}, "No weights are packed, so there is nothing to choose.")
    trials: list[Trial] = []
    failures: list[Exception] = []
    # The reference is the slowest: tried last, it is stopped after one step.
    for path in reversed(available_paths(device)):
        if path.obstacle:
            trials.append(Trial(path.name, problem=path.obstacle))
            continue
        best = min((one.milliseconds for one in trials if one.milliseconds), default=None)
        try:
            with watched():
                use_path(decoder, path.name)
                trials.append(_try(path.name, decoder, step, device, clock, repeats, best))
        except Exception as error:  # noqa: BLE001 - what compilers and drivers fail with has no common name
            failures.append(error)
            trials.append(Trial(path.name, problem=_said(error)))
        if device.type == "cuda" or failures:
            # What a path that is not taken has cached goes back.
            recover(device)
    choice = decide(trials)
    if choice is None:
        use_path(decoder, REFERENCE_PATH)
        # The reference has no obstacle but a failure, and it is the last one tried.
        raise failures[-1]
    use_path(decoder, choice.name)
    return choice


def _try(
    name: str,
    decoder: nn.Module,
    step: Callable[[], object],
    device: torch.device,
    clock: Callable[[], float],
    repeats: int,
    best: float | None,
) -> Trial:
    error, bound = (0.0, 0.0) if name == REFERENCE_PATH else error_of(decoder)
    trial = Trial(name, error=error, bound=bound)
    if not error <= bound:
        return trial
    # The first step compiles, allocates and fills caches.
    warm = _timed(step, device, clock)
    if best is not None and warm > _HOPELESS * best and name == REFERENCE_PATH:
        return Trial(name, warm, error, bound)
    times = [_timed(step, device, clock) for _ in range(repeats)]
    return Trial(name, statistics.median(times), error, bound)


_HOPELESS: Final = 4.0
"""The reference compiles nothing; so many times slower at its first step, it stays slower."""


def _timed(step: Callable[[], object], device: torch.device, clock: Callable[[], float]) -> float:
    """Milliseconds of a step, until the device is done with it."""
    with _finished(device):
        begun = clock()
        step()
    return 1000 * (clock() - begun)


@contextlib.contextmanager
def _finished(device: torch.device) -> Iterator[None]:
    """Nothing else is under way on the device before, and nothing after."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else None
    if synchronize is not None:
        synchronize(device)
    yield
    if synchronize is not None:
        synchronize(device)


def _said(error: Exception) -> str:
    if isinstance(error, OutOfMemoryError):
        return "there is not enough free memory for it"
    lines = str(error).strip().splitlines()
    return f"it fails with {type(error).__name__}" + (f" ({lines[0]})" if lines else "")
