"""AMD GPUs through the files of amdgpu and amdkfd, without a context and without ROCm.

**Whose memory it is.** The driver tells what is used. What workers hold is the larger of two
figures that count the same allocations: KFD's list (ROCm) and the process's own fdinfo (ROCm and
Vulkan). What KFD lists for other programs is theirs; what draws is in no list that can be had
cheaply, and is unknown memory, as is the driver's own. KFD lists pids of the first namespace: in
another one only fdinfo counts, and others' part is unknown.

**Where it is.** An APU's carve-out is main memory that the firmware took away. On the one APU
whose memory is fast (Strix Halo) what models can have is what the driver may map of main memory
(GTT), unless the carve-out is larger; then that is a memory of its own.

Load and power are read only while the card is awake and in use anyway: asking keeps it awake.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

from gemd.hardware.abilities import AMD_INTEGRATED, AMD_UNIFIED, backends_of, features_of
from gemd.hardware.drm import driver_version
from gemd.hardware.drm_gpus import DrmGpu, DrmGpus, on_card
from gemd.hardware.files import integer_of, line_of, names_in
from gemd.hardware.kfd import held_on, nodes
from gemd.hardware.readings import DeviceKind, DeviceReading
from gemd.hardware.split import Split, split_gpu, split_shared

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gemd.hardware.drm import Card
    from gemd.hardware.fdinfo import Held
    from gemd.hardware.kfd import Node

SMALL_BYTES: Final = 2 * 2**30
"""A card of which KFD knows nothing and that has no more is taken for an APU's carve-out; a
discrete one of this size would hold no model either."""


class _Amd(DrmGpu):
    """An AMD card."""

    def __init__(self, card: Card, still: DeviceReading, gpu_id: int | None) -> None:
        super().__init__(card, still)
        self.gpu_id = gpu_id


class AmdGpus(DrmGpus[_Amd]):
    """All GPUs of amdgpu; see `DrmGpus`."""

    vendor: ClassVar = "1002"

    def _found(self, card: Card, device: str) -> _Amd:
        node = nodes(self._root).get(card.location)
        target = "" if node is None else node.target
        kind = _kind(card, node)
        memory = "gtt" if kind is DeviceKind.UNIFIED else "vram"
        capacity = integer_of(card.device / f"mem_info_{memory}_total") or 0
        still = DeviceReading(
            device=device,
            kind=kind,
            capacity_bytes=capacity,
            free_bytes=None,
            processes=None,
            others_bytes=None,
            name=line_of(card.device / "product_name") or f"AMD {target or 'GPU'} ({card.pci_id})",
            hardware_id=card.slot,
            vendor="amd",
            architecture=target,
            driver_version=driver_version(self._root, card.driver),
            cores=0 if node is None else node.compute_units,
            features=features_of("amd", target),
            backends=backends_of("amd", target),
            bandwidth_bytes_per_s=AMD_UNIFIED.get(target, None if node is None else node.bandwidth),
            unusable_reason="" if capacity else "its driver does not tell how much memory it has",
        )
        return _Amd(card, still, None if node is None else node.gpu_id)

    def _reading(self, gpu: _Amd, held: Mapping[int, Mapping[str, Held] | None]) -> DeviceReading:
        listed = None if gpu.gpu_id is None else held_on(self._root, gpu.gpu_id)
        if not self._comparable:
            listed = None
        here = on_card(held, gpu.card)
        if gpu.still.kind is DeviceKind.UNIFIED:
            split = self._shared(gpu, listed, here)
        else:
            split = self._own(gpu, listed, here, held)
        power, utilization = _load(
            gpu.card, in_use=bool(split.processes) or bool(gpu.drives_display)
        )
        return replace(
            gpu.still,
            free_bytes=split.free,
            processes=split.processes,
            others_bytes=split.others,
            drives_display=gpu.drives_display,
            power_watts=power,
            utilization=utilization,
        )

    def _own(
        self,
        gpu: _Amd,
        listed: Mapping[int, int] | None,
        here: Mapping[int, Held | None],
        workers: Collection[int],
    ) -> Split:
        """Of a memory of its own."""
        capacity = gpu.still.capacity_bytes
        used = integer_of(gpu.card.device / "mem_info_vram_used")
        ours = {pid: None if of is None else of.local for pid, of in here.items()}
        split = split_gpu(
            capacity=capacity,
            free=None if used is None else capacity - used,
            listed={**(listed or {}), **_larger(listed or {}, ours)},
            ours=workers,
            told=True,
        )
        return split if listed is not None else replace(split, others=None)

    def _shared(
        self, gpu: _Amd, listed: Mapping[int, int] | None, here: Mapping[int, Held | None]
    ) -> Split:
        """Of main memory that the GPU may map."""
        ours = {pid: None if of is None else of.local + of.system for pid, of in here.items()}
        sizes = _larger(listed or {}, ours)
        known = {pid: size for pid, size in sizes.items() if size is not None}
        return split_shared(
            capacity=gpu.still.capacity_bytes,
            available=self._memory().available,
            processes=known if len(known) == len(sizes) else None,
        )


def _kind(card: Card, node: Node | None) -> DeviceKind:
    carved = integer_of(card.device / "mem_info_vram_total") or 0
    target = "" if node is None else node.target
    if target in AMD_UNIFIED:
        mapped = integer_of(card.device / "mem_info_gtt_total") or 0
        return DeviceKind.DISCRETE_GPU if carved > mapped else DeviceKind.UNIFIED
    if node is None:
        return DeviceKind.INTEGRATED_GPU if carved <= SMALL_BYTES else DeviceKind.DISCRETE_GPU
    is_apu = target in AMD_INTEGRATED or node.has_processor
    return DeviceKind.INTEGRATED_GPU if is_apu else DeviceKind.DISCRETE_GPU


def _larger(listed: Mapping[int, int], ours: Mapping[int, int | None]) -> dict[int, int | None]:
    """What each worker holds by whichever of both knows of more; None if neither knows."""
    return {
        pid: listed.get(pid) if size is None else max(size, listed.get(pid, 0))
        for pid, size in ours.items()
    }


def _load(card: Card, *, in_use: bool) -> tuple[float | None, float | None]:
    """Power in watts and utilization; neither of a card that would fall asleep if left alone."""
    state = line_of(card.device / "power/runtime_status") if in_use else ""
    if state not in {"active", "unsupported"}:
        return None, None
    busy = integer_of(card.device / "gpu_busy_percent")
    return _watts(card), None if busy is None else min(busy, 100) / 100


def _watts(card: Card) -> float | None:
    folder = card.device / "hwmon"
    for monitor in names_in(folder) or ():
        # The second name is that of cards whose firmware does not average.
        for name in ("power1_average", "power1_input"):
            microwatts = integer_of(folder / monitor / name)
            if microwatts is not None:
                return microwatts / 1e6
    return None
