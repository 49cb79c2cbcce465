"""The diffusion engine in this process, driven step by step."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from gemd import wire
from gemd.worker.diffusion.engine import DiffusionEngine
from tests.support.engine_host import EngineHost, chat
from tests.support.tiny_diffusion import TINY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

M = TypeVar("M")

STEPS = 2000
"""More than any test needs; an engine that never ends fails instead of hanging."""


class Bench(EngineHost):
    """A loaded engine and everything it said."""

    def __init__(
        self,
        path: Path = TINY,
        *,
        context_tokens: int = 512,
        max_sequences: int = 4,
        gpu_layers: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.engine = DiffusionEngine(self, clock=clock)
        self.ready = self.engine.load(
            wire.Load(
                path=str(path),
                context_tokens=context_tokens,
                max_sequences=max_sequences,
                # One thread: two busy ones on a shared two-core machine fight.
                threads=1,
                gpu_layers=gpu_layers,
            ),
            self.loading,
        )
        self._ids = 0

    def limit_steps(self, most: int) -> None:
        """Let canvases of requests from here on have at most so many steps."""
        preparation = self.engine._loaded.preparation
        defaults = preparation._defaults
        schedule = replace(defaults.schedule, max_steps=most)
        preparation._defaults = replace(defaults, schedule=schedule)

    def submit(self, message: wire.Work) -> str:
        """Accept a request and wait until its prompt is prepared."""
        return self.pass_on(self.engine, message)

    def ask(self, text: str, *, seed: int = 1, **fields: Any) -> str:
        """Submit a chat of one turn, or with `prompt` something else; sampling by its fields."""
        self._ids += 1
        sampling = {
            name: fields.pop(name) for name in list(fields) if name in wire.Sampling.model_fields
        }
        values = {"prompt": chat(text), **fields}
        return self.submit(
            wire.Generate(
                request_id=f"r{self._ids}",
                sampling=wire.Sampling.model_validate({"seed": seed, **sampling}),
                **values,
            )
        )

    def run(self, *, until: Callable[[], bool] = lambda: False) -> int:
        """Step until nothing is left to do, or something is the case; the number of steps."""
        for count in range(STEPS):
            if until() or not self.engine.step():
                return count
        raise AssertionError("the engine never ends")

    def of(self, kind: type[M], request_id: str) -> list[M]:
        """What was said of a request, of one kind."""
        return [
            message
            for message in self.said
            if isinstance(message, kind) and getattr(message, "request_id", "") == request_id
        ]

    def text(self, request_id: str, candidate: int = 0) -> str:
        """The whole answer of a candidate."""
        deltas = self.of(wire.Delta, request_id)
        return "".join(delta.text for delta in deltas if delta.candidate == candidate)

    def end(self, request_id: str) -> wire.Finished:
        """The only or last end of a request, which must not have failed."""
        assert not self.of(wire.RequestFailed, request_id)
        return self.of(wire.Finished, request_id)[-1]

    def failure(self, request_id: str) -> wire.ErrorBody:
        """Why a request failed."""
        [failed] = self.of(wire.RequestFailed, request_id)
        return failed.error

    def answer(self, text: str, **fields: Any) -> str:
        """The answer to a question, with nothing else running."""
        request_id = self.ask(text, **fields)
        self.run()
        self.end(request_id)
        return self.text(request_id)


@contextlib.contextmanager
def bench(path: Path = TINY, **options: Any) -> Iterator[Bench]:
    """A bench that is closed again."""
    made = Bench(path, **options)
    try:
        yield made
    finally:
        made.engine.close()
