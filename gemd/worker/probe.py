"""``python -m gemd.worker.probe``: llama.cpp's own plan of a context, without any weight.

A short-lived process, because a header is untrusted and llama.cpp's parser is C++. It loads the
header with `no_alloc`, makes contexts that allocate nothing, and reads their sizes out of the
log: the library has figures for a program in C++ only. Questions come as JSON lines on the
standard input, answers leave on the standard output in their order; when the input ends, so
does the process, whatever it is doing.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import resource
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from gemd.errors import BadModelFileError, EngineStartFailedError, GemdError
from gemd.wire.base import ErrorBody
from gemd.wire.probe import Answer, Buffer, Cache, Planned, Question

if TYPE_CHECKING:
    from collections.abc import Iterator

_MIB: Final = 1024**2
_ADDRESS_SPACE_BYTES: Final = 8 * 1024**3
"""For a library without a GPU, whose drivers reserve far more than they use."""
_CACHE: Final = re.compile(r" size = +([\d.]+) MiB \( *(\d+) cells, +(\d+) layers,")
_BUFFER: Final = re.compile(r"(\S+) +(compute|output) buffer size = +([\d.]+) MiB")


def main() -> None:
    """Answer questions until there are no more."""
    _limit(resource.RLIMIT_CORE, 0)
    probe = _Probe()
    for line in _lines():
        try:
            answer = Answer(planned=probe.ask(Question.model_validate_json(line)))
        except GemdError as error:
            answer = Answer(error=ErrorBody.of(error))
        sys.stdout.write(answer.model_dump_json(exclude_none=True) + "\n")
        sys.stdout.flush()


def _lines() -> Iterator[str]:
    """Lines of the standard input; its end ends the process."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, name="reader", daemon=True).start()
    while True:
        yield lines.get()


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    # macOS has limits that it names and does not let anybody set; a lower one is as good.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(kind, (most, hard))


class _Probe:
    def __init__(self) -> None:
        # Heavy, and to be under the limits above.
        from llama_cpp import llama_cpp as c  # noqa: PLC0415

        from gemd.worker.llama import binding, devices, params  # noqa: PLC0415

        self._c = c
        self._params = params
        self._log: list[str] = []
        binding.check_layout()
        callback = c.llama_log_callback(self._write)
        c.llama_log_set(callback, None)
        # llama.cpp keeps the callback for the life of the process.
        self._callback = callback
        c.llama_backend_init()
        self._devices = tuple(device.name for device in devices.devices())
        if not c.llama_supports_gpu_offload():
            _limit(resource.RLIMIT_AS, _ADDRESS_SPACE_BYTES)
        self._loaded: tuple[str, int, int] | None = None
        self._model: Any = None

    def _write(self, _level: int, text: bytes, _: object) -> None:
        self._log.append(text.decode("utf-8", "replace"))

    def ask(self, question: Question) -> Planned:
        """llama.cpp's plan for this context.

        Raises:
            BadModelFileError: It refuses the header.
            EngineStartFailedError: It refuses the context.

        """
        self._load(question)
        self._log.clear()
        params = self._params.context_params(
            max_sequences=question.max_sequences, threads=1, cache_type=question.cache_type
        )
        params.n_ctx = question.context_tokens
        context = self._c.llama_init_from_model(self._model, params)
        if not context:
            raise EngineStartFailedError(
                f"llama.cpp plans no context of {question.context_tokens} tokens "
                f"with a cache of {question.cache_type}",
                why=self._why(),
                metadata=question.model_dump(),
            )
        self._c.llama_free(context)
        text = "".join(self._log)
        return Planned(
            caches=tuple(
                Cache(cells=int(cells), layers=int(layers), kv_bytes=round(float(size) * _MIB))
                for size, cells, layers in _CACHE.findall(text)
            ),
            buffers=tuple(
                Buffer(name=name, purpose=purpose, size_bytes=round(float(size) * _MIB))
                for name, purpose, size in _BUFFER.findall(text)
            ),
            devices=self._devices,
        )

    def _load(self, question: Question) -> None:
        wanted = (question.path, question.gpu_layers, question.host_expert_layers)
        if wanted == self._loaded:
            return
        if self._model:
            self._c.llama_model_free(self._model)
        self._model, self._loaded = None, None
        self._log.clear()
        params = self._params.model_params(
            gpu_layers=question.gpu_layers, host_expert_layers=question.host_expert_layers
        )
        params.no_alloc = True
        params.load_mode = self._c.LLAMA_LOAD_MODE_NONE
        self._model = self._c.llama_model_load_from_file(question.path.encode(), params)
        if not self._model:
            raise BadModelFileError(
                f"llama.cpp cannot use the header of {question.path}",
                why=self._why(),
                advice=("gemctl list",),
                metadata={"path": question.path},
            )
        self._loaded = wanted

    def _why(self) -> str:
        lines = "".join(self._log).splitlines()
        said = [line for line in lines if "error" in line or "failed" in line]
        return "; ".join(said[-2:]) or "it gave no reason"


if __name__ == "__main__":
    main()
