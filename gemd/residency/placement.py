"""Where a model's weights go. So far that is main memory, and beside it a GPU that is made up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.hardware import DeviceKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.hardware import DeviceTable


def on_made_up_gpu(table: DeviceTable, estimate_bytes: int) -> Mapping[str, int]:
    """What a worker will hold of the GPU of a device file that it is placed on.

    A worker computes on the processor and its resident size stands for what it would hold of a
    GPU, times the file's scale. It goes where most is left by other programs. A GPU that is lost is
    no reason to go elsewhere in silence: where there is no other one, the load is refused for it.

    Args:
        table: The device file.
        estimate_bytes: The peak of the worker's resident size.

    Returns:
        Bytes by device; empty if the file has no GPU with memory of its own: what shares the main
        memory is counted there.

    """
    gpus = [gpu for gpu in table.gpus() if gpu.device_kind is DeviceKind.DISCRETE_GPU]
    if not gpus:
        return {}
    gpu = max(
        [each for each in gpus if not each.lost] or gpus,
        key=lambda each: each.capacity_bytes - each.others,
    )
    return {gpu.id: int(estimate_bytes * gpu.scale)}
