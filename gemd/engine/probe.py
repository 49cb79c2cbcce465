"""Asks llama.cpp what a context would take, in a process of its own that lives for it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from gemd.engine.spec import checkout_directory, worker_environment
from gemd.errors import EngineCrashedError, EngineMissingError
from gemd.wire.probe import Answer, Planned, Question

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TIMEOUT_S: Final = 30.0
"""For the start of the interpreter, the import of the library and a model's vocabulary; a plan
itself takes 0.05 s."""

_LINE_BYTES: Final = 1024 * 1024
_STDERR_BYTES: Final = 4096


async def plan(
    questions: Sequence[Question],
    *,
    environ: Mapping[str, str],
    python: str = sys.executable,
    overlay: Path | None = None,
    timeout_s: float = TIMEOUT_S,
) -> list[Planned]:
    """llama.cpp's own figures, one for each question.

    Questions with the same file and placement in a row cost one load of its header.

    Args:
        questions: About header-only files (`gemd.footprint.sparse_twin`) or whole ones.
        environ: The daemon's variables; the process gets a part of them.
        python: The interpreter.
        overlay: The directory of an engine build; None for the bundled one.
        timeout_s: For all of them together.

    Raises:
        BadModelFileError: llama.cpp refuses a header.
        EngineStartFailedError: It refuses a context.
        EngineMissingError: The process cannot be started, or has no llama.cpp.
        EngineCrashedError: It ended, or took longer than `timeout_s`.

    """
    if not questions:
        return []
    process = await _spawn(python, environ, overlay)
    try:
        async with asyncio.timeout(timeout_s):
            return await _ask(process, questions)
    except TimeoutError:
        raise EngineCrashedError(
            f"llama.cpp did not plan {questions[0].path} within {timeout_s:g} s",
            why="its planner was stopped",
            metadata={"path": questions[0].path, "timeout_s": timeout_s},
        ) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _spawn(
    python: str, environ: Mapping[str, str], overlay: Path | None
) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            python,
            # -P: nothing is imported from the working directory.
            *("-P", "-m", "gemd.worker.probe"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            cwd="/",
            env=worker_environment(environ, checkout=checkout_directory(), overlay=overlay),
            start_new_session=True,
        )
    except OSError as error:
        raise EngineMissingError(
            f"{python} cannot be started",
            why=error.strerror or str(error),
            advice=("gemctl engine list",),
            metadata={"python": python},
        ) from None


async def _ask(process: asyncio.subprocess.Process, questions: Sequence[Question]) -> list[Planned]:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    # Read all the time: a full pipe would stop the process.
    stderr = asyncio.create_task(_tail(process.stderr))
    try:
        planned = []
        for question in questions:
            line = b""
            with contextlib.suppress(ConnectionError):
                process.stdin.write(question.model_dump_json().encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
            if not line.endswith(b"\n"):
                raise _crashed(question, await process.wait(), await stderr)
            planned.append(_planned(question, line))
        return planned
    finally:
        stderr.cancel()


def _planned(question: Question, line: bytes) -> Planned:
    try:
        answer = Answer.model_validate_json(line)
    except ValidationError:
        raise EngineCrashedError(
            f"llama.cpp's planner said something else about {question.path}",
            why=line[:200].decode("utf-8", "replace"),
            metadata={"path": question.path},
        ) from None
    if answer.error is not None:
        raise answer.error.error()
    assert answer.planned is not None
    return answer.planned


async def _tail(stream: asyncio.StreamReader) -> str:
    """The end of what was written, once the writer is gone."""
    kept = b""
    while data := await stream.read(_LINE_BYTES):
        kept = (kept + data)[-_STDERR_BYTES:]
    return kept.decode("utf-8", "replace").strip()


def _crashed(question: Question, returncode: int, said: str) -> EngineCrashedError:
    how = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    return EngineCrashedError(
        f"llama.cpp's planner ended with {how} over {question.path}",
        why=said.splitlines()[-1] if said else "it said nothing",
        advice=("gemctl engine list",),
        metadata={"path": question.path, "exit_code": returncode},
    )
