"""``python -m tests.support.llama_quantizer``: llama.cpp's own quantizer, to compare with.

A process of its own, because it takes memory as it likes, and to count that and its time.
Arguments: source, result, mixture, threads, and an importance matrix or nothing.
Prints as JSON: its exit, processor seconds, and the most anonymous memory in MiB.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def oracle(
    source: Path, result: Path, mixture: str, *, threads: int = 1, importance: Path | None = None
) -> dict[str, float]:
    """What the process says; it has succeeded."""
    arguments = [str(source), str(result), mixture, str(threads), str(importance or "")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.llama_quantizer", *arguments],
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
    )
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert said["failed"] == 0, done.stderr
    return said


def main() -> None:
    """Quantize as the arguments say."""
    from llama_cpp import llama_cpp as c  # noqa: PLC0415 - not in the process that asks

    source, result, mixture, threads, importance = sys.argv[1:]
    callback = c.llama_log_callback(lambda _level, text, _data: sys.stderr.write(text.decode()))
    c.llama_log_set(callback, ctypes.c_void_p(0))
    params = c.llama_model_quantize_default_params()
    kind = "ALL_F32" if mixture == "F32" else f"MOSTLY_{mixture}"
    params.ftype, params.nthread = getattr(c, f"LLAMA_FTYPE_{kind}"), int(threads)
    params.max_buf_size = 64 << 20
    data = _importance(c, importance) if importance else None
    if data is not None:
        params.imatrix = data
    began = time.process_time()
    failed = c.llama_model_quantize(source.encode(), result.encode(), ctypes.byref(params))
    said = {"failed": failed, "seconds": time.process_time() - began}
    sys.stdout.write(json.dumps(said) + "\n")


def _importance(c: Any, path: str) -> Any:
    """As llama-quantize reads such a file: means, and ones where nothing was counted."""
    import gguf  # noqa: PLC0415 - as above
    import numpy as np  # noqa: PLC0415 - as above

    tensors = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}
    names = [name.removesuffix(".counts") for name in tensors if name.endswith(".counts")]
    array = (c.llama_model_imatrix_data * (len(names) + 1))()
    for entry, name in zip(array, names, strict=False):
        counts = tensors[f"{name}.counts"].reshape(-1)
        rows = tensors[f"{name}.in_sum2"].reshape(counts.size, -1)
        for row, count in zip(rows, counts, strict=True):
            row[:] = row / count if count else 1
        data = np.ascontiguousarray(rows, np.float32)
        tensors[name] = data  # Kept: the struct has its address only.
        entry.name, entry.size = name.encode(), data.size
        entry.data = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    array.kept = tensors
    return array


if __name__ == "__main__":
    main()
