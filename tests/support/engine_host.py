"""The process around an engine, played in this one: what it says is kept, its jobs are run."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

from gemd import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.worker.host import Engine


class EngineHost:
    """A `Host` that keeps everything an engine said.

    Attributes:
        said: In order.
        progress: Of the load: phase, current, total.

    """

    def __init__(self) -> None:
        self.said: list[wire.FromWorker] = []
        self.progress: list[tuple[str, int, int]] = []
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def emit(self, message: wire.FromWorker) -> None:
        """See `Host`."""
        self.said.append(message)

    def post(self, job: Callable[[], None]) -> None:
        """See `Host`."""
        self._jobs.put(job)

    def loading(self, phase: str, current: int, total: int) -> None:
        """See `Progress`."""
        self.progress.append((phase, current, total))

    def pass_on(self, engine: Engine, message: wire.Work) -> str:
        """Let an engine accept a request, and wait until its prompt is prepared."""
        engine.accept(message)
        self._jobs.get(timeout=30)()
        return message.request_id


def chat(*turns: str, system: str | None = None) -> wire.Prompt:
    """User and assistant in turn, the user first."""
    roles = ("user", "assistant") * len(turns)
    messages = [
        wire.ChatMessage.model_validate({"role": role, "text": text})
        for role, text in zip(roles, turns, strict=False)
    ]
    if system is not None:
        messages.insert(0, wire.ChatMessage(role="system", text=system))
    return wire.Prompt(chat=tuple(messages))
