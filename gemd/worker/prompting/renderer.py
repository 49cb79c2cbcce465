"""The child process that renders a model file's chat template.

A template that came with a downloaded file is somebody else's program (llama-cpp-python's
CVE-2024-34359). Jinja's immutable sandbox keeps it from the interpreter, but no sandbox
keeps it from looping for ever or from doubling a string forty times. So it runs in a
process of its own with limits on memory and processor time, without the worker's
prompts, model or sockets, and the worker kills it when it takes too long.

Protocol: one JSON object a line. The first line on stdin is ``{"template", "bos",
"eos"}``, each later one ``{"messages", "continue", "thinking"}``; the answer to each is
``{"text"}``, ``{"refused"}`` (the template called `raise_exception`) or ``{"error"}``.
`thinking` becomes the template's `enable_thinking`, which is not defined where it is null.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jinja2 import Template, nodes
    from jinja2.parser import Parser

MEMORY_BYTES = 512 * 1024 * 1024
"""Address space of this process; an idle one takes about 40 MiB of it."""

CPU_SECONDS = 4
"""Processor time of compiling and of each rendering; the worker's own patience with a
rendering is shorter. This one ends an orphan where the kernel does not (`_die_with`)."""

OUTPUT_CHARS = 8 * 1024 * 1024


_PR_SET_PDEATHSIG = 1


class _Generation(Extension):
    """``{% generation %}`` marks what a model is trained on; the text is the same."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _RefusedError(Exception):
    """The template itself rejects these messages."""


def _refuse(message: str) -> NoReturn:
    raise _RefusedError(message)


def _now(form: str) -> str:
    # Templates that print today's date mean the user's.
    return datetime.now().astimezone().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - templates give these by position too
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    # Jinja's own filter writes for HTML: < as \u003c, and keys in order of the alphabet.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def compile_template(source: str) -> Template:
    """A template as the Hugging Face ecosystem writes them, in the immutable sandbox.

    Raises:
        Exception: It is no valid template. Besides Jinja's own errors there are those of
            Python, which compiles what Jinja has made of it.

    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        extensions=["jinja2.ext.loopcontrols", _Generation],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    return environment.from_string(source)


def render(template: Template, **variables: Any) -> str:
    """The template's output, at most `OUTPUT_CHARS` characters."""
    parts: list[str] = []
    size = 0
    for part in template.generate(**variables):
        size += len(part)
        if size > OUTPUT_CHARS:
            raise ValueError(f"it wrote more than {OUTPUT_CHARS} characters")
        parts.append(part)
    return "".join(parts)


def _answer(template: Template, start: dict[str, str], request: dict[str, Any]) -> dict[str, str]:
    thinking = request["thinking"]
    chosen = {} if thinking is None else {"enable_thinking": thinking}
    try:
        text = render(
            template,
            **chosen,
            messages=request["messages"],
            add_generation_prompt=not request["continue"],
            bos_token=start["bos"],
            eos_token=start["eos"],
            tools=None,
            documents=None,
        )
    except _RefusedError as refusal:
        return {"refused": str(refusal)[:500]}
    except MemoryError:
        return {"error": f"it used more than {MEMORY_BYTES >> 20} MiB"}
    # Whatever somebody else's program raises is an answer, never the end of this one.
    except Exception as error:  # noqa: BLE001
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    return {"text": text}


def _die_with(parent: int) -> None:
    """Tie this process to the worker: a loop would not notice that stdin has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:
        raise SystemExit(0)


def _limit_memory() -> None:
    # macOS refuses the call; there the worker's timeout is the limit.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _allow_cpu() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, hard))


def _lines() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def _write(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serve one template until stdin ends; the argument is the worker's process id."""
    _die_with(int(sys.argv[1]))
    _limit_memory()
    # Constant expressions are computed while compiling.
    _allow_cpu()
    lines = _lines()
    start = next(lines)
    try:
        template = compile_template(start["template"])
    except Exception as error:  # noqa: BLE001 - somebody else's program, as below
        _write({"error": f"{type(error).__name__}: {error}"[:500]})
        return
    _write({"text": ""})
    for request in lines:
        _allow_cpu()
        _write(_answer(template, start, request))


if __name__ == "__main__":
    main()
