"""The fastest path that computes correctly is taken, and the others are named."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gemd.worker.diffusion.compute import choice as choosing
from gemd.worker.diffusion.compute import choose_path
from gemd.worker.diffusion.compute.choice import PLAIN, Trial, decide
from gemd.worker.diffusion.compute.paths import packed_modules
from gemd.worker.diffusion.compute.reference import Reference
from gemd.worker.diffusion.compute.unpacked import Unpacked
from gemd.worker.diffusion.memory import OutOfMemoryError
from tests.support.packed_layers import experts_of, linear_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have the interpreter on."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


class World:
    """A decoder whose steps take the time that each path is said to take.

    Args:
        milliseconds: Of a step on each path; several are those of successive steps.
        work: What a step does besides, given the world.

    """

    def __init__(
        self,
        milliseconds: Mapping[str, float | Sequence[float]],
        work: Callable[[World], None] = lambda world: None,
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self.decoder = torch.nn.ModuleList([experts_of(generator), linear_of(generator)])
        self.now = 0.0
        self.steps: list[str] = []
        self._work = work
        self._milliseconds = {
            name: iter([times] * 99 if isinstance(times, int | float) else times)
            for name, times in milliseconds.items()
        }

    @property
    def path(self) -> str:
        """That all packed modules are on."""
        (name,) = {module.arithmetic.name for module in packed_modules(self.decoder)}
        return name

    def step(self) -> None:
        """Time passes."""
        self._work(self)
        self.steps.append(self.path)
        self.now += next(self._milliseconds[self.path]) / 1000

    def choose(self) -> choosing.Choice:
        """With this world's clock."""
        return choose_path(self.decoder, self.step, CPU, clock=lambda: self.now)


def spoil(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Let the second path compute wrong numbers."""
    right = Unpacked.experts
    monkeypatch.setattr(
        Unpacked, "experts", lambda self, *arguments: factor * right(self, *arguments)
    )


def broken(error: Exception) -> Any:
    """A step or path that fails."""

    def fail(*arguments: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "times, expected",
    [
        ({"reference": 50, "dequantize": 20}, "dequantize"),
        ({"reference": 20, "dequantize": 50}, "reference"),
    ],
)
def test_the_fastest_path_is_taken_and_left_in_use(times: dict[str, float], expected: str) -> None:
    """With the times of both, and the reason against the third."""
    world = World(times)

    choice = world.choose()

    assert (choice.name, world.path) == (expected, expected)
    assert choice.milliseconds == pytest.approx(times)
    assert f"{expected.capitalize()} takes 20.0 ms" in choice.reason
    assert "Triton is left out" in choice.reason


def test_the_first_step_warms_up_and_does_not_count() -> None:
    """A path that compiles at first is not slow for it, and a hiccup is no verdict."""
    world = World({"reference": 30, "dequantize": [5000, 20, 900, 21]})

    choice = world.choose()

    assert choice.name == "dequantize"
    assert choice.milliseconds["dequantize"] == pytest.approx(21)


def test_a_hopeless_reference_is_stepped_once() -> None:
    """Loading should not take long because the slowest path is slow."""
    world = World({"reference": 5000, "dequantize": 20})

    choice = world.choose()

    assert world.steps.count("reference") == 1
    assert choice.milliseconds["reference"] == pytest.approx(5000)


@pytest.mark.parametrize("factor", [1.2, math.nan])
def test_a_path_with_wrong_numbers_is_left_out_with_its_error(
    factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast it is; a result that is no number is wrong too."""
    spoil(monkeypatch, factor)
    world = World({"reference": 500, "dequantize": 1})

    choice = world.choose()

    assert choice.name == world.path == "reference"
    assert "dequantize" not in world.steps
    assert f"off by {'0.2' if factor > 1 else 'nan'} of the reference's" in choice.reason


def test_numbers_that_differ_by_rounding_are_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the bound of the type that is computed in."""
    spoil(monkeypatch, 1 + 2e-5)

    assert World({"reference": 500, "dequantize": 1}).choose().name == "dequantize"


@pytest.mark.parametrize(
    "error, said",
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough free memory"),
        (RuntimeError("no C compiler"), "fails with RuntimeError (no C compiler)"),
    ],
)
def test_a_path_that_fails_is_left_out_with_what_it_said(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it for memory or for want of a compiler."""
    monkeypatch.setattr(Unpacked, "experts", broken(error))

    choice = World({"reference": 500}).choose()

    assert choice.name == "reference"
    assert said in choice.reason


def test_memory_that_runs_out_in_a_step_leaves_the_path_out() -> None:
    """A single layer may fit where the whole pass does not."""

    def work(world: World) -> None:
        if world.path == "dequantize":
            raise torch.OutOfMemoryError

    assert World({"reference": 500}, work).choose().name == "reference"


def test_if_no_path_works_the_last_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference's, which is tried last."""
    monkeypatch.setattr(Unpacked, "experts", broken(RuntimeError("first")))
    monkeypatch.setattr(Reference, "experts", broken(torch.OutOfMemoryError("second")))

    def work(world: World) -> None:
        module = next(packed_modules(world.decoder))
        module(torch.zeros(1, 48), torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1))

    with pytest.raises(OutOfMemoryError, match="second"):
        World({}, work).choose()


def test_without_packed_weights_there_is_nothing_to_choose() -> None:
    """No step is made."""
    choice = choose_path(torch.nn.Linear(2, 2), broken(AssertionError()), CPU)

    assert choice.name == PLAIN


names = st.sampled_from(["a", "b", "c"])
trials = st.lists(
    st.builds(
        Trial,
        names,
        st.none() | st.floats(0.1, 1e6),
        st.none() | st.floats(0, 1) | st.just(math.nan),
        st.just(0.1),
        st.sampled_from(["", "", "it does not fit"]),
    ),
    max_size=3,
    unique_by=lambda trial: trial.name,
)


@given(trials)
def test_nothing_wrong_is_ever_chosen_and_nothing_better_left(tried: list[Trial]) -> None:
    """Of those that ran and were right, the fastest; the others are in the reason."""
    right = [
        one
        for one in tried
        if one.milliseconds is not None
        and not one.problem
        and (one.error is None or one.error <= one.bound)
    ]
    choice = decide(tried)

    assert (choice is None) == (not right)
    if choice is not None:
        assert choice.milliseconds[choice.name] == min(one.milliseconds or 0 for one in right)
        assert set(choice.milliseconds) == {one.name for one in right}
        for one in tried:
            assert (one.name in choice.milliseconds) or f"{one.name} is left out" in (
                choice.reason.lower()
            )
