"""Scores, vectors and drawn tokens against bare llama.cpp and numpy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gemd import wire
from tests.support.bare import Bare, bare, log_softmax
from tests.support.llama import CHATML, Bench, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

STORY = "Once upon a time there was a small fox who lived in the"
REFRAIN = "ha ha ho ha ha ho ha ha ho ha ha ho ha ha"
NEAR = 0.25
"""Logits of one position differ by less than this between batches of other sizes."""


@pytest.fixture(scope="module", params=["part", pytest.param("whole", marks=pytest.mark.slow)])
def path(request: pytest.FixtureRequest, short_smollm2: Path, smollm2: Path) -> Path:
    """Of a part of SmolLM2: both sides compute with the same, whatever that is."""
    return short_smollm2 if request.param == "part" else smollm2


@pytest.fixture(scope="module")
def used(path: Path) -> Iterator[Bench]:
    """It loaded, for all tests in whatever order."""
    with loaded(path, chat_template=CHATML) as bench:
        yield bench


@pytest.fixture
def smol(used: Bench) -> Bench:
    """The same as if it had just been loaded."""
    used.forget()
    return used


@pytest.fixture(scope="module")
def reference(path: Path) -> Iterator[Bare]:
    """The same model without anything of ours."""
    with bare(path) as built:
        yield built


@pytest.fixture(scope="module")
def gemma_reference(short_gemma3: Path) -> Iterator[Bare]:
    """Gemma 3 without anything of ours."""
    with bare(short_gemma3, outputs=64) as built:
        yield built


def _drawn(
    smol: Bench, reference: Bare, text: str, **sampling: Any
) -> tuple[list[int], list[int], NDArray[np.float32]]:
    """Prompt, answer, and the bare model's logits of every place of that very answer."""
    prompt = smol.tokens(wire.Prompt(text=text))
    answer = smol.answer(prompt, ignore_eos=False, **sampling).tokens
    logits = reference.logits([*prompt, *answer])[len(prompt) - 1 : -1]
    assert len(logits) == len(answer) > 0
    return prompt, answer, logits


def test_scores_are_the_bare_models_log_probabilities(smol: Bench, reference: Bare) -> None:
    """Log-probability, rank, entropy and alternatives of every token, for several at once."""
    prompt = wire.Prompt(text="The capital of France is")
    given = (" Paris, the city of light.", " a fish", " London")
    request = wire.Score(request_id="bare", prompt=prompt, continuations=given, alternatives=3)
    smol.run(request)
    head = smol.tokens(prompt)
    for scored in smol.of(request).one(wire.Scores).continuations:
        tokens = [token.token for token in scored.tokens]
        expected = log_softmax(reference.logits([*head, *tokens]))[len(head) - 1 : -1]
        for token, row in zip(scored.tokens, expected, strict=True):
            assert token.logprob == pytest.approx(row[token.token], abs=0.05)
            entropy = -(np.exp(row) * row).sum()
            assert token.entropy == pytest.approx(entropy, abs=0.05)
            near = (row > row[token.token] - 0.1).sum()
            assert (row > row[token.token] + 0.1).sum() <= token.rank <= near
            assert token.top[0].token == row.argmax()
            assert [other.logprob for other in token.top] == pytest.approx(
                np.sort(row)[::-1][:3], abs=0.05
            )


@pytest.mark.parametrize("text", ["A cat sat on the mat.", "Deep blue sea. " * 20])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_vectors_are_the_bare_models_hidden_states(
    smol: Bench, reference: Bare, text: str, pooling: str
) -> None:
    """Their mean, or the last one; raw and of length one; over one decode and over several."""
    states = reference.states(smol.tokens(wire.Prompt(text=text)))
    expected = states.mean(axis=0) if pooling == "mean" else states[-1]
    for normalize in (False, True):
        request = wire.Embed.model_validate(
            {
                "request_id": f"{pooling}-{len(text)}-{normalize}",
                "texts": (text,),
                "pooling": pooling,
                "normalize": normalize,
            }
        )
        smol.run(request)
        got = np.array(smol.of(request).one(wire.Embeddings).vectors[0])
        goal = expected / np.linalg.norm(expected) if normalize else expected
        assert np.linalg.norm(got - goal) < 0.03 * np.linalg.norm(goal)


def test_scores_behind_a_sliding_window_are_the_bare_models(
    short_gemma3: Path, gemma_reference: Bare
) -> None:
    """Each continuation is judged behind the same prompt, rolled back in between."""
    with loaded(short_gemma3, context_tokens=512) as bench:
        prompt = wire.Prompt(text="The capital of France is")
        request = wire.Score(
            request_id="bare", prompt=prompt, continuations=(" Paris.", " Berlin!", " Paris.")
        )
        bench.run(request)
        head = bench.tokens(prompt)
        scored = bench.of(request).one(wire.Scores).continuations
        assert scored[0] == scored[2]
        for one in scored:
            tokens = [token.token for token in one.tokens]
            expected = log_softmax(gemma_reference.logits([*head, *tokens]))[len(head) - 1 : -1]
            assert [token.logprob for token in one.tokens] == pytest.approx(
                [row[token] for row, token in zip(expected, tokens, strict=True)], abs=0.4
            )


@pytest.mark.parametrize("k", [2, 5])
def test_top_k_keeps_the_k_best(smol: Bench, reference: Bare, k: int) -> None:
    """However hot, every token is among them, and not always the first."""
    _, answer, logits = _drawn(
        smol, reference, STORY, top_k=k, temperature=50.0, seed=3, max_tokens=20
    )
    bounds = np.sort(logits, axis=1)[:, -k]
    values = logits[np.arange(len(answer)), answer]
    assert (values >= bounds - NEAR).all()
    # At this temperature each of the k is as likely as the others.
    first = (logits.argmax(axis=1) == answer).mean()
    assert first < 0.5 + 1 / k - 0.2


@pytest.mark.parametrize("p", [0.5, 0.8])
def test_top_p_keeps_the_smallest_set_that_reaches_p(
    smol: Bench, reference: Bare, p: float
) -> None:
    """The probability of all better tokens is below p, of the model's own distribution."""
    _, answer, logits = _drawn(
        smol, reference, STORY, top_p=p, temperature=50.0, seed=5, max_tokens=30
    )
    better = [
        np.exp(row[row > row[token] + NEAR]).sum()
        for row, token in zip(log_softmax(logits), answer, strict=True)
    ]
    assert max(better) < p
    assert max(better) > p / 4, "no token but the first was drawn"


@pytest.mark.parametrize("floor", [0.05, 0.3])
def test_min_p_keeps_what_comes_near_the_best(smol: Bench, reference: Bare, floor: float) -> None:
    """A token is at least that much as likely as the best one."""
    _, answer, logits = _drawn(
        smol, reference, STORY, min_p=floor, temperature=50.0, seed=7, max_tokens=20
    )
    behind = logits.max(axis=1) - logits[np.arange(len(answer)), answer]
    assert behind.max() <= -math.log(floor) + NEAR
    assert behind.max() > -math.log(floor) / 3, "no token but the first was drawn"


def _surprise(logits: NDArray[np.float32], answer: list[int], temperature: float) -> float:
    """By how many standard deviations these draws differ from what is expected at it."""
    logs = log_softmax(logits / temperature)
    weights = np.exp(logs)
    expected = (weights * logs).sum(axis=1)
    variance = (weights * logs**2).sum(axis=1) - expected**2
    got = logs[np.arange(len(answer)), answer]
    return float((got - expected).sum() / math.sqrt(variance.sum()))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_the_temperature_says(
    smol: Bench, reference: Bare, temperature: float
) -> None:
    """Sixty draws fit the distribution at this temperature and not at half or twice it."""
    _, answer, logits = _drawn(
        smol, reference, STORY, temperature=temperature, seed=11, max_tokens=60
    )
    assert abs(_surprise(logits, answer, temperature)) < 3
    assert _surprise(logits, answer, temperature / 2) < -3
    assert _surprise(logits, answer, temperature * 2) > 3


@pytest.mark.parametrize("temperature", [1e-45, 1e-38, 1e-30, 1e-6])
def test_the_smallest_temperatures_are_greedy(smol: Bench, temperature: float) -> None:
    """No draw is left where all probability is on one token.

    Logits divided by the smallest are infinite; the last token of the vocabulary won then.
    """
    prompt = smol.tokens(wire.Prompt(text=STORY))
    greedy = smol.answer(prompt, max_tokens=6).tokens

    assert greedy == smol.answer(prompt, max_tokens=6, temperature=temperature, seed=1).tokens


PENALTIES: list[dict[str, float]] = [
    {"repeat_penalty": 1.3},
    {"repeat_penalty": 0.5},
    {"frequency_penalty": 1.5},
    {"presence_penalty": 2.0},
    {"presence_penalty": -2.0},
    {"repeat_penalty": 1.2, "frequency_penalty": 0.4, "presence_penalty": 0.4},
    {"repeat_penalty": 1.5, "penalty_last_n": 3},
    {"frequency_penalty": 2.0, "penalty_last_n": -1},
    {"frequency_penalty": 2.0, "penalty_last_n": 0},
]


@pytest.mark.parametrize("options", PENALTIES, ids=str)
def test_penalties_are_those_of_the_formula(
    smol: Bench, reference: Bare, options: dict[str, float]
) -> None:
    """Prompt and answer count, within the window: each greedy token is the best that is left."""
    prompt, answer, logits = _drawn(smol, reference, REFRAIN, max_tokens=8, **options)
    window = int(options.get("penalty_last_n", 64))
    for place, (row, token) in enumerate(zip(logits, answer, strict=True)):
        before = [*prompt, *answer[:place]]
        seen = before if window < 0 else before[len(before) - min(window, len(before)) :]
        judged = row.astype(np.float64)
        for other in set(seen):
            repeat = options.get("repeat_penalty", 1.0)
            judged[other] *= repeat if judged[other] <= 0 else 1 / repeat
            judged[other] -= seen.count(other) * options.get("frequency_penalty", 0.0)
            judged[other] -= options.get("presence_penalty", 0.0)
        assert judged[token] >= judged.max() - NEAR


def test_every_penalty_changes_this_answer(smol: Bench) -> None:
    """So that the test above cannot pass without them; but for the window of nothing."""
    prompt = smol.tokens(wire.Prompt(text=REFRAIN))
    plain = smol.answer(prompt, max_tokens=8).tokens
    for options in PENALTIES:
        smol.forget()
        changed = smol.answer(prompt, max_tokens=8, **options).tokens != plain
        assert changed == (options.get("penalty_last_n") != 0), options


def test_a_bias_is_added_to_the_logit(smol: Bench, reference: Bare) -> None:
    """The second best wins with a little more than the gap, and not with a little less."""
    prompt = smol.tokens(wire.Prompt(text=STORY))
    row = reference.logits(prompt)[-1]
    best, second = (int(token) for token in np.argsort(-row)[:2])
    gap = float(row[best] - row[second])
    for bias, winner in ((gap + NEAR, second), (gap - NEAR, best)):
        answer = smol.answer(prompt, max_tokens=1, logit_bias={second: bias})
        assert answer.tokens == [winner]


def test_broken_characters_are_shown_and_all_tokens_are_counted(smol: Bench) -> None:
    """Tokens that are parts of characters, over and over, up to the last one."""
    vocabulary = smol.engine._model.vocabulary
    (flag,) = vocabulary.tokenize("\U0001f1eb", add_special=False, parse_special=False)[:1]
    piece = vocabulary.piece(flag)
    with pytest.raises(UnicodeDecodeError):
        piece.decode()
    answer = smol.answer("A flag?", max_tokens=5, logit_bias={flag: 100.0})

    assert answer.tokens == [flag] * 5
    assert answer.text == (piece * 5).decode("utf-8", "replace")
    assert answer.finished.completion_tokens == 5
