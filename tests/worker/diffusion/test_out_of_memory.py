"""A request that memory is too short for fails with its numbers; the worker goes on."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch

from gemd import wire
from gemd.errors import EngineCrashedError, EngineStartFailedError
from gemd.worker.diffusion import engine as subject
from gemd.worker.diffusion.cache import Slots
from gemd.worker.diffusion.memory import OutOfMemoryError, watched
from tests.support.diffusion import Bench, bench
from tests.support.tiny_diffusion import ANSWERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNSETTLED: Final[dict[str, Any]] = {"temperature": 8.0, "ignore_eos": True, "max_tokens": 32}
"""So warm that a canvas takes all of its steps."""
STEPS: Final = 6
"""That there are, for the time that they take."""


@pytest.fixture(name="tiny")
def _tiny() -> Iterator[Bench]:
    torch.set_num_threads(1)
    with bench() as made:
        made.limit_steps(STEPS)
        yield made


def test_a_prompt_that_memory_is_too_short_for_fails_alone(
    tiny: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the layers have stored its tokens by then; nothing of that is reused."""
    slots = tiny.engine._stack.slots
    extend = slots.extend

    def short(layer: int, slot: int, keys: Any, values: Any) -> Any:
        if layer == 2 and slots.length(slot) + keys.shape[1] > 100:
            _refuse()
        return extend(layer, slot, keys, values)

    monkeypatch.setattr(slots, "extend", short)
    other = tiny.ask("Who are you?")
    long = tiny.ask("hello " * 60)
    tiny.run()
    failure = tiny.failure(long)
    assert failure.reason == "VRAM_BUDGET_EXCEEDED"
    assert "tokens of the prompt" in failure.message
    assert int(failure.metadata["held_bytes"]) > 0
    assert tiny.text(other) == ANSWERS["Who are you?"]
    monkeypatch.undo()
    again = tiny.ask("hello " * 60, max_tokens=1)
    tiny.run()
    assert tiny.end(again).cached_tokens < 10
    assert tiny.answer("Hello") == ANSWERS["Hello"]


class Short:
    """Stands before a pass, and refuses it while it has more rows than there is memory for."""

    def __init__(self, inner: Callable[..., Any], rows: int) -> None:
        self.inner = inner
        self.rows = rows
        self.refused = 0
        self.most = 0

    def __call__(self, slots: list[int], *rest: Any) -> Any:
        """As `Stack.denoise`."""
        if len(slots) > self.rows:
            self.refused += 1
            _refuse()
        self.most = max(self.most, len(slots))
        return self.inner(slots, *rest)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_canvases_go_one_after_the_other_where_memory_is_short(
    tiny: Bench, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every answer is the one that it would have been."""
    alone = [tiny.answer("zebra", seed=seed, **UNSETTLED) for seed in range(4)]
    short = Short(tiny.engine._stack.denoise, rows)
    monkeypatch.setattr(tiny.engine._stack, "denoise", short)
    ids = [tiny.ask("zebra", seed=seed, **UNSETTLED) for seed in range(4)]
    tiny.run()
    assert [tiny.text(request) for request in ids] == alone
    # Halves: three fit as little as two.
    assert short.most == min(rows, 2)
    # It is not tried in vain at every step.
    assert 1 <= short.refused <= 2


def test_a_canvas_that_never_fits_fails_its_request_alone(
    tiny: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All candidates of it, and nobody else's."""
    monkeypatch.setattr(tiny.engine._stack, "denoise", Short(tiny.engine._stack.denoise, 0))
    request = tiny.ask("Hello", candidates=3)
    tiny.run()
    failure = tiny.failure(request)
    assert failure.reason == "VRAM_BUDGET_EXCEEDED"
    assert "the worker holds" in failure.why
    assert tiny.engine.idle()
    monkeypatch.undo()
    assert tiny.answer("Hello") == ANSWERS["Hello"]


def test_a_cache_that_does_not_fit_leaves_the_old_size(
    tiny: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The context is made again as it was."""
    made = tiny.engine._stack._made
    fitting = lambda tokens: made(tokens) if tokens <= 512 else _refuse()  # noqa: E731
    monkeypatch.setattr(tiny.engine._stack, "_made", fitting)
    with pytest.raises(EngineStartFailedError) as caught:
        tiny.engine.resize(wire.Resize(request_id="x", context_tokens=2048, prompt_cache_bytes=0))
    assert caught.value.metadata["kept_context_tokens"] == "512"
    assert tiny.answer("Hello") == ANSWERS["Hello"]


def test_a_cache_too_many_is_gone_before_the_old_one_is_made_again(
    tiny: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames that failed in it keep it no longer: it may be the memory that is needed."""
    made, extend = tiny.engine._stack._made, Slots.extend
    large: list[weakref.ref[Slots]] = []
    left: list[int] = []

    def observed(context_tokens: int) -> Slots:
        left.append(sum(each() is not None for each in large))
        slots = made(context_tokens)
        if context_tokens > 512:
            large.append(weakref.ref(slots))
        return slots

    def short(slots: Slots, *rest: Any) -> Any:
        return _refuse() if slots.context_tokens > 512 else extend(slots, *rest)

    monkeypatch.setattr(tiny.engine._stack, "_made", observed)
    monkeypatch.setattr(Slots, "extend", short)
    with pytest.raises(EngineStartFailedError):
        tiny.engine.resize(wire.Resize(request_id="x", context_tokens=2048, prompt_cache_bytes=0))
    assert len(large) == 1
    assert left == [0, 0]


def test_all_canvases_are_tried_together_again_after_a_while(
    tiny: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the engine is never idle."""
    monkeypatch.setattr(subject, "SHORT_STEPS", 3)
    short = Short(tiny.engine._stack.denoise, 1)
    monkeypatch.setattr(tiny.engine._stack, "denoise", short)
    for seed in range(2):
        tiny.ask("zebra", seed=seed, **UNSETTLED)
    tiny.engine.step()
    assert short.refused == 1
    short.rows = 2
    tiny.run(until=lambda: short.most == 2)
    assert not tiny.engine.idle()


def test_no_memory_for_any_cache_ends_the_worker(
    tiny: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, and the daemon starts another one."""
    monkeypatch.setattr(tiny.engine._stack, "_made", lambda _: _refuse())
    with pytest.raises(EngineCrashedError):
        tiny.engine.resize(wire.Resize(request_id="x", context_tokens=256, prompt_cache_bytes=0))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    """A defect must end the worker."""
    with pytest.raises(RuntimeError, match="shape"), watched():
        raise RuntimeError("shape mismatch")
    with pytest.raises(OutOfMemoryError), watched():
        torch.empty(1 << 58)


def _refuse() -> Any:
    """More than any machine has: the real allocator's real error."""
    return torch.empty(1 << 58)
