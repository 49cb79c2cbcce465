"""``python -m gemd.worker.llama.trial``: what a build of llama.cpp is, and whether it computes.

Started by `gemd.engine.builds` with the build's directory in front of the path, in the
environment of a worker. Prints one JSON document. A foreign library can crash this process,
which is why it is one of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

from gemd.errors import GemdError

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONTEXT_TOKENS = 256
_THREADS = 2


def main() -> None:
    """Try the llama_cpp that is on the path."""
    parser = argparse.ArgumentParser(prog="gemd.worker.llama.trial", description=__doc__)
    parser.add_argument("--model", required=True, help="the trial model")
    parser.add_argument("--prompts", required=True, help="lists of token ids, as JSON")
    parser.add_argument("--steps", required=True, type=int, help="tokens to continue each with")
    parser.add_argument("--gpu-layers", required=True, type=int)
    arguments = parser.parse_args()
    report: dict[str, Any] = {}
    try:
        _describe(report)
        report["answers"] = _answers(
            arguments.model,
            json.loads(arguments.prompts),
            steps=arguments.steps,
            gpu_layers=arguments.gpu_layers,
        )
    except GemdError as error:
        report["problem"] = str(error)
    except Exception as error:  # noqa: BLE001 - whatever a foreign library does is the result
        report["problem"] = f"{type(error).__name__}: {error}"
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def _describe(report: dict[str, Any]) -> None:
    """What the library says of itself, piece by piece: the next one may be the one that fails."""
    import llama_cpp  # noqa: PLC0415 - its failure is part of the report

    # The build's directory must not hide a library of gemd's.
    import gemd.worker.host  # noqa: F401, PLC0415 - as above

    report["file"] = str(llama_cpp.__file__)
    report["version"] = str(llama_cpp.__version__)
    from llama_cpp import llama_cpp as c  # noqa: PLC0415 - as above

    from gemd.worker.llama import binding  # noqa: PLC0415 - as above
    from gemd.worker.llama.devices import devices, library  # noqa: PLC0415 - as above

    binding.check_layout()
    c.llama_backend_init()
    report["commit"] = _text(library(), "ggml_commit")
    report["ggml_version"] = _text(library(), "ggml_version")
    report["backends"] = _backends(library())
    report["devices"] = [dataclasses.asdict(device) for device in devices()]
    report["gpu_offload"] = bool(c.llama_supports_gpu_offload())


def _text(library: Any, name: str) -> str:
    """What a function without arguments says; empty if the library has none of that name."""
    if not hasattr(library, name):
        return ""
    function = getattr(library, name)
    function.restype = ctypes.c_char_p
    return (function() or b"").decode("utf-8", "replace")


def _backends(library: Any) -> list[str]:
    """Names of the backends that are compiled in, whether or not they see a device."""
    count, get = library.ggml_backend_reg_count, library.ggml_backend_reg_get
    name = library.ggml_backend_reg_name
    count.restype, get.restype, name.restype = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p
    get.argtypes, name.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    return [name(get(index)).decode("utf-8", "replace") for index in range(count())]


def _answers(
    path: str, prompts: Sequence[Sequence[int]], *, steps: int, gpu_layers: int
) -> list[list[int]]:
    """The most likely continuations of the prompts, each in a context of its own."""
    from gemd.worker.llama import binding  # noqa: PLC0415 - imports llama_cpp

    log = binding.Log()
    model = binding.Model(
        path,
        gpu_layers=gpu_layers,
        use_mmap=True,
        check_tensors=True,
        progress=lambda _: None,
        log=log,
    )
    context = binding.Context(
        model, context_tokens=_CONTEXT_TOKENS, max_sequences=1, threads=_THREADS, log=log
    )
    answers = [_continued(context, prompt, steps) for prompt in prompts]
    context.close()
    model.close()
    return answers


def _continued(context: Any, prompt: Sequence[int], steps: int) -> list[int]:
    from gemd.worker.llama.batch import Batch  # noqa: PLC0415 - imports llama_cpp

    context.clear()
    answer: list[int] = []
    position, tokens = 0, list(prompt)
    while len(answer) < steps:
        batch = Batch(len(tokens))
        batch.add(0, position, tokens, [len(tokens) - 1])
        context.decode(batch)
        position += len(tokens)
        tokens = [int(context.logits(1)[0].argmax())]
        answer += tokens
    return answer


if __name__ == "__main__":
    main()
