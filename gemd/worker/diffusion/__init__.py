"""DiffusionGemma on transformers' layers: block diffusion with every denoising step visible.

Modules, from the bottom: `checkpoint` reads weights, `compute` multiplies with packed ones,
`cache` and `stack` are the model's two passes, `head` reads logits in slices, `sampler`
and `trace` decide and judge on the host, `answer` is one answer, `engine` the loop's step. See
DESIGN.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemd.worker.host import Engine, Host


def create(host: Host) -> Engine:
    """The engine, for `gemd.worker.host`. Imports torch and transformers."""
    from gemd.worker.diffusion.engine import DiffusionEngine  # noqa: PLC0415 - heavy

    return DiffusionEngine(host)
