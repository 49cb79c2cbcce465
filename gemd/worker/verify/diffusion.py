"""The checks of a DiffusionGemma checkpoint: its parts, its error, whether it loads and answers.

Needs torch and transformers, as its engine does.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from gemd import wire
from gemd.errors import GemdError
from gemd.footprint import predict_diffusion, read_diffusion
from gemd.worker.diffusion import create
from gemd.worker.diffusion.checkpoint.census import check, take_census
from gemd.worker.diffusion.checkpoint.config import read_config
from gemd.worker.diffusion.checkpoint.files import read_headers
from gemd.worker.diffusion.checkpoint.skeleton import empty_decoder, tree_of
from gemd.worker.diffusion.compute.nvfp4 import dequantize
from gemd.worker.verify import errors
from gemd.worker.verify.job import (
    CENSUS,
    NO_ALLOC_LOAD,
    SAMPLED_ERROR,
    SMOKE,
    failed,
    failing,
    passed,
)
from gemd.worker.verify.probe_text import QUESTIONS
from gemd.worker.verify.smoke import ANSWER_TOKENS, CONTEXT_TOKENS, Bench, Said, check_smoke
from gemd.worker.verify.sound import unsound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from gemd.footprint.safetensors import SafetensorsHeader
    from gemd.wire.verify import CheckMade
    from gemd.worker.diffusion.checkpoint.census import Census, Stored
    from gemd.worker.verify.job import Job

ENTROPY_LIMIT: Final = 0.2
"""Nats for each position at the last step, on average: beyond it a canvas has not settled."""

_KIND: Final = "NVFP4"
_GATE_UP: Final = "gate_up"


@dataclass(frozen=True, slots=True)
class _Opened:
    """A checkpoint, its headers compared with its model."""

    files: Sequence[tuple[Path, SafetensorsHeader]]
    census: Census

    def read(self, stored: Stored, start: int = 0, count: int | None = None) -> NDArray[np.uint8]:
        """Bytes of a tensor, from so many bytes behind its beginning."""
        path, header = self.files[stored.file]
        size = stored.tensor.nbytes - start if count is None else count
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, size, header.data_offset + stored.tensor.begin + start)
        finally:
            os.close(descriptor)
        return np.frombuffer(data, np.uint8)


@dataclass(slots=True)
class _Packed:
    """The three tensors of one matrix in NVFP4."""

    owner: str
    stem: str
    expert: int | None
    part: int
    parts: int
    codes: Stored | None = None
    scales: Stored | None = None
    factor: Stored | None = None

    @property
    def name(self) -> str:
        """As the error calls it."""
        assert self.codes is not None
        return self.codes.tensor.name


class DiffusionChecks:
    """The checks of one directory, in their order; each relies on those before it.

    Args:
        job: What is to be checked.

    """

    def __init__(self, job: Job) -> None:
        self._job = job
        torch.set_num_threads(job.order.threads)

    @cached_property
    def _target(self) -> _Opened:
        return _opened(self._job.path)

    def census(self) -> Iterator[CheckMade]:
        """Every tensor of the model, once, in the right shape and type; shared global scales."""
        with failing(CENSUS):
            opened = self._target
            check(opened.census, self._job.path)
        # Ours have to load in other engines too, which multiply with both as one matrix.
        if self._job.tensors and (problem := _unshared(opened)):
            yield failed(CENSUS, problem)
            return
        yield passed(
            CENSUS,
            f"{len(opened.census.stored)} tensors of the model, "
            f"{len(opened.census.packed)} modules in NVFP4, {opened.census.nbytes} bytes",
        )

    def sampled_error(self) -> Iterator[CheckMade]:
        """Rows of every packed matrix are near the source's."""
        if self._job.source is None:
            return
        try:
            source = _opened(self._job.source)
            check(source.census, self._job.source)
        except GemdError as error:
            self._job.leave_out(SAMPLED_ERROR, f"the source cannot be read: {error}")
            return
        plain = _Plain(source)
        found = [_error(self._target, packed, plain) for packed in _packed(self._target.census)]
        if not found:
            return
        judged = errors.judge(found)
        verdict = passed if judged.passed else failed
        yield verdict(SAMPLED_ERROR, judged.detail, value=judged.value, limit=judged.limit)

    def no_alloc_load(self) -> Iterator[CheckMade]:
        """Its configuration makes a model, whose memory is known; nothing of it is allocated."""
        with failing(NO_ALLOC_LOAD):
            shape = read_diffusion(self._job.path)
        yield passed(
            NO_ALLOC_LOAD,
            f"{shape.layers} layers, a canvas of {shape.canvas} tokens, {shape.weights} bytes to "
            "load",
        )

    def smoke(self) -> Iterator[CheckMade]:
        """A real load, and canvases that settle on sound answers; or a source that is no better."""
        return check_smoke(self._job, unloadable=self._too_large, tried=self._tried)

    def _too_large(self, path: Path) -> str:
        """Why there is no memory for it; empty if there is."""
        on_gpu, free = self._job.order.device != "cpu", self._job.order.memory_bytes
        shape = read_diffusion(path)
        needed = predict_diffusion(shape, context_tokens=CONTEXT_TOKENS, gpu=on_gpu).host_peak
        return f"it takes {needed} bytes of memory, and {free} are free" if needed > free else ""

    def _tried(self, path: Path) -> CheckMade:
        """What a model's answers amount to.

        Raises:
            GemdError: It cannot be loaded.

        """
        order = self._job.order
        bench = Bench(create)
        load = wire.Load(
            path=str(path),
            context_tokens=CONTEXT_TOKENS,
            max_sequences=1,
            threads=order.threads,
            chat_template=order.chat_template,
            gpu_layers=int(order.device != "cpu"),
        )
        began = time.monotonic()
        bench.load(load)
        load_s = time.monotonic() - began
        try:
            answers = [bench.ask(_request(question)) for question in QUESTIONS]
        finally:
            bench.close()
        return verdict(answers, load_s=load_s)


def verdict(answers: Sequence[Said], *, load_s: float) -> CheckMade:
    """What the answers of a block-diffusion model amount to.

    Args:
        answers: To `QUESTIONS`.
        load_s: Seconds that the load took.

    """
    problems = []
    steps = canvases = capped = 0
    entropies = []
    for question, said in zip(QUESTIONS, answers, strict=True):
        if said.error or said.finished is None:
            return failed(SMOKE, said.error or "an answer did not come to an end")
        if trace := said.finished.trace:
            steps, canvases = steps + trace.steps, canvases + trace.canvases
            capped += trace.capped
            entropies.append(trace.last_entropy_mean)
        if problem := unsound(said.text, said.tokens):
            problems.append(f"to «{question}»: {problem}")
    counts = f"{len(answers) - len(problems)} of {len(answers)} answers are sound"
    if len(problems) > 1:
        return failed(SMOKE, f"{counts}; {problems[0]}", value=len(problems), limit=1)
    entropy = sum(entropies) / len(entropies)
    if capped == canvases or not entropy <= ENTROPY_LIMIT:
        detail = (
            f"its canvases do not settle: {capped} of {canvases} take all steps that there are, "
            f"{entropy:.3f} nats at the last"
        )
        return failed(SMOKE, detail, value=entropy, limit=ENTROPY_LIMIT)
    first = " ".join(answers[0].text.split())[:80]
    return passed(
        SMOKE,
        f"loaded in {load_s:.1f} s, {counts}, {steps / max(canvases, 1):.1f} steps for a canvas, "
        f"{entropy:.3f} nats at the last; the first: {first}",
        value=entropy,
        limit=ENTROPY_LIMIT,
    )


def _request(question: str) -> wire.Generate:
    return wire.Generate(
        request_id=question,
        prompt=wire.Prompt(chat=(wire.ChatMessage(role="user", text=question),)),
        sampling=wire.Sampling(max_tokens=ANSWER_TOKENS, seed=0),
        thinking=False,
    )


def _opened(directory: Path) -> _Opened:
    described = read_config(directory)
    files = read_headers(directory)
    tree = tree_of(empty_decoder(described.config))
    return _Opened(files, take_census([header for _, header in files], tree, described.layout))


def _packed(census: Census) -> list[_Packed]:
    """The matrices in NVFP4, each with its three tensors."""
    found: dict[tuple[str, str, int | None, int], _Packed] = {}
    for stored in census.stored:
        slot = stored.wanted.slot
        if slot.owner not in census.packed:
            continue
        stem, field = _field(slot.field)
        key = (slot.owner, stem, slot.expert, slot.part)
        packed = found.setdefault(
            key, _Packed(slot.owner, stem, slot.expert, slot.part, slot.parts)
        )
        setattr(packed, field, stored)
    return list(found.values())


def _field(field: str) -> tuple[str, str]:
    """Which matrix of its module a field is of, and which of the three tensors it is."""
    if field.startswith("weight_") or field == "global_scale":
        kinds = {"weight_packed": "codes", "weight_scale": "scales", "global_scale": "factor"}
        return "weight", kinds[field]
    stem, _, kind = field.rpartition("_")
    return f"{stem}_proj", {"packed": "codes", "scale": "scales", "global": "factor"}[kind]


def _unshared(opened: _Opened) -> str:
    """An expert or layer whose gate and up have global scales of their own; empty if none has."""
    scales: defaultdict[tuple[str, int | None], set[float]] = defaultdict(set)
    for packed in _packed(opened.census):
        assert packed.factor is not None
        if packed.stem.startswith(_GATE_UP):
            value = opened.read(packed.factor).view("<f4")[0]
            scales[packed.owner, packed.expert].add(float(value))
    for (owner, expert), values in scales.items():
        if len(values) > 1:
            which = f"{owner} [{expert}]" if expert is not None else owner
            return f"gate and up of {which} do not share their global scale: {sorted(values)}"
    return ""


def _error(target: _Opened, packed: _Packed, plain: _Plain) -> errors.MatrixError:
    """Of one matrix, by a few of its rows."""
    assert packed.codes is not None
    assert packed.scales is not None
    assert packed.factor is not None
    rows, half = packed.codes.tensor.shape
    blocks = packed.scales.tensor.shape[1]
    most = errors.FEW_ROWS if packed.expert is not None else errors.ROWS
    chosen = errors.sampled_rows(rows, most)
    codes = np.stack([target.read(packed.codes, row * half, half) for row in chosen])
    scales = np.stack([target.read(packed.scales, row * blocks, blocks) for row in chosen])
    factor = target.read(packed.factor).view("<f4").reshape(1).copy()
    if packed.factor.wanted.inverse:
        factor = np.reciprocal(factor)
    found = dequantize(
        torch.from_numpy(codes),
        torch.from_numpy(scales).view(torch.float8_e4m3fn),
        torch.from_numpy(factor),
        dtype=torch.float32,
    ).numpy()
    wanted = plain.rows(packed, chosen, rows, found.shape[1])
    return errors.MatrixError(packed.name, _KIND, errors.relative_error(found, wanted))


class _Plain:
    """The unpacked weights of a source, by the places that they fill."""

    def __init__(self, source: _Opened) -> None:
        self._source = source
        self._by_slot: dict[tuple[str, str, int | None, int], Stored] = {}
        for stored in source.census.stored:
            slot = stored.wanted.slot
            self._by_slot[slot.owner, slot.field, slot.expert, slot.part] = stored

    def rows(
        self, packed: _Packed, chosen: Sequence[int], rows: int, width: int
    ) -> NDArray[np.float32]:
        """The same rows as they were before they were packed, float32."""
        single = self._by_slot.get((packed.owner, packed.stem, packed.expert, packed.part))
        fused = self._by_slot.get((packed.owner, packed.stem, None, 0))
        stored = single or fused
        assert stored is not None, "both have been compared with one model"
        first = 0
        if single is None or packed.expert is None:
            # Experts one behind the other, and in each its parts.
            first = ((packed.expert or 0) * packed.parts + packed.part) * rows
        size = {"F32": 4}.get(stored.tensor.dtype, 2) * width
        raw = [self._source.read(stored, (first + row) * size, size) for row in chosen]
        return np.stack([_numbers(each, stored.tensor.dtype) for each in raw])


def _numbers(data: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    if dtype == "BF16":
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return data.view("<f2" if dtype == "F16" else "<f4").astype(np.float32)
