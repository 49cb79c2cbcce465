"""Whatever came before and runs beside it, an answer is the one that a fresh engine gives."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemd import wire
from gemd.worker.diffusion import cache
from tests.support.clock import Clock
from tests.support.diffusion import Bench, bench
from tests.support.tiny_diffusion import TINY, change_json, read_tensors, write_plain

if TYPE_CHECKING:
    from collections.abc import Iterator

WINDOW: Final = 20
SLACK: Final = 24
"""Both smaller than most prompts, so that slots forget."""
CONTEXT: Final = 150
SLOTS: Final = 2
STEPS: Final = 3
"""That a canvas may have, for the time that they take; it never settles."""
WORDS: Final = [20 + 7 * index % 470 for index in range(CONTEXT)]
"""What all prompts begin with."""


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        prompt: Its tokens.
        seed: Of its draws.
        limit: Its most tokens; None for what fits.
        candidates: Its answers.

    """

    prompt: tuple[int, ...]
    seed: int
    limit: int | None
    candidates: int

    def to(self, made: Bench, **fields: Any) -> str:
        """Ask an engine."""
        return made.ask(
            "",
            prompt=wire.Prompt(tokens=self.prompt),
            seed=self.seed,
            temperature=8.0,
            ignore_eos=True,
            max_tokens=self.limit,
            candidates=self.candidates,
            **fields,
        )


PROMPTS = st.builds(
    lambda shared, own: (*WORDS[:shared], *own),
    st.one_of(st.integers(1, CONTEXT - 1), st.sampled_from([WINDOW, CONTEXT - 1])),
    st.lists(st.integers(20, 490), max_size=2),
).map(lambda tokens: tokens[: CONTEXT - 1])
REQUESTS = st.builds(
    Asked,
    PROMPTS,
    st.integers(0, 1),
    st.sampled_from([None, 0, 1, 32, 33, 64]),
    st.sampled_from([1, 1, 1, 3]),
)
ACTIONS = st.lists(
    st.one_of(
        REQUESTS,
        st.tuples(st.just("go on"), REQUESTS),
        st.tuples(st.just("steps"), st.integers(1, 9)),
        st.tuples(st.just("cancel"), st.integers(0, 3)),
        st.tuples(st.just("wait"), st.just(2.0)),
        st.tuples(st.just("rate"), st.sampled_from([0.0, 200.0, 5000.0])),
    ),
    min_size=3,
    max_size=9,
)


class Pair:
    """An engine that many requests share, and one that is emptied before each."""

    def __init__(self, shared: Bench, fresh: Bench, clock: Clock) -> None:
        self.shared, self.fresh, self.clock = shared, fresh, clock
        self.open: dict[str, Asked] = {}
        self.ended: list[tuple[int, ...]] = []
        self._known: dict[Asked, list[Any]] = {}

    def act(self, action: Any) -> None:
        """Do one thing to the shared engine."""
        match action:
            case Asked():
                # Every third request has a deadline that may pass.
                deadline = {"deadline_seconds": 5.0} if action.seed else {}
                self.open[action.to(self.shared, **deadline)] = action
            case ("go on", Asked() as asked):
                before = self.ended[-1] if self.ended else ()
                self.act(replace(asked, prompt=(*before, *asked.prompt)[: CONTEXT - 1]))
            case ("steps", count):
                for _ in range(count):
                    self.shared.engine.step()
            case ("cancel", index) if index < len(self.open):
                self.shared.engine.cancel(list(self.open)[index])
            case ("wait", seconds):
                self.clock.now += seconds
            case ("rate", rate):
                self.shared.engine._rate.value = rate

    def check(self) -> None:
        """Compare what has ended."""
        for request, asked in list(self.open.items()):
            ends = self.shared.of(wire.Finished, request)
            if self.shared.of(wire.RequestFailed, request):
                assert self.shared.failure(request).reason == "DEADLINE_EXPIRED"
            elif not ends or not ends[-1].last:
                continue
            else:
                assert sorted(end.candidate for end in ends) == list(range(asked.candidates))
                assert [end.last for end in ends] == [False] * (len(ends) - 1) + [True]
            for end, tokens in answers(self.shared, request):
                expected_end, expected = self.expected(asked)[end.candidate]
                if end.reason == "cancelled":
                    assert tokens == expected[: len(tokens)]
                    continue
                assert (end.reason, tokens) == (expected_end.reason, expected)
                self.ended.append((*asked.prompt, *tokens))
            del self.open[request]

    def expected(self, asked: Asked) -> list[Any]:
        """Alone, in slots that hold nothing."""
        if asked not in self._known:
            for slot in range(SLOTS):
                self.fresh.engine._stack.slots.cut(slot, 0)
            request = asked.to(self.fresh)
            self.fresh.run()
            self._known[asked] = sorted(
                answers(self.fresh, request), key=lambda pair: pair[0].candidate
            )
        return self._known[asked]


def answers(made: Bench, request: str) -> list[tuple[wire.Finished, tuple[int, ...]]]:
    """The ends of a request, each with its tokens."""
    deltas = made.of(wire.Delta, request)
    return [
        (
            end,
            tuple(
                token
                for delta in deltas
                if delta.candidate == end.candidate
                for token in delta.tokens
            ),
        )
        for end in made.of(wire.Finished, request)
    ]


@pytest.fixture(name="pair", scope="module")
def _pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """In float32, so that rounding decides nothing, and with a small window."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("windowed")
    tensors = {name: tensor.float() for name, tensor in read_tensors(TINY).items()}
    write_plain(folder, tensors, dtype="float32")
    text = json.loads((folder / "config.json").read_text())["text_config"]
    changed = {**text, "sliding_window": WINDOW, "dtype": "float32"}
    change_json(folder / "config.json", {"text_config": changed})
    clock = Clock()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cache, "SLACK", SLACK)
        options = {"context_tokens": CONTEXT, "max_sequences": SLOTS}
        with (
            bench(folder, clock=clock, **options) as shared,
            bench(folder, clock=Clock(), **options) as fresh,
        ):
            assert shared.engine._stack.dtype == torch.float32
            for made in (shared, fresh):
                made.limit_steps(STEPS)
            yield Pair(shared, fresh, clock)


def test_two_conversations_by_turns_each_find_their_own_past(pair: Pair) -> None:
    """What they begin with in common makes neither cost the other its place."""
    made = pair.shared
    for slot in range(SLOTS):
        made.engine._stack.slots.cut(slot, 0)
    turns = [WORDS[:40], [*WORDS[:6], *range(50, 90)]]
    cached = []
    for prompt in turns * 3:
        request = made.ask("", prompt=wire.Prompt(tokens=tuple(prompt)), max_tokens=1)
        made.run()
        cached.append(made.end(request).cached_tokens)
        prompt += [11, 12]
        pair.clock.now += 1
    assert cached == [0, 0, 40, 46, 42, 48]
    # A third one takes the place of what was not used for longest.
    for prompt, expected in (([300] * 40, 0), (turns[1], 50)):
        request = made.ask("", prompt=wire.Prompt(tokens=tuple(prompt)), max_tokens=1)
        made.run()
        assert made.end(request).cached_tokens == expected
        pair.clock.now += 1


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(ACTIONS)
def test_an_answer_is_that_of_a_fresh_engine(pair: Pair, actions: list[Any]) -> None:
    """Requests, their ends, cancels and deadlines in any order; slots keep what they held."""
    for action in actions:
        pair.act(action)
        pair.check()
        slots = [each.slot for each in pair.shared.engine._running]
        assert len(set(slots)) == len(slots)
    pair.shared.run()
    pair.check()
    assert not pair.open
    assert pair.shared.engine.idle()
