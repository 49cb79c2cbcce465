"""The numbers of one compute path on the tiny model that travels with gemd.

The model has learnt 16 answers by heart. It is packed in ModelOpt's layout, experts and dense
layers, so that a path computes with a layer of each packed kind.
"""

from __future__ import annotations

import functools
import json
import queue
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import torch

from gemd import wire
from gemd.worker.diffusion.checkpoint import load_checkpoint
from gemd.worker.diffusion.compute import use_path
from gemd.worker.diffusion.compute.check import error_of
from gemd.worker.diffusion.compute.paths import REFERENCE_PATH, packed_modules
from gemd.worker.diffusion.engine import DiffusionEngine
from gemd.worker.diffusion.memory import watched
from gemd.worker.diffusion.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

TINY: Final = Path(__file__).parents[1] / "tiny"
TOGETHER: Final = 4
"""Answers at a time, where they are not one by one."""
STEP_BOUND: Final = 0.05
"""Largest error of a step's logits in bfloat16 against float32, as norms. Rounding alone costs
0.003 to 0.007 here; an expert that is wrong costs more than 0.1."""

_CONTEXT_TOKENS: Final = 256
_PROMPT: Final = (2, *range(8, 24))
_STRIDE: Final = 7
"""Between the tokens of the canvas whose logits are compared, from all over the vocabulary."""
_ALL_LAYERS: Final = 99
_PATIENCE_S: Final = 60.0
"""For a prompt to be tokenized."""
_STEPS: Final = 5000
"""An engine that never ends fails instead of hanging."""


def answers() -> dict[str, str]:
    """The questions that the tiny model knows, each with its one answer."""
    known: dict[str, str] = json.loads((TINY / "answers.json").read_text(encoding="utf-8"))
    return known


def load_report(device: torch.device) -> dict[str, Any]:
    """What the tiny checkpoint consists of; loading it is the test.

    Raises:
        GemdError: It is damaged.
        OutOfMemoryError: There is no room for it.

    """
    with watched():
        checkpoint = load_checkpoint(TINY, device=device)
    return {
        "layout": checkpoint.layout,
        "parameters": checkpoint.parameters,
        "packed_modules": sum(1 for _ in packed_modules(checkpoint.decoder)),
    }


def path_reports(
    name: str, device: torch.device, *, clock: Callable[[], float]
) -> Iterator[dict[str, Any]]:
    """The numbers of a path, piece by piece, the cheapest first; none after one that is wrong.

    Args:
        name: Of the path; it can run there.
        device: Where.
        clock: Seconds, from anywhere.

    Raises:
        GemdError: The engine cannot load the model, or fails a request.
        OutOfMemoryError: There is no room.
        Exception: What compilers and drivers fail with.

    """
    with watched():
        checkpoint = load_checkpoint(TINY, device=device)
        use_path(checkpoint.decoder, name)
        error, bound = error_of(checkpoint.decoder)
        yield {"layer_error": error, "layer_bound": bound}
        if not error <= bound:
            return
        step = relative_error(logits(checkpoint), reference_logits())
        yield {"step_error": step, "step_bound": STEP_BOUND}
        if not step <= STEP_BOUND:
            return
        del checkpoint
        with Desk(name, device, clock=clock) as desk:
            known = answers()
            alone = {question: desk.ask(question)[question] for question in known}
            wrong = [question for question, answer in known.items() if alone[question] != answer]
            yield {
                "questions": len(known),
                "right": len(known) - len(wrong),
                "wrong": {question: alone[question] for question in wrong[:1]},
                "step_ms": desk.step_ms(),
            }
            together = desk.ask(*known)
            same = sum(together[question] == alone[question] for question in known)
            yield {"together": TOGETHER, "same_together": same}


@functools.cache
def reference_logits() -> torch.Tensor:
    """What every path is compared with: the reference in float32, on the processor."""
    checkpoint = load_checkpoint(TINY, device=torch.device("cpu"), dtype=torch.float32)
    use_path(checkpoint.decoder, REFERENCE_PATH)
    return logits(checkpoint)


def logits(checkpoint: Any) -> torch.Tensor:
    """Logits of one denoising step; float32 on the processor, shape (canvas, vocabulary)."""
    stack = Stack(checkpoint, slots=1, context_tokens=_CONTEXT_TOKENS)
    stack.encode(0, _PROMPT)
    canvas = torch.arange(stack.canvas_tokens, device=stack.device) * _STRIDE % stack.vocabulary
    hidden = stack.denoise([0], canvas[None], None)[0]
    with torch.inference_mode():
        raw = (hidden @ stack.embedding.T).float().cpu()
        return stack.softcap * torch.tanh(raw / stack.softcap)


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Of the first against the second, as norms; not a number where one of them is none."""
    return float((ours - theirs).norm() / theirs.norm())


class Desk:
    """The engine in this process, on one path; what it is asked, and what it says.

    Args:
        path: Name of the path.
        device: Where.
        clock: Seconds, from anywhere.
        directory: Of the model.

    """

    def __init__(
        self,
        path: str,
        device: torch.device,
        *,
        clock: Callable[[], float],
        directory: Path = TINY,
    ) -> None:
        self._clock = clock
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._said: list[wire.FromWorker] = []
        self._times: list[float] = []
        self._engine = DiffusionEngine(self, clock=clock, path=path)
        self._engine.load(
            wire.Load(
                path=str(directory),
                context_tokens=_CONTEXT_TOKENS,
                max_sequences=TOGETHER,
                gpu_layers=_ALL_LAYERS if device.type == "cuda" else 0,
                threads=1,
            ),
            lambda _phase, _done, _all: None,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def emit(self, message: wire.FromWorker) -> None:
        """See `Host`."""
        self._said.append(message)

    def post(self, job: Callable[[], None]) -> None:
        """See `Host`."""
        self._jobs.put(job)

    def ask(self, *questions: str) -> Mapping[str, str]:
        """The answers to questions that are asked at the same time.

        Raises:
            GemdError: The engine failed one of them.

        """
        self._said.clear()
        for number, question in enumerate(questions):
            turn = wire.ChatMessage(role="user", text=question)
            self._engine.accept(
                wire.Generate(
                    request_id=question,
                    prompt=wire.Prompt(chat=(turn,)),
                    sampling=wire.Sampling(seed=number),
                )
            )
            self._jobs.get(timeout=_PATIENCE_S)()
        self._run()
        found = dict.fromkeys(questions, "")
        for message in self._said:
            if isinstance(message, wire.RequestFailed):
                raise message.error.error()
            if isinstance(message, wire.Delta):
                found[message.request_id] += message.text
        return found

    def step_ms(self) -> float:
        """Milliseconds of a denoising step of one canvas so far; the middle one of all."""
        return 1000 * statistics.median(self._times)

    def _run(self) -> None:
        for number in range(_STEPS):
            began = self._clock()
            if not self._engine.step():
                return
            # The first also reads the prompt.
            if number:
                self._times.append(self._clock() - began)
        raise RuntimeError(f"the engine has not answered after {_STEPS} steps")
