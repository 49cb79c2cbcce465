"""``python -m tests.support.head_scratch``: memory that the head takes for a whole canvas, in MB.

A process of its own, whose peak is that of nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from gemd.worker.diffusion.head import Head, Wish


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _main() -> None:
    torch.set_num_threads(1)
    table = torch.randn(262_144, 64).to(torch.bfloat16)
    hidden = torch.randn(1, 256, 64).to(torch.bfloat16)
    nothing = np.zeros(256, np.int64)
    wish = Wish(0.6, np.full(256, 0.5, np.float32), nothing.astype(np.bool_), nothing)
    # What the first product and the first draw load is no scratch.
    Head(table[:64], torch.tensor(1.0), 30.0, canvas_tokens=256).read(hidden, [wish])
    # Forget the peak so far.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    Head(table, torch.tensor(1.0), 30.0, canvas_tokens=256).read(hidden, [wish])
    json.dump((_status("VmHWM") - before) / 1e6, sys.stdout)


if __name__ == "__main__":
    _main()
