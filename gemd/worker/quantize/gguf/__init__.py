"""Quantized GGUF files: one pass, bounded memory, equal to what llama.cpp's own quantizer makes."""

from __future__ import annotations

from gemd.worker.quantize.gguf.plan import MIXTURES
from gemd.worker.quantize.gguf.source import GgufSource
from gemd.worker.quantize.gguf.write import finished, make_gguf

__all__ = ["MIXTURES", "GgufSource", "finished", "make_gguf"]
