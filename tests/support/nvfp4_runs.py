"""Runs of the NVFP4 quantizer: over small checkpoints, and in processes that kill themselves.

``python -m tests.support.nvfp4_runs`` reads an order as JSON, does it, and kills itself with
SIGKILL at the so many-th message of progress; 0 for never. It prints its peak memory in KiB before
and after the work.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors.torch import save_file

from gemd.wire.quantize import Order
from gemd.worker.quantize.nvfp4 import Limits, make_nvfp4
from gemd.worker.quantize.nvfp4.journal import JOURNAL
from tests.support import apart
from tests.support.diffusion_headers import RELEASED, published
from tests.support.safetensors_files import entries
from tests.support.tiny_diffusion import TINY, read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.wire.quantize import Made, Progress

SMALL: Final = Limits(shard_bytes=600_000, sync_bytes=64 * 1024)
"""Four files of the tiny model, and a journal that grows every few experts."""
_PIECE: Final = 1 << 22


class StopError(Exception):
    """Ends a run from outside."""


def stopping(at: int) -> Callable[[Progress], None]:
    """Takes progress until it is enough."""
    left = iter(range(at - 1))

    def told(_: Progress) -> None:
        if next(left, None) is None:
            raise StopError

    return told


def order_of(source: Path, target: Path, **fields: Any) -> Order:
    """An order for NVFP4."""
    return Order(source=str(source), target=str(target), quantization="NVFP4", **fields)


def quietly(_: Progress) -> None:
    """Takes progress and says nothing."""


def run(
    source: Path, target: Path, *, told: Callable[[Progress], None] = quietly, **fields: Any
) -> Made:
    """Do a small order in this process."""
    return make_nvfp4(order_of(source, target, **fields), told, limits=SMALL)


def killed(source: Path, target: Path, at: int, **fields: Any) -> None:
    """Do it in a process that is killed at a message of progress."""
    given = _given(order_of(source, target, **fields), SMALL.sync_bytes, at)
    assert apart.status_of("nvfp4_runs", given) == -signal.SIGKILL


def peak_of(source: Path, target: Path, **fields: Any) -> tuple[int, int]:
    """Bytes of resident memory of a process at most: after its imports, and in the end."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.nvfp4_runs"],
        input=json.dumps(_given(order_of(source, target, **fields), Limits().sync_bytes, 0)),
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = done.stdout.split()
    return int(before) * 1024, int(after) * 1024


def content_of(folder: Path) -> dict[str, bytes]:
    """All files of a result; the journal is none of it."""
    return {
        path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != JOURNAL
    }


def write_split(target: Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write the tiny model in three files with an index; gate and up are not in the same one.

    Args:
        target: A folder that is made.
        dtype: Of all tensors.

    """
    target.mkdir(parents=True)
    tensors = read_tensors(TINY)
    places: dict[str, str] = {}
    for number, group in enumerate((".gate", "decoder", ""), 1):
        own = {k: v.to(dtype) for k, v in tensors.items() if k not in places and group in k}
        file = f"model-{number:05d}-of-00003.safetensors"
        save_file(own, target / file, metadata={"format": "pt"})
        places |= dict.fromkeys(own, file)
    index = {"metadata": {}, "weight_map": places}
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    for path in TINY.iterdir():
        if path.suffix in {".json", ".jinja"}:
            (target / path.name).write_bytes(path.read_bytes())


def write_real_experts(target: Path, experts: int) -> None:
    """Write one layer of the released model's widths, with random weights; no images.

    Args:
        target: A folder that is made.
        experts: Of the layer; twelve megabytes each.

    """
    target.mkdir(parents=True)
    config = deepcopy(RELEASED)
    config["text_config"] |= {
        "num_hidden_layers": 1,
        "layer_types": ["full_attention"],
        "num_experts": experts,
        "top_k_experts": 1,
        "vocab_size": 16384,
    }
    (target / "config.json").write_text(json.dumps(config))
    tensors = {
        name: each for name, each in published(config, "plain").items() if "vision" not in name
    }
    table = entries(tensors)
    header = json.dumps(table).encode()
    size = max(entry["data_offsets"][1] for entry in table.values())
    generator = torch.Generator().manual_seed(experts)
    with (target / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for at in range(0, size, 2 * _PIECE):
            count = min(_PIECE, (size - at) // 2)
            weights = (torch.randn(count, generator=generator) * 0.02).bfloat16()
            file.write(weights.view(torch.uint8).numpy().tobytes())


def _given(order: Order, sync_bytes: int, kill_at: int) -> dict[str, Any]:
    """What a process reads; it is killed at no message if that is 0."""
    return {"order": order.model_dump(mode="json"), "sync_bytes": sync_bytes, "kill_at": kill_at}


def _peak() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])


def _main() -> None:
    given = json.load(sys.stdin)
    order, kill_at = Order.model_validate(given["order"]), given["kill_at"]
    limits = Limits(SMALL.shard_bytes, given["sync_bytes"]) if kill_at else Limits()
    count = 0

    def told(_: Progress) -> None:
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    before = _peak()
    make_nvfp4(order, told, limits=limits)
    sys.stdout.write(f"{before} {_peak()}\n")


if __name__ == "__main__":
    _main()
