"""The verifier's arithmetic: errors, divergences, limits, loops, lists of tensors."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gemd.wire import Finished
from gemd.worker.verify.bounds import GAUSSIAN_ERROR, MEAN_OF, error_limit, gate_of
from gemd.worker.verify.census import Entry, differences
from gemd.worker.verify.checkpoint import problem_of
from gemd.worker.verify.errors import (
    MatrixError,
    judge,
    relative_error,
    sampled_rows,
)
from gemd.worker.verify.probability import KEPT, Position, compared, comparison, kept_of
from gemd.worker.verify.smoke import Said, verdict
from gemd.worker.verify.sound import loop_length, unsound

LOGITS = arrays.arrays(
    np.float32, st.integers(2, 300), elements=st.floats(-30, 30, width=32, allow_nan=False)
)


@given(LOGITS)
def test_nothing_is_lost_by_the_same_predictions(logits: np.ndarray) -> None:
    """A model compared with itself diverges by nothing and agrees."""
    found = compared(kept_of(logits, 0), logits, 0)
    assert found.divergence == pytest.approx(0.0, abs=1e-5)
    assert found.agrees
    assert found.model == pytest.approx(found.reference)


@given(LOGITS, st.randoms(use_true_random=False))
def test_merging_rare_tokens_never_raises_the_divergence(
    logits: np.ndarray, random: object
) -> None:
    """What is computed of 64 tokens and a rest is between zero and the true divergence."""
    other = np.array([random.uniform(-30, 30) for _ in logits], np.float32)  # type: ignore[attr-defined]
    p, q = (np.exp(each.astype(float) - each.max()) for each in (logits, other))
    p, q = p / p.sum(), q / q.sum()
    true = float((p * (np.log(p) - np.log(q))).sum())
    found = compared(kept_of(logits, 0), other, 0).divergence
    assert -1e-5 <= found <= true + 1e-4
    if logits.size <= KEPT:
        assert found == pytest.approx(true, abs=1e-3)


def test_a_model_that_predicts_no_numbers_diverges_infinitely() -> None:
    """Logits that are NaN neither pass nor break the comparison."""
    good, broken = np.zeros(10, np.float32), np.full(10, np.nan, np.float32)
    found = compared(kept_of(good, 3), broken, 3)
    assert found.divergence == math.inf
    whole = comparison([found])
    assert whole.divergence == math.inf
    assert whole.perplexity == math.inf


def test_positions_are_summed_up() -> None:
    """Means over positions; perplexity is the exponential of the mean surprise."""
    half, quarter = math.log(0.5), math.log(0.25)
    found = comparison([Position(0.1, True, half, quarter), Position(0.3, False, half, quarter)])
    assert found.divergence == pytest.approx(0.2)
    assert found.divergence_p99 == pytest.approx(0.3)
    assert found.agreement == 0.5
    assert found.reference_perplexity == pytest.approx(2.0)
    assert found.ratio == pytest.approx(2.0)


@given(st.integers(1, 10_000), st.integers(2, 64))
def test_rows_are_spread_over_the_whole_matrix(rows: int, most: int) -> None:
    """The first and the last are among them, none twice, and no more than wanted."""
    chosen = sampled_rows(rows, most)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(rows, most)
    assert (chosen[0], chosen[-1]) == (0, rows - 1)


@given(arrays.arrays(np.float32, (4, 8), elements=st.floats(-1, 1, width=32)))
def test_an_error_is_relative(weights: np.ndarray) -> None:
    """Doubled weights are off by as much as they are, whatever their size."""
    assert relative_error(weights, weights) == 0.0
    if np.square(weights, dtype=np.float64).sum() > 0:
        assert relative_error(2 * weights, weights) == pytest.approx(1.0)


def test_numbers_that_are_none_are_infinitely_wrong() -> None:
    """As is anything in the place of zeros."""
    ones, zeros = np.ones((1, 4), np.float32), np.zeros((1, 4), np.float32)
    assert relative_error(np.full((1, 4), np.nan, np.float32), ones) == math.inf
    assert relative_error(ones, zeros) == math.inf
    assert relative_error(zeros, zeros) == 0.0


def test_the_worst_matrix_is_the_one_nearest_its_own_bound() -> None:
    """A coarse type may be further off than a fine one."""
    fine, coarse = MatrixError("fine", "Q8_0", 0.02), MatrixError("coarse", "Q4_0", 0.1)
    found = judge([fine, coarse])
    assert not found.passed
    assert found.worst is fine
    assert judge([coarse]).passed


def test_many_tensors_may_not_all_be_at_the_bound() -> None:
    """What one matrix may have, all of a type may not have on average."""
    bad = 0.95 * error_limit("Q4_0")
    one = MatrixError("one", "Q4_0", bad)
    assert judge([one]).passed
    found = judge([one] * MEAN_OF)
    assert not found.passed
    assert found.value == pytest.approx(bad)
    assert found.limit == error_limit("Q4_0", mean=True)


@pytest.mark.parametrize("kind", sorted(GAUSSIAN_ERROR))
def test_weights_of_another_tensor_are_beyond_every_bound(kind: str) -> None:
    """Two tensors of one size that are swapped are off by the square root of two."""
    assert error_limit(kind) < 1.0


@pytest.mark.parametrize("quantization", ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS"])
def test_larger_models_may_lose_less(quantization: str) -> None:
    """Every limit becomes stricter with the number of parameters, and none is absurd."""
    gates = [gate_of(quantization, size) for size in (1e8, 1e9, 3e10)]
    for small, large in itertools.pairwise(gates):
        assert small is not None
        assert large is not None
        assert large.divergence < small.divergence
        assert small.agreement < large.agreement < 1.0
        assert 1.0 < large.perplexity < small.perplexity
    assert gate_of("TQ1_0", 1e9) is None


def test_an_answer_may_have_a_rhythm_but_no_loop() -> None:
    """Five times the same at the end is a loop; a list and a short refrain are none."""
    assert loop_length([7] * 24) == 1
    assert loop_length([1, 2, 3, *[4, 5, 6, 7, 8] * 5]) == 5
    assert loop_length([7] * 23) == 0
    assert loop_length(list(range(100))) == 0
    assert loop_length([5, 6] * 11) == 0


def test_an_answer_is_text() -> None:
    """Nothing, white space and broken characters are no answers; a cut one at the end is."""
    assert "nothing" in unsound(" \n", [1])
    assert "UTF-8" in unsound("a\ufffdb", [1])
    assert unsound("abc\ufffd", [1]) == ""
    assert "over and over" in unsound("x" * 30, [1] * 30)
    assert unsound("x" * 30, [1] * 30, may_loop=True) == ""


def _said(text: str, reason: str = "stop", tokens: int = 3) -> Said:
    finished = Finished.model_validate(
        {
            "request_id": "r",
            "reason": reason,
            "prompt_tokens": 1,
            "cached_tokens": 0,
            "completion_tokens": tokens,
            "queue_seconds": 0,
            "prefill_seconds": 0,
            "decode_seconds": 0,
        }
    )
    return Said(text, list(range(tokens)), finished)


def test_a_model_that_chats_has_to_come_to_an_end() -> None:
    """Once in three answers is enough; one that only continues texts need not."""
    endless = [_said("and so on", "max_tokens")] * 3
    assert not verdict(endless, load_s=1, chat=True).passed
    assert verdict(endless, load_s=1, chat=False).passed
    assert verdict([_said("Paris."), *endless[1:]], load_s=1, chat=True).passed


def test_one_empty_answer_is_forgiven() -> None:
    """Two are not."""
    empty, good = _said(""), _said("four")
    assert verdict([empty, good, good], load_s=1, chat=True).passed
    assert not verdict([empty, empty, good], load_s=1, chat=True).passed


def test_tensors_are_compared_by_name_shape_and_type() -> None:
    """Each difference is told once; a trailing one in a shape is none."""
    wanted = [Entry("a", (4, 2, 1), "Q4_0"), Entry("b", (4,)), Entry("c", (1,))]
    found = [Entry("a", (4, 2), "Q8_0"), Entry("b", (5,), "F32"), Entry("d", (1,))]
    assert differences(found, wanted) == [
        "a is Q8_0, not Q4_0",
        "b has the shape [5], not [4]",
        "c is missing",
        "d is in the way: nothing has it",
    ]
    assert differences([Entry("a", (4, 2), "Q4_0")], wanted[:1]) == []


@pytest.mark.parametrize(
    "name, dtype, number, word",
    [
        ("x.weight_scale", "F8_E4M3", np.array([0x7F], np.uint8), "NaN"),
        ("x.weight_scale", "F8_E4M3", np.array([0xB8], np.uint8), "negative"),
        ("x.weight_scale", "F8_E4M3", np.array([0, 0x38, 0x7E], np.uint8), ""),
        ("x.weight", "BF16", np.array([0x7F80], np.uint16), "infinite"),
        ("x.weight", "BF16", np.array([0x3F80, 0xFF7F], np.uint16), ""),
        ("x.weight", "F16", np.array([0xFE00], np.uint16), "infinite"),
        ("x.weight", "F32", np.array([np.nan], np.float32), "infinite"),
        ("x.weight_global_scale", "F32", np.array([0.0], np.float32), "positive"),
        ("x.weight_scale_2", "F32", np.array([-1.0], np.float32), "positive"),
        ("x.layer_scalar", "F32", np.array([-1.0], np.float32), ""),
        ("x.weight_packed", "U8", np.array([0x7F, 0xFF], np.uint8), ""),
    ],
)
def test_wrong_numbers_are_seen_in_their_bits(
    name: str, dtype: str, number: np.ndarray, word: str
) -> None:
    """Scales of blocks are finite and not negative, global ones positive, all numbers finite."""
    problem = problem_of(name, dtype, number.view(np.uint8))
    assert (word in problem) if word else problem == ""
