"""The denoising loop without an engine, and transformers' own `generate()` as its oracle.

Both draw the same numbers: those of `SeededDraws`, one stream for each row and canvas.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.models.diffusion_gemma import generation_diffusion_gemma as generation

from gemd.worker.diffusion.checkpoint import Checkpoint, SamplerDefaults
from gemd.worker.diffusion.draws import SeededDraws
from gemd.worker.diffusion.head import Head, Wish
from gemd.worker.diffusion.sampler import RANDOM, Canvas, Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from gemd.worker.diffusion.sampler import Reading
    from gemd.worker.diffusion.stack import Stack


@dataclass
class Course:
    """The canvases of one row, step by step.

    Attributes:
        noisy: What the model reads next, by canvas and step.
        likeliest: The model's opinion, likewise.
        readings: All that it said; empty for the oracle.

    """

    noisy: list[list[list[int]]] = field(default_factory=list)
    likeliest: list[list[list[int]]] = field(default_factory=list)
    readings: list[list[Reading]] = field(default_factory=list)

    @property
    def answer(self) -> list[int]:
        """The last opinion on each canvas, joined."""
        return [token for canvas in self.likeliest for token in canvas[-1]]

    @property
    def steps(self) -> int:
        """Of all canvases."""
        return sum(len(canvas) for canvas in self.likeliest)


class _Random:
    """Stands in for torch's generator within `generate()`: a stream for each row and canvas."""

    def __init__(self, seeds: Sequence[int], vocabulary: int) -> None:
        self.seeds = seeds
        self.vocabulary = vocabulary
        self.canvas = -1
        self.drawing = False
        self.streams: list[SeededDraws] = []

    def randint(self, *, size: tuple[int, int], **_: Any) -> torch.Tensor:
        """A starting canvas, or new noise after tokens were drawn."""
        if not self.drawing:
            self.canvas += 1
            self.streams = [SeededDraws(seed, 0, self.canvas) for seed in self.seeds]
        self.drawing = False
        rows = [stream.noise(size[1], self.vocabulary) for stream in self.streams]
        return torch.from_numpy(np.stack(rows))

    def multinomial(self, probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
        """Tokens by the inverse of the cumulative distribution; shape (positions, 1)."""
        assert num_samples == 1
        self.drawing = True
        count = len(probabilities) // len(self.seeds)
        uniforms = np.concatenate([stream.uniforms(count) for stream in self.streams])
        cumulative = probabilities.double().cumsum(-1)
        wanted = torch.from_numpy(uniforms).double()[:, None] * cumulative[:, -1:]
        return torch.searchsorted(cumulative, wanted, right=True)


def checkpoint_of(model: Any) -> Checkpoint:
    """Transformers' whole model as our loader would have it, without a copy."""
    encoder = model.model.encoder.language_model
    return Checkpoint(
        config=model.config,
        decoder=model.model.decoder,
        encoder_scalars=tuple(layer.layer_scalar for layer in encoder.layers),
        defaults=SamplerDefaults(),
        layout="plain",
        parameters=0,
    )


def oracle(
    model: Any, prompts: Sequence[Sequence[int]], seeds: Sequence[int], *, canvases: int
) -> list[Course]:
    """What `generate()` does with these prompts, padded on the left.

    Args:
        model: Transformers' model.
        prompts: Token ids of each row.
        seeds: Of each row.
        canvases: The most.

    """
    random = _Random(seeds, model.config.text_config.vocab_size)
    steps: list[tuple[list[list[int]], list[list[int]]]] = []
    starts: list[int] = []
    with _patched(random, steps, starts):
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(each)) + list(each) for each in prompts])
        mask = torch.tensor(
            [[0] * (longest - len(each)) + [1] * len(each) for each in prompts], dtype=torch.bool
        )
        model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=canvases * model.config.canvas_length,
            streamer=_Drafts(steps, starts),
        )
    return [_course(row, steps, starts, model.generation_config) for row in range(len(prompts))]


class _Drafts:
    """Takes the opinion of each step."""

    def __init__(self, steps: list[Any], starts: list[int]) -> None:
        self.steps = steps
        self.starts = starts

    def put(self, value: torch.Tensor) -> None:
        """The prompt, or a canvas that is done: the next step is of a new one."""
        self.starts.append(len(self.steps))

    def put_draft(self, value: torch.Tensor) -> None:
        """The likeliest canvas of a step."""
        self.steps[-1] = (self.steps[-1][0], value.tolist())

    def end(self) -> None:
        """Nothing follows."""


@contextlib.contextmanager
def _patched(random: _Random, steps: list[Any], starts: list[int]) -> Iterator[None]:
    renoise = generation.EntropyBoundSampler.renoise_canvas

    def recorded(sampler: Any, accepted: torch.Tensor, step: int) -> torch.Tensor:
        noisy: torch.Tensor = renoise(sampler, accepted, step)
        steps.append((noisy.tolist(), None))
        return noisy

    originals = torch.randint, torch.multinomial
    torch.randint, torch.multinomial = random.randint, random.multinomial  # type: ignore[assignment]
    generation.EntropyBoundSampler.renoise_canvas = recorded
    try:
        yield
    finally:
        torch.randint, torch.multinomial = originals
        generation.EntropyBoundSampler.renoise_canvas = renoise


def _course(row: int, steps: list[Any], starts: list[int], config: Any) -> Course:
    """One row's own part: it is done before the slowest row of the batch is."""
    course = Course()
    ends = set(config.eos_token_id)
    for first, last in zip(starts, [*starts[1:], len(steps)], strict=True):
        if first == last:
            continue
        likeliest = [step[1][row] for step in steps[first:last]]
        noisy = [step[0][row] for step in steps[first:last]]
        course.likeliest.append(likeliest)
        course.noisy.append(noisy)
        if ends.intersection(likeliest[-1]):
            break
    return course


def denoise(
    stack: Stack,
    head: Head,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    *,
    canvases: int,
    ends: set[int],
    schedule: Schedule | None = None,
) -> list[Course]:
    """The same with our own loop: all rows share passes, and leave as they are done.

    Args:
        stack: With a slot for each prompt.
        head: Of the same model.
        prompts: Token ids of each row.
        seeds: Of each row.
        canvases: The most.
        ends: Tokens that end an answer.
        schedule: Of every canvas.

    """
    rows = [
        _Row(stack, slot, seed, schedule or Schedule())
        for slot, seed in zip(range(len(prompts)), seeds, strict=True)
    ]
    for row, prompt in zip(rows, prompts, strict=True):
        stack.slots.cut(row.slot, 0)
        stack.encode(row.slot, prompt)
        row.open()
    while running := [row for row in rows if not row.done]:
        wishes = [row.wish() for row in running]
        tokens = torch.from_numpy(np.stack([wish.tokens for wish in wishes]))
        soft = torch.stack([row.soft for row in running])
        hidden = stack.denoise([row.slot for row in running], tokens, soft)
        readings, mixtures = head.read(hidden, wishes)
        for row, reading, mixture in zip(running, readings, mixtures, strict=True):
            row.take(reading, mixture, canvases=canvases, ends=ends)
    return [row.course for row in rows]


class _Row:
    def __init__(self, stack: Stack, slot: int, seed: int, schedule: Schedule) -> None:
        self.stack, self.slot, self.seed, self.schedule = stack, slot, seed, schedule
        self.course = Course()
        self.done = False

    def open(self) -> None:
        length = self.stack.canvas_tokens
        given: NDArray[np.int64] = np.full(length, RANDOM)
        self.canvas = Canvas.start(
            self.schedule,
            SeededDraws(self.seed, 0, len(self.course.noisy)),
            vocabulary=self.stack.vocabulary,
            given=given,
            fixed=np.zeros(length, dtype=np.bool_),
        )
        self.soft = torch.zeros(length, self.stack.embedding.shape[1], dtype=self.stack.dtype)
        for kept in (self.course.noisy, self.course.likeliest, self.course.readings):
            kept.append([])

    def wish(self) -> Wish:
        canvas = self.canvas
        return Wish(canvas.temperature, canvas.uniforms(), canvas.fixed, canvas.tokens)

    def take(self, reading: Reading, soft: torch.Tensor, *, canvases: int, ends: set[int]) -> None:
        self.canvas.take(reading)
        self.soft = soft
        self.course.noisy[-1].append(self.canvas.tokens.tolist())
        self.course.likeliest[-1].append(self.canvas.likeliest.tolist())
        self.course.readings[-1].append(reading)
        if not self.canvas.done:
            return
        tokens = self.canvas.likeliest.tolist()
        if ends.intersection(tokens) or len(self.course.noisy) == canvases:
            self.done = True
            return
        self.stack.encode(self.slot, tokens)
        self.open()
