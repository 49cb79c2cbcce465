"""The denoising loop does what transformers' own `generate()` does, step for step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from gemd.worker.diffusion.head import Head
from gemd.worker.diffusion.stack import Stack
from tests.support.denoising import Course, checkpoint_of, denoise, oracle
from tests.support.tiny_diffusion import ANSWERS, TINY, UNDERTRAINED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Generating imports torch's compiler, which uses what torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")

OTHERS = [
    "What is five plus nine?",
    "zebra zebra",
    "Write a poem about the sky.",
    "Who was the first king of the moon?",
    "hello HELLO Hello",
    "Count to three.",
]
"""Questions that no training has seen: canvases take up to forty-eight steps."""


class Both:
    """One model, seen by transformers and by us; in float32, so that rounding decides nothing."""

    def __init__(self, path: Path) -> None:
        from transformers import AutoTokenizer, DiffusionGemmaForBlockDiffusion  # noqa: PLC0415

        torch.set_num_threads(1)
        self.model: Any = DiffusionGemmaForBlockDiffusion.from_pretrained(path, dtype=torch.float32)
        self.model.eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
        self.stack = Stack(checkpoint_of(self.model), slots=3, context_tokens=512)
        self.head = Head(
            self.stack.embedding,
            self.stack.embedding_scale,
            self.stack.softcap,
            canvas_tokens=self.stack.canvas_tokens,
        )
        self.ends = set(self.model.generation_config.eos_token_id)

    def prompt(self, question: str) -> list[int]:
        """Token ids of a chat of one turn."""
        tokens: list[int] = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        )["input_ids"]
        return tokens

    def compare(self, questions: Sequence[str], *, canvases: int) -> int:
        """Run both on a batch; the steps that were compared."""
        prompts = [self.prompt(question) for question in questions]
        seeds = [hash_of(question) for question in questions]
        theirs = oracle(self.model, prompts, seeds, canvases=canvases)
        ours = denoise(self.stack, self.head, prompts, seeds, canvases=canvases, ends=self.ends)
        return sum(same(*pair) for pair in zip(theirs, ours, strict=True))


def hash_of(question: str) -> int:
    """A seed for each question, the same in every run."""
    return int.from_bytes(question.encode()[-6:])


def same(theirs: Course, ours: Course) -> int:
    """Assert that two courses are one; the steps that they had.

    A row of theirs that is done waits for the slowest of its batch.
    """
    assert len(theirs.noisy) == len(ours.noisy)
    for canvas, steps in enumerate(ours.noisy):
        count = len(steps)
        assert theirs.likeliest[canvas][:count] == ours.likeliest[canvas]
        # What stands on a canvas after its last step, nobody reads.
        assert theirs.noisy[canvas][: count - 1] == steps[:-1]
        rest = theirs.likeliest[canvas][count:]
        assert all(step == ours.likeliest[canvas][-1] for step in rest)
    return ours.steps


@pytest.fixture(name="tiny", scope="module")
def _tiny() -> Both:
    return Both(TINY)


def test_one_canvas_at_a_time_is_the_same_at_every_step(tiny: Both) -> None:
    """For every question that the model knows, and some that it does not."""
    questions = [*ANSWERS, *OTHERS[:3]]
    steps = sum(tiny.compare([question], canvases=4) for question in questions)
    assert steps > 2 * len(questions)


def test_a_batch_of_three_is_the_same_at_every_step(tiny: Both) -> None:
    """With prompts of different lengths, which transformers pads and we do not."""
    known = list(ANSWERS)
    batches = [
        [known[index], known[-1 - index], OTHERS[index % len(OTHERS)]] for index in range(11)
    ]
    assert sum(tiny.compare(batch, canvases=3) for batch in batches) > 100


@pytest.mark.slow
@pytest.mark.parametrize("path", [TINY, UNDERTRAINED])
def test_canvases_that_never_settle_are_the_same_too(path: Path) -> None:
    """Forty-eight steps of noise: any difference would grow."""
    both = Both(path)
    questions = [*ANSWERS, *OTHERS]
    for question in questions:
        both.compare([question], canvases=2)
    for index in range(0, len(questions) - 2, 2):
        both.compare(questions[index : index + 3], canvases=2)
