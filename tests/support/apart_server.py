"""``python -m tests.support.apart_server``: the process that those of `apart` are forked from.

Reads a question in JSON from each line of stdin, forks, and prints the fork's exit status when it
has ended. It has torch, which is slow to import, and a single thread, without which a fork could
hang. It has no Triton: each fork imports it as its environment says.
"""

from __future__ import annotations

import gc
import io
import json
import os
import runpy
import sys
import traceback
from typing import Any, Final

from gemd.worker.memory import importing

with importing():
    import torch

_WRITTEN: Final = ("answer", "errors")


class _Unchanged:
    """What the interpreter has to put back after it has changed nothing."""

    def restore(self) -> None:
        """Nothing is to do."""


def _patch_once() -> None:
    """Have Triton's language replaced once for each launch.

    The interpreter looks through the whole language again whenever a function of a kernel is
    called, finds it replaced already, and spends half of its time on that.
    """
    import triton.language as tl  # noqa: PLC0415 - as the environment says
    from triton.runtime import interpreter  # noqa: PLC0415 - as above

    patch, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    patched: set[frozenset[int]] = set()

    def patch_new(function: Any) -> Any:
        seen = frozenset(
            id(each) for each in function.__globals__.values() if each is tl or each is tl.core
        )
        if seen in patched:
            return _Unchanged()
        patched.add(seen)
        return patch(function)

    def launch_anew(self: Any, *arguments: Any, **named: Any) -> None:
        patched.clear()
        launch(self, *arguments, **named)

    interpreter._patch_lang = patch_new
    interpreter.GridExecutor.__call__ = launch_anew


def _answer(question: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(question["environment"])
    answer, errors = (os.open(question[name], os.O_WRONLY | os.O_CREAT) for name in _WRITTEN)
    os.dup2(answer, 1)
    os.dup2(errors, 2)
    # Not what has been read ahead of the next questions.
    sys.stdin = io.StringIO(question["given"])
    if "TRITON_INTERPRET" in os.environ:
        _patch_once()
    runpy.run_module(question["module"], run_name="__main__", alter_sys=True)


def _forked(line: str) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        _answer(json.loads(line))
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the test shows it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Nothing of the parent's is to be cleaned up here.
        os._exit(status)


def _main() -> None:
    torch.set_num_threads(1)
    assert "triton" not in sys.modules
    # Not to be looked through in each fork.
    gc.freeze()
    for line in sys.stdin:
        sys.stdout.write(f"{_forked(line)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
