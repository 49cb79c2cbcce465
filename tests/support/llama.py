"""The llama engine in this process, driven step by step."""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import TYPE_CHECKING, TypeVar

from gemd import wire
from gemd.worker.llama.engine import LlamaEngine
from tests.support.engine_host import EngineHost, chat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

M = TypeVar("M")

STEPS = 5000
"""More decodes than any test needs; an engine that never ends fails instead of hanging."""


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""SmolLM2's template without the system turn it adds by itself, which this small a model
answers with French verse."""


def ticking(seconds: float = 0.06) -> Callable[[], float]:
    """A clock that is so much later whenever it is read.

    Every step then sends what it has, and prompts are read in pieces that do not depend on how
    fast the machine is just now.
    """
    ticks = itertools.count()
    return lambda: next(ticks) * seconds


class Bench(EngineHost):
    """A loaded engine and everything it said."""

    def __init__(
        self,
        path: Path,
        *,
        context_tokens: int = 1024,
        max_sequences: int = 4,
        chat_template: str | None = None,
        prompt_cache_bytes: int = 0,
        cache_type: wire.CacheType = "f16",
        gpu_layers: int = 0,
        host_expert_layers: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.engine = LlamaEngine(self, clock=clock)
        self.ready = self.engine.load(
            wire.Load(
                path=str(path),
                context_tokens=context_tokens,
                max_sequences=max_sequences,
                # One thread: two busy ones on a shared two-core machine fight.
                threads=1,
                chat_template=chat_template,
                prompt_cache_bytes=prompt_cache_bytes,
                cache_type=cache_type,
                gpu_layers=gpu_layers,
                host_expert_layers=host_expert_layers,
            ),
            self.loading,
        )
        self._ids = 0

    def submit(self, message: wire.Work) -> str:
        """Accept a request and wait until its prompt is prepared."""
        return self.pass_on(self.engine, message)

    def forget(self) -> None:
        """Empty the KV cache.

        What an earlier request left in it decides the sizes of the batches, and those decide
        the last digits of the logits.
        """
        for sequence in self.engine._sequences:
            self.engine._sequences.cut(sequence, 0)

    def resize(self, context_tokens: int, *, prompt_cache_bytes: int = 0) -> wire.Resized:
        """Make the context anew."""
        return self.engine.resize(
            wire.Resize(
                request_id="resize",
                context_tokens=context_tokens,
                prompt_cache_bytes=prompt_cache_bytes,
            )
        )

    def step(self) -> bool:
        """One decode."""
        return self.engine.step()

    def run(self, *messages: wire.Work) -> None:
        """Answer all of these together."""
        for message in messages:
            self.submit(message)
        for _ in range(STEPS):
            if not self.engine.step():
                return
        raise AssertionError("the engine does not come to an end")

    def generate(self, prompt: str | list[int] | wire.Prompt, **sampling: object) -> wire.Generate:
        """A request; by default for 16 greedy tokens."""
        self._ids += 1
        if isinstance(prompt, str):
            prompt = chat(prompt)
        elif isinstance(prompt, list):
            prompt = wire.Prompt(tokens=tuple(prompt))
        return wire.Generate(
            request_id=f"r{self._ids}",
            prompt=prompt,
            sampling=wire.Sampling.model_validate({"max_tokens": 16, **sampling}),
        )

    def answer(self, prompt: str | list[int] | wire.Prompt, **sampling: object) -> Answer:
        """Run one request alone."""
        request = self.generate(prompt, **sampling)
        self.run(request)
        return self.of(request)

    def of(self, message: wire.Work) -> Answer:
        """What was said about a request."""
        return Answer(
            [m for m in self.said if getattr(m, "request_id", None) == message.request_id]
        )

    def tokens(self, prompt: wire.Prompt) -> list[int]:
        """The prompt as the model reads it."""
        return self.engine._loaded.builder.build(prompt, limit=1 << 30)


class Answer:
    """The messages of one request."""

    def __init__(self, messages: list[wire.FromWorker]) -> None:
        self.messages = messages

    def all(self, kind: type[M]) -> list[M]:
        """Its messages of one kind."""
        return [m for m in self.messages if isinstance(m, kind)]

    def one(self, kind: type[M]) -> M:
        """Its only message of a kind."""
        (found,) = self.all(kind)
        return found

    @property
    def text(self) -> str:
        """All of its text."""
        return "".join(m.text for m in self.all(wire.Delta))

    @property
    def tokens(self) -> list[int]:
        """All tokens that were drawn."""
        return [token for m in self.all(wire.Delta) for token in m.tokens]

    @property
    def finished(self) -> wire.Finished:
        """How it ended."""
        return self.one(wire.Finished)


@contextlib.contextmanager
def loaded(path: Path, **options: object) -> Iterator[Bench]:
    """A bench whose model is freed afterwards."""
    bench = Bench(path, **options)  # type: ignore[arg-type] # passed through by name
    try:
        yield bench
    finally:
        bench.engine.close()
