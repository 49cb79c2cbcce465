"""Logits in slices say what logits as a whole would."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from gemd.worker.diffusion import head as subject
from gemd.worker.diffusion.head import Bias, Filters, Head, Wish
from tests.support import apart

# More than two slices, and none of them full at the end.
VOCABULARY, HIDDEN, LENGTH = 2 * subject.SLICE + 777, 24, 20
SOFTCAP = 30.0


@pytest.fixture(name="table", scope="module")
def _table() -> torch.Tensor:
    torch.set_num_threads(1)
    return torch.randn(VOCABULARY, HIDDEN, generator=torch.Generator().manual_seed(1))


@pytest.fixture(name="hidden", scope="module")
def _hidden() -> torch.Tensor:
    scale = torch.linspace(0.1, 3.0, LENGTH)[:, None]
    return (torch.randn(LENGTH, HIDDEN, generator=torch.Generator().manual_seed(2)) * scale)[None]


def wish(filters: Filters | None = None, bias: dict[int, float] | None = None) -> Wish:
    """A wish without fixed positions."""
    return Wish(
        temperature=0.6,
        uniforms=np.random.default_rng(3).random(LENGTH, dtype=np.float32),
        fixed=np.zeros(LENGTH, dtype=np.bool_),
        tokens=np.zeros(LENGTH, dtype=np.int64),
        filters=filters or Filters(),
        bias=Bias.of(bias or {}),
    )


def entropy_of(logits: torch.Tensor) -> torch.Tensor:
    """In nats, by row."""
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def whole(table: torch.Tensor, hidden: torch.Tensor, bias: dict[int, float]) -> torch.Tensor:
    """The logits as the model defines them; float64."""
    logits = torch.tanh(hidden[0].double() @ table.double().T / SOFTCAP) * SOFTCAP
    for token, value in bias.items():
        logits[:, token] += value
    return logits


@pytest.mark.parametrize(
    "bias",
    [
        {},
        {5: 9.0, subject.SLICE: -1e4, VOCABULARY - 1: 7.0},
        {token: float(token % 11 - 5) for token in range(VOCABULARY)},
    ],
    ids=["none", "some", "all"],
)
def test_every_column_is_that_of_the_whole(
    table: torch.Tensor, hidden: torch.Tensor, bias: dict[int, float]
) -> None:
    """Entropies at both temperatures, the likeliest token, its probability and margin, the mix."""
    head = Head(table, torch.tensor(2.0), SOFTCAP, canvas_tokens=LENGTH)
    [reading], soft = head.read(hidden, [wish(bias=bias)])
    logits = whole(table, hidden, bias)
    best = logits.softmax(-1).topk(2)
    assert (reading.likeliest == logits.argmax(-1).numpy()).all()
    for found, expected in (
        (reading.raw_entropy, entropy_of(logits)),
        (reading.entropy, entropy_of(logits / 0.6)),
        (reading.confidence, best.values[:, 0]),
        (reading.margin, best.values[:, 0] - best.values[:, 1]),
    ):
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    mixture = (logits / 0.6).softmax(-1) @ table.double() * 2
    assert torch.dist(soft[0].double(), mixture) / mixture.norm() < 1e-5


@pytest.mark.parametrize(
    "filters", [Filters(), Filters(top_k=7), Filters(top_p=0.4), Filters(min_p=0.2)]
)
def test_tokens_are_drawn_from_what_the_filters_leave(
    table: torch.Tensor, hidden: torch.Tensor, filters: Filters
) -> None:
    """By the inverse of the cumulative distribution in the order of the vocabulary."""
    head = Head(table, torch.tensor(1.0), SOFTCAP, canvas_tokens=LENGTH)
    asked = wish(filters)
    [reading], _ = head.read(hidden, [asked])
    chances = (whole(table, hidden, {}) / 0.6).softmax(-1)
    ordered = chances.sort(-1, descending=True).values
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if filters.top_k:
        keep[:, filters.top_k :] = False
    keep &= ordered.cumsum(-1) - ordered < filters.top_p
    keep &= ordered >= ordered[:, :1] * filters.min_p
    least = torch.where(keep, ordered, 9.0).amin(-1, keepdim=True)
    cumulative = torch.where(chances >= least * (1 - 1e-9), chances, 0.0).cumsum(-1)
    wanted = torch.from_numpy(asked.uniforms).double()[:, None] * cumulative[:, -1:]
    expected = torch.searchsorted(cumulative, wanted, right=True)[:, 0]
    assert (reading.drawn == expected.numpy()).all()


def test_draws_follow_the_distribution(table: torch.Tensor) -> None:
    """Of many positions that are the same, each token gets about its share."""
    count = 4000
    small = table[:50]
    state = torch.randn(1, 1, HIDDEN, generator=torch.Generator().manual_seed(4)) * 0.4
    head = Head(small, torch.tensor(1.0), SOFTCAP, canvas_tokens=count)
    asked = Wish(
        1.0,
        np.random.default_rng(5).random(count, dtype=np.float32),
        np.zeros(count, dtype=np.bool_),
        np.zeros(count, dtype=np.int64),
    )
    [reading], _ = head.read(state.expand(1, count, HIDDEN).contiguous(), [asked])
    expected = whole(small, state, {}).softmax(-1)[0].numpy()
    found = np.bincount(reading.drawn, minlength=50) / count
    # Four standard deviations of the likeliest token's share.
    assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / count)


@pytest.mark.parametrize("uniform", [0.0, np.nextafter(np.float32(1), np.float32(0))])
def test_the_ends_of_the_distribution_are_tokens_that_can_be(uniform: float) -> None:
    """A number at the edge never draws a token without a chance."""
    table = torch.eye(16)
    head = Head(table, torch.tensor(1.0), SOFTCAP, canvas_tokens=1)
    state = torch.full((1, 1, 16), -2000.0)
    state[0, 0, 5] = state[0, 0, 6] = 2000.0
    asked = Wish(
        0.05,
        np.array([uniform], dtype=np.float32),
        np.zeros(1, dtype=np.bool_),
        np.zeros(1, dtype=np.int64),
    )
    [reading], _ = head.read(state, [asked])
    assert reading.drawn[0] == (5 if uniform == 0 else 6)


@pytest.mark.parametrize("temperature", [1e-4, 1e-3, 10.0])
def test_equal_tokens_share_at_any_temperature(temperature: float) -> None:
    """A banned token beside them, and logits that are large at a small temperature."""
    table = torch.eye(16)
    head = Head(table, torch.tensor(1.0), SOFTCAP, canvas_tokens=1)
    state = torch.full((1, 1, 16), -2000.0)
    state[0, 0, [3, 9]] = 29.7
    asked = Wish(
        temperature,
        np.array([0.9], dtype=np.float32),
        np.zeros(1, dtype=np.bool_),
        np.zeros(1, dtype=np.int64),
        bias=Bias.of({3: 100.0, 9: 100.0, 5: -1e4}),
    )
    [reading], soft = head.read(state, [asked])
    few = min(temperature, 1.0) < 1
    assert reading.drawn[0] in ({9} if few else {9, 14, 15})
    assert reading.raw_entropy[0] == pytest.approx(np.log(2), rel=1e-5)
    assert reading.margin[0] == pytest.approx(0.0, abs=1e-6)
    if few:
        assert reading.entropy[0] == pytest.approx(np.log(2), rel=1e-5)
        assert soft[0, 0, [3, 9]].tolist() == pytest.approx([0.5, 0.5])
    assert soft.sum() == pytest.approx(1.0)


def test_states_that_are_no_numbers_draw_some_token(table: torch.Tensor) -> None:
    """On a GPU a place behind the last token would end every other request too."""
    head = Head(table, torch.tensor(1.0), SOFTCAP, canvas_tokens=LENGTH)
    [reading], _ = head.read(torch.full((1, LENGTH, HIDDEN), torch.nan), [wish()])
    assert ((reading.drawn >= 0) & (reading.drawn < VOCABULARY)).all()


def test_fixed_positions_are_told_as_what_they_are(
    table: torch.Tensor, hidden: torch.Tensor
) -> None:
    """The next step is not conditioned on what the model would have put there."""
    head = Head(table, torch.tensor(2.0), SOFTCAP, canvas_tokens=LENGTH)
    free = wish()
    fixed = np.zeros(LENGTH, dtype=np.bool_)
    fixed[3] = True
    tokens = np.full(LENGTH, 11)
    asked = Wish(0.6, free.uniforms, fixed, tokens)
    _, soft = head.read(hidden, [asked])
    _, plain = head.read(hidden, [free])
    assert torch.equal(soft[0, 3], table[11] * 2)
    assert torch.equal(soft[0, 4:], plain[0, 4:])


def test_each_canvas_is_read_at_its_own_temperature(
    table: torch.Tensor, hidden: torch.Tensor
) -> None:
    """Canvases of a batch are at different steps, and use one buffer in turn."""
    head = Head(table, torch.tensor(1.0), SOFTCAP, canvas_tokens=LENGTH)
    cold, warm = wish(), Wish(1.5, wish().uniforms, wish().fixed, wish().tokens)
    [first, second], soft = head.read(hidden.expand(2, -1, -1).contiguous(), [cold, warm])
    [alone], alone_soft = head.read(hidden, [warm])
    assert (first.entropy < second.entropy).all()
    assert (second.entropy == alone.entropy).all()
    assert torch.equal(soft[1], alone_soft[0])


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from procfs")
def test_scratch_of_a_whole_canvas_over_gemmas_vocabulary_is_bounded() -> None:
    """With 262,144 words and 256 positions it is below 350 MB; transformers needs 2,090."""
    assert 268 < apart.alone("head_scratch") < 350
