"""Which cached sequence a prompt continues."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gemd.worker.llama.prefix import CachedSequence, Placement, common_prefix, place

tokens = st.lists(st.integers(0, 3), max_size=40)


def cached(
    index: int, n: int, *, start: int = 0, busy: bool = False, used: float = 0.0
) -> CachedSequence:
    """A sequence that holds n tokens counting up from start."""
    return CachedSequence(index, list(range(start, start + n)), busy, used)


def always(sequence: CachedSequence, keep: int) -> bool:
    """A cache that can keep any prefix."""
    return True


@given(tokens, tokens)
def test_the_common_prefix_is_the_longest_equal_beginning(a: list[int], b: list[int]) -> None:
    """It agrees with comparing element by element."""
    expected = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        expected += 1

    assert expected == common_prefix(a, b)


def test_the_second_turn_of_a_conversation_takes_its_sequence_over() -> None:
    """Everything that was evaluated is kept."""
    sequences = [cached(0, 0), cached(1, 100)]

    assert Placement(1, 1, 100) == place(list(range(150)), sequences, always)


def test_the_last_prompt_token_is_always_evaluated() -> None:
    """The same prompt again still needs one position for its logits."""
    assert Placement(0, 0, 99) == place(list(range(100)), [cached(0, 100)], always)


def test_a_shared_beginning_is_copied_and_the_longer_history_survives() -> None:
    """Two conversations behind one system prompt both keep their caches."""
    sequences = [cached(0, 200), cached(1, 0), cached(2, 0)]
    prompt = [*range(50), 999, 998]

    assert Placement(1, 0, 50) == place(prompt, sequences, always)


def test_a_running_sequence_can_be_copied_but_not_taken() -> None:
    """Busy sequences lend their beginning."""
    sequences = [cached(0, 80, busy=True), cached(1, 0)]

    assert Placement(1, 0, 80) == place(list(range(90)), sequences, always)


def test_without_an_idle_sequence_the_prompt_waits() -> None:
    """No placement, not a wrong one."""
    assert place([1, 2], [cached(0, 5, busy=True)], always) is None


def test_a_prefix_that_the_window_has_dropped_is_not_used() -> None:
    """The cache decides what can still be attended to."""
    assert Placement(1, None, 0) == place(
        list(range(150)), [cached(0, 100), cached(1, 0)], lambda *_: False
    )


def test_an_empty_sequence_goes_before_the_longest_unused_one() -> None:
    """Nothing cached is thrown away while there is room."""
    sequences = [cached(0, 20, start=500, used=1), cached(1, 0, used=9), cached(2, 9, start=900)]

    assert Placement(1, None, 0) == place([1, 2, 3], sequences, always)


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=30),
    st.lists(st.tuples(tokens, st.booleans(), st.floats(0, 9)), min_size=1, max_size=5),
    st.sampled_from([0, 2, 100]),
)
def test_a_placement_is_always_possible(
    prompt: list[int], given_sequences: list[tuple[list[int], bool, float]], longest: int
) -> None:
    """The target is idle, the kept tokens are the prompt's and the source's, one is left."""
    sequences = [CachedSequence(i, t, b, u) for i, (t, b, u) in enumerate(given_sequences)]
    result = place(prompt, sequences, lambda _, keep: keep <= longest)
    if result is None:
        assert all(s.busy for s in sequences)
        return
    assert not sequences[result.target].busy
    assert 0 <= result.keep < len(prompt)
    if result.source is None:
        assert result.keep == 0
    else:
        assert result.keep <= longest
        assert sequences[result.source].tokens[: result.keep] == prompt[: result.keep]
