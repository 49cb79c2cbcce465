"""Gemma 4 checkpoints in safetensors, read as what a GGUF file of them holds."""

from __future__ import annotations

from gemd.worker.quantize.gemma4.checkpoint import Gemma4Source
from gemd.worker.quantize.gemma4.config import is_gemma4

__all__ = ["Gemma4Source", "is_gemma4"]
