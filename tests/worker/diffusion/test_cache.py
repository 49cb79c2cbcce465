"""Slots hold what the model's own cache would, and can be cut, copied and reused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gemd.worker.diffusion.cache import SLACK, Held, LayerShape, Place, Slots, place, reusable

WINDOW = 8
LAYERS = [LayerShape(2, 4, None), LayerShape(1, 6, WINDOW)]
CANVAS = 5


def slots(context_tokens: int = 400, count: int = 2) -> Slots:
    """Two layers, one of each kind."""
    return Slots(
        LAYERS,
        count=count,
        context_tokens=context_tokens,
        canvas_tokens=CANVAS,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def states(layer: int, tokens: list[int]) -> torch.Tensor:
    """Keys that tell their token."""
    shape = LAYERS[layer]
    values = torch.tensor(tokens, dtype=torch.float32)
    return values[None, :, None].expand(shape.heads, len(tokens), shape.width).contiguous()


def told(seen: torch.Tensor) -> list[int]:
    """The tokens that keys tell."""
    return [int(value) for value in seen[0, 0, :, 0]]


def feed(cache: Slots, slot: int, tokens: list[int]) -> list[list[int]]:
    """Store tokens in every layer; what each layer attends to meanwhile."""
    seen = []
    for layer in range(len(LAYERS)):
        keys, values = cache.extend(layer, slot, states(layer, tokens), -states(layer, tokens))
        assert torch.equal(keys, -values)
        seen.append(told(keys))
    cache.advance(slot, tokens)
    return seen


def look(cache: Slots, slot: int) -> list[list[int]]:
    """What a canvas of zeros attends to, by layer, itself left out."""
    seen = []
    for layer in range(len(LAYERS)):
        zeros = states(layer, [0] * CANVAS)
        keys, _ = cache.with_canvas(layer, slot, zeros, zeros)
        assert told(keys)[-CANVAS:] == [0] * CANVAS
        seen.append(told(keys)[:-CANVAS])
    return seen


@given(st.lists(st.integers(1, 120), min_size=1, max_size=5))
def test_a_canvas_sees_everything_or_its_window(chunks: list[int]) -> None:
    """However the prompt was cut into chunks."""
    cache = slots(context_tokens=600)
    tokens = list(range(1, sum(chunks) + 1))
    start = 0
    for size in chunks:
        feed(cache, 1, tokens[start : start + size])
        start += size
    assert look(cache, 1) == [tokens, tokens[-(WINDOW - 1) :]]
    # A canvas leaves nothing behind.
    assert look(cache, 1) == [tokens, tokens[-(WINDOW - 1) :]]
    assert cache.held[0].tokens == []


def test_new_tokens_see_what_is_stored_and_themselves() -> None:
    """A window holds more than is needed, for later cuts; masks take care of that."""
    cache = slots()
    feed(cache, 0, [1, 2, 3])
    assert feed(cache, 0, [4, 5]) == [[1, 2, 3, 4, 5]] * 2


@given(st.integers(1, 380), st.data())
def test_a_cut_is_as_if_the_rest_had_never_been(length: int, data: st.DataObject) -> None:
    """As far as `reusable` lets it go."""
    cache = slots()
    tokens = list(range(1, length + 1))
    feed(cache, 0, tokens)
    common = data.draw(st.integers(0, length))
    prompt = [*tokens[:common], 999]
    kept = reusable(cache.held[0], prompt, keep=cache.window_keep)
    assert kept in {0, common}
    cache.cut(0, kept)
    assert look(cache, 0) == [tokens[:kept], tokens[:kept][-(WINDOW - 1) :]]


def test_a_cut_reaches_back_by_the_slack() -> None:
    """And not further, once a window has forgotten what was before."""
    length = SLACK + WINDOW + 50
    held = Held(list(range(length)), SLACK + WINDOW - 1)
    for gone, kept in ((0, True), (SLACK, True), (SLACK + 1, False)):
        prompt = [*held.tokens[: length - gone], -1]
        found = reusable(held, prompt, keep=WINDOW - 1)
        assert found == (length - gone if kept else 0)


def test_a_prompt_that_is_held_as_a_whole_is_reused_as_a_whole() -> None:
    """The model of a canvas needs no last token to be read again."""
    assert reusable(Held([1, 2, 3], 3), [1, 2, 3], keep=7) == 3
    assert reusable(Held([1, 2, 3], 3), [1, 2], keep=7) == 2


@given(st.integers(1, 380), st.data())
def test_a_copy_holds_the_same_and_goes_its_own_way(length: int, data: st.DataObject) -> None:
    """As far as it is wanted, and `reusable` lets it go: candidates share a prompt like this."""
    cache = slots()
    tokens = list(range(1, length + 1))
    feed(cache, 0, tokens)
    feed(cache, 1, [7, 7, 7])
    wanted = data.draw(st.integers(1, length))
    kept = reusable(cache.held[0], tokens[:wanted], keep=cache.window_keep)
    if not kept:
        return
    before = look(cache, 0)
    cache.copy(0, 1, kept)
    assert look(cache, 1) == [tokens[:kept], tokens[:kept][-(WINDOW - 1) :]]
    feed(cache, 1, [500])
    assert look(cache, 1)[0] == [*tokens[:kept], 500]
    assert look(cache, 0) == before


def found(
    prompt: list[int], *held: list[int], free: set[int], last_used: tuple[float, ...] | None = None
) -> Place:
    """Where a prompt goes, among slots whose windows hold everything."""
    return place(
        prompt,
        [Held(tokens, len(tokens)) for tokens in held],
        free=free,
        last_used=last_used or tuple(range(len(held))),
        keep=WINDOW - 1,
    )


HEAD = list(range(20))
"""What two conversations have in common."""
LONG = [*HEAD, *range(100, 200)]


def test_the_next_turn_takes_its_own_slot_over() -> None:
    """Also where the last tokens of the slot are others."""
    assert found([*LONG, 7], [], LONG, [3], free={0, 1, 2}) == Place(1, 1, len(LONG))
    assert found([*LONG[:-9], 7], [], LONG, free={0, 1}) == Place(1, 1, len(LONG) - 9)


def test_another_conversation_leaves_a_history_for_its_own_next_turn() -> None:
    """What they have in common is copied; empty slots go first, then the longest unused."""
    other = [*HEAD, 7, 7]
    assert found(other, LONG, [], free={0, 1}) == Place(1, 0, len(HEAD))
    assert found(other, LONG, [3] * 50, free={0, 1}) == Place(1, 0, len(HEAD))
    assert found(other, [3], LONG, [3], free={0, 1, 2}, last_used=(5, 9, 4)) == Place(2, 1, 20)
    # There is no other.
    assert found(other, LONG, free={0}) == Place(0, 0, len(HEAD))
    assert found(other, LONG, [3] * 50, free={0}) == Place(0, 0, len(HEAD))


def test_a_few_tokens_in_common_are_read_again() -> None:
    """They cost no pass of their own; a short prompt that is there as a whole would."""
    assert found([0, 1, 2, 7], LONG, [], free={0, 1}) == Place(1, 1, 0)
    assert found([0, 1, 2, 7], LONG, [0, 1, *range(40, 80)], free={1}) == Place(1, 1, 2)
    assert found([0, 1, 2], LONG, [], free={1}) == Place(1, 0, 3)


def test_a_prompt_is_copied_out_of_a_slot_in_which_an_answer_goes_on() -> None:
    """And not cut off there."""
    assert found([*LONG, 5], LONG, [], free={1}) == Place(1, 0, len(LONG))


@pytest.mark.parametrize("context_tokens", [100, 4000])
def test_windows_take_no_more_than_they_hold(context_tokens: int) -> None:
    """The whole context in layers that see all of it, a window and the slack in the others."""
    floats = (
        2
        * 2
        * (
            2 * 4 * (context_tokens + CANVAS)
            + 1 * 6 * (min(context_tokens, WINDOW - 1 + SLACK) + CANVAS)
        )
    )
    assert slots(context_tokens).nbytes == 4 * floats
