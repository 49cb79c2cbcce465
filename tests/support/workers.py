"""Scripted workers for tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemd import wire
from gemd.engine.process import WorkerProcess
from gemd.engine.spec import Ladder
from gemd.engine.worker import Worker, WorkerSpec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping

QUICK = Ladder(close_s=1, terminate_s=1, kill_s=10)
"""Long enough for a process that ends by itself on a busy machine: its rung is no accident."""


TRACE = wire.Trace(
    canvases=1,
    steps=7,
    max_steps=48,
    capped=0,
    positions=3,
    first_entropy_mean=2.5,
    first_entropy_q90=4.0,
    first_entropy_max=5.0,
    last_entropy_mean=0.1,
    last_entropy_q90=0.2,
    last_entropy_max=0.5,
    late_entropy_area=0.01,
    flips=1.5,
    late_flips=0.1,
    margin_q10=0.8,
)
"""Of an answer that settled after 7 steps."""


def load(*, max_sequences: int = 16, **script: Any) -> wire.Load:
    """A Load for the scripted engine; keywords are those of its LoadScript."""
    return wire.Load(
        path="/none", context_tokens=4096, max_sequences=max_sequences, threads=1, options=script
    )


def spec(
    *,
    model: str = "scripted",
    stall_timeout_s: float = 20,
    answer_stall_timeout_s: float = 60,
    ladder: Ladder = QUICK,
    environ: Mapping[str, str] = os.environ,
    max_sequences: int = 16,
    **script: Any,
) -> WorkerSpec:
    """A scripted worker; other keywords are those of its LoadScript."""
    return WorkerSpec(
        model=model,
        engine="scripted",
        load=load(max_sequences=max_sequences, **script),
        environ=environ,
        stall_timeout_s=stall_timeout_s,
        answer_stall_timeout_s=answer_stall_timeout_s,
        ladder=ladder,
    )


@contextlib.asynccontextmanager
async def running(worker_spec: WorkerSpec | None = None) -> AsyncIterator[Worker]:
    """A worker that is certainly gone afterwards."""
    worker = await Worker.start(worker_spec or spec())
    try:
        yield worker
    finally:
        await worker.stop(grace_s=0)


@contextlib.contextmanager
def unkillable() -> Iterator[Callable[[], None]]:
    """SIGKILL does nothing, as to a process that waits in a driver; calling this ends that."""
    kill, held = WorkerProcess.kill, []

    def hold(self: WorkerProcess) -> None:
        held.append(self)

    def release() -> None:
        WorkerProcess.kill = kill  # type: ignore[method-assign]
        for process in held:
            process.kill()

    WorkerProcess.kill = hold  # type: ignore[method-assign]
    try:
        yield release
    finally:
        release()


def generate(
    request_id: str = "r",
    *,
    deadline_seconds: float | None = None,
    max_tokens: int | None = None,
    **script: Any,
) -> wire.Generate:
    """A Generate whose prompt is a Script of these keywords."""
    return wire.Generate(
        request_id=request_id,
        prompt=wire.Prompt(text=json.dumps(script)),
        sampling=wire.Sampling(max_tokens=max_tokens),
        deadline_seconds=deadline_seconds,
    )


async def text_of(
    stream: AsyncGenerator[wire.Started | wire.Delta | wire.Canvas | wire.Finished, None],
) -> tuple[str, wire.Finished]:
    """The whole answer."""
    text = ""
    async with contextlib.aclosing(stream):
        async for message in stream:
            if isinstance(message, wire.Delta):
                text += message.text
            elif isinstance(message, wire.Finished):
                return text, message
    raise AssertionError("the stream ended without Finished")


async def eventually(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    """Wait until a condition holds, looking every 10 ms."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions of processes set no event
            await asyncio.sleep(0.01)


async def stalled(worker: Worker) -> None:
    """Wait until a scripted stall has begun."""
    await eventually(lambda: "stalled" in worker._process.lines)


def let_pass(seconds: float) -> None:
    """The running loop's clock goes forward by so much, after what is ready has run."""
    loop = asyncio.get_running_loop()

    def leap() -> None:
        before = loop.time
        loop.time = lambda: before() + seconds  # type: ignore[method-assign]

    loop.call_soon(leap)


def state_of(worker: Worker) -> str:
    """Its state; through a function, because mypy takes a property for constant."""
    return worker.state


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in {"Z", "X"}


POLL_S = 0.005


def wait_until_gone(pid: int, *, seconds: float) -> float:
    """Seconds until a process is gone; fails the test if it is not by then.

    They are counted in our own turns: a machine that lets neither of us run for a while does
    not use them up.
    """
    for turn in range(round(seconds / POLL_S)):
        if not alive(pid):
            return turn * POLL_S
        time.sleep(POLL_S)
    assert not alive(pid), f"process {pid} still runs after {seconds:g} s"
    return seconds


def descriptors() -> int:
    """How many descriptors this process has open."""
    return sum(1 for _ in Path("/dev/fd").iterdir())
