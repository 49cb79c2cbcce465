"""Checkpoints of DiffusionGemma: what they hold, whether that is all, and how it is loaded."""

from __future__ import annotations

from gemd.worker.diffusion.checkpoint.config import read_config
from gemd.worker.diffusion.checkpoint.defaults import SamplerDefaults
from gemd.worker.diffusion.checkpoint.load import Checkpoint, load_checkpoint
from gemd.worker.diffusion.checkpoint.quantization import Layout

__all__ = [
    "Checkpoint",
    "Layout",
    "SamplerDefaults",
    "load_checkpoint",
    "read_config",
]
