"""DiffusionGemma's weights from bf16 to NVFP4, in the layout that vLLM and this engine load.

============ =====================================================================
layout        which tensors the result has, and what each is made of (pure)
quantization  what config.json says about them (pure)
shards        where each lies in which file (pure)
pack          codes and scales of a matrix
convert       bytes to bytes through torch, on any device
source_files  the checkpoint that is read
disk          writing that outlives a kill
journal       what is done
prepare       what is to be done
progress      how far it is
result        reading back what was written
stream        doing it
============ =====================================================================
"""

from __future__ import annotations

from gemd.worker.quantize.nvfp4.stream import Limits, make_nvfp4

__all__ = ["Limits", "make_nvfp4"]
