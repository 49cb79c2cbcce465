"""Predicted speed: what one step reads, over what the memory delivers. Pure.

Generating one stream is bound by memory: every token reads all weights that it uses once. What is
left of a memory's bandwidth, and what a layer costs beside its bytes, are calibrated with
published figures of the same models:

- Gemma 4 26B-A4B at four bits reads 2.3 GB a token. 128-143 tokens/s on an RTX 3090
  (936 GB/s) and 180 on an RTX 5090 (1,792 GB/s) are both 75 % of the bandwidth and 4 ms a token
  for 30 layers with experts: launching their many small kernels does not get faster with memory.
- Gemma 4 31B with 18.5 GiB of weights at 51 tokens/s on a card of 1,792 GB/s is the same 75 % and
  0.08 ms for each of 60 dense layers.
- DiffusionGemma's canvas takes 16 steps on average, each with the same kernels to launch. NVFP4
  has to be unpacked by cards without FP4 units, which leaves 65 % of the bandwidth: 1,260, 480 and
  970 tokens/s come out for an H100, an RTX 4090 and an RTX 5090; published are 1,008-1,282,
  200-450 and «700 and more».

No figure is measured on the machine at hand: that needs the model. Ratios between placements on
one machine are more certain than the figures themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.catalog.choice.values import Speed

if TYPE_CHECKING:
    from gemd.catalog.choice.values import Sized
    from gemd.footprint.memory import Placement
    from gemd.hardware.inventory import Gpu, Inventory

_EFFICIENCY: Final = {"cuda": 0.75, "hip": 0.65, "metal": 0.7, "vulkan": 0.6, "cpu": 0.6}
GPU_BACKENDS: Final = frozenset(_EFFICIENCY) - {"cpu"}
"""What engines are built for."""
_GPU_LAYER_S: Final = 0.08e-3
_EXPERT_LAYER_S: Final = 0.13e-3
_HOST_LAYER_S: Final = 0.05e-3

CANVAS_STEPS: Final = 16
"""Denoising passes of a canvas, on average over prose and code."""
_NATIVE_FP4: Final = 0.85
_UNPACKED_FP4: Final = 0.65

ASSUMED_RAM_BANDWIDTH: Final = 40 * 10**9
"""Bytes per second of a main memory that nothing is known of: two channels of DDR4-2666, less
what they lose. A plan that leans on it says so."""


def predict_speed(
    sized: Sized, placement: Placement, gpu: Gpu | None, backend: str, machine: Inventory
) -> Speed:
    """The speed of a model in a place; unknown where the GPU's bandwidth is.

    Unknown too for block diffusion on the processor.

    Args:
        sized: The model.
        placement: What of it lies where.
        gpu: The GPU that it is on; None for none.
        backend: What computes.
        machine: Whose main memory holds the rest.

    """
    reads = sized.reads(placement)
    bandwidth = None if gpu is None else gpu.bandwidth_bytes_per_s
    if reads.gpu and bandwidth is None:
        return Speed()
    if sized.canvas:
        if gpu is None:
            # The reference path computes as it is written down; no bandwidth tells its speed.
            return Speed()
        fp4 = "fp4" in gpu.features
        efficiency = _NATIVE_FP4 if fp4 else _UNPACKED_FP4
        step_s = reads.gpu / ((bandwidth or 1) * efficiency) + sized.layers * _EXPERT_LAYER_S
        canvas_s = CANVAS_STEPS * step_s
        return Speed(decode=sized.canvas / canvas_s, canvas_s=canvas_s)
    ram = machine.processor.bandwidth_bytes_per_s or ASSUMED_RAM_BANDWIDTH
    seconds = reads.host / (ram * _EFFICIENCY["cpu"]) + _fixed_s(sized, placement)
    if reads.gpu:
        seconds += reads.gpu / ((bandwidth or 1) * _EFFICIENCY[backend])
    return Speed(decode=1 / seconds)


def _fixed_s(sized: Sized, placement: Placement) -> float:
    """What the layers of one token cost beside reading their bytes."""
    # One of them is the output.
    on_gpu = max(0, min(placement.gpu_layers - 1, sized.layers))
    each = _EXPERT_LAYER_S if sized.experts else _GPU_LAYER_S
    return on_gpu * each + (sized.layers - on_gpu) * _HOST_LAYER_S
