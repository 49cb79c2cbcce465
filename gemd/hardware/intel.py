"""Intel GPUs through the files of xe and i915, without a context.

**Whose memory it is.** Neither driver tells an ordinary user what is used of a discrete card's
memory: with xe that is a figure for administrators, and i915 as it is in the kernel shows no size
either (Intel's own build of it shows both). So what is free is unknown there, what workers hold
is known from their fdinfo, and what others hold is unknown. The size is that of the chips (xe) or
what the kernel's dmem control group says, which leaves out what the driver keeps for itself.

**Where it is.** An integrated GPU is always function 00:02 of the first bus. It has no memory of
its own, and the only facts about it are who it is and whether a display hangs on it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

from gemd.hardware.abilities import backends_of, features_of
from gemd.hardware.drm import driver_version
from gemd.hardware.drm_gpus import DrmGpu, DrmGpus, on_card
from gemd.hardware.files import integer_of, names_in, pairs_of, text_of, whole
from gemd.hardware.readings import DeviceKind, DeviceReading
from gemd.hardware.split import split_gpu

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gemd.hardware.drm import Card
    from gemd.hardware.fdinfo import Held

INTEGRATED: Final = "0000:00:02."
"""Where on the bus the GPU is that is a part of the processor."""
_TILE: Final = re.compile(r"tile\d+")


@dataclass(frozen=True, slots=True)
class _Model:
    """A card as Intel sells it."""

    name: str
    architecture: str
    bandwidth: int | None
    cores: int


_MODELS: Final = {
    # The A770 is sold with memories of two speeds.
    "56a0": _Model("Intel Arc A770", "xe-hpg", None, 32),
    "56a1": _Model("Intel Arc A750", "xe-hpg", 512 * 10**9, 28),
    "56a5": _Model("Intel Arc A380", "xe-hpg", 186 * 10**9, 8),
    "e20b": _Model("Intel Arc B580", "xe2-hpg", 456 * 10**9, 20),
    "e20c": _Model("Intel Arc B570", "xe2-hpg", 380 * 10**9, 18),
}
"""By PCI device id, from Intel's product pages: name, architecture, bandwidth, Xe cores. The
drivers show none of these."""


class IntelGpus(DrmGpus[DrmGpu]):
    """All GPUs of xe and i915; see `DrmGpus`."""

    vendor: ClassVar = "8086"

    def _found(self, card: Card, device: str) -> DrmGpu:
        integrated = card.slot.startswith(INTEGRATED)
        model = _MODELS.get(card.pci_id.partition(":")[2])
        kind = "integrated graphics" if integrated else "GPU"
        architecture = "" if model is None else model.architecture
        capacity = 0 if integrated else _capacity(self._root, card)
        untold = "" if capacity or integrated else "its driver does not tell how much memory it has"
        return DrmGpu(
            card,
            DeviceReading(
                device=device,
                kind=DeviceKind.INTEGRATED_GPU if integrated else DeviceKind.DISCRETE_GPU,
                capacity_bytes=capacity,
                free_bytes=None,
                processes={} if integrated else None,
                others_bytes=None,
                name=f"Intel {kind} ({card.pci_id})" if model is None else model.name,
                hardware_id=card.slot,
                vendor="intel",
                architecture=architecture,
                driver_version=driver_version(self._root, card.driver),
                cores=0 if model is None else model.cores,
                features=features_of("intel", architecture),
                backends=backends_of("intel", architecture),
                bandwidth_bytes_per_s=None if model is None else model.bandwidth,
                unusable_reason=untold,
            ),
        )

    def _reading(self, gpu: DrmGpu, held: Mapping[int, Mapping[str, Held] | None]) -> DeviceReading:
        if gpu.still.kind is DeviceKind.INTEGRATED_GPU:
            return replace(gpu.still, drives_display=gpu.drives_display)
        ours = on_card(held, gpu.card)
        split = split_gpu(
            capacity=gpu.still.capacity_bytes,
            free=_free(gpu.card),
            listed={pid: None if here is None else here.local for pid, here in ours.items()},
            ours=held.keys(),
            told=True,
        )
        return replace(
            gpu.still,
            free_bytes=split.free,
            processes=split.processes,
            drives_display=gpu.drives_display,
        )


def _capacity(root: Path, card: Card) -> int:
    """Of a discrete card; 0 if no driver tells."""
    tiles = [name for name in names_in(card.device) or () if _TILE.fullmatch(name)]
    sizes = (integer_of(card.device / tile / "physical_vram_size_bytes") for tile in tiles)
    total = sum(size or 0 for size in sizes)
    return total or integer_of(card.path / "lmem_total_bytes") or _region(root, card)


def _region(root: Path, card: Card) -> int:
    """What the control group for device memory says of all regions of the card."""
    regions = pairs_of(text_of(root / "sys/fs/cgroup/dmem.capacity"))
    here = f"drm/{card.slot}/vram"
    return sum(whole(size) or 0 for region, size in regions if region.startswith(here))


def _free(card: Card) -> int | None:
    """What Intel's own build of i915 shows; None for the drivers of the kernel."""
    return integer_of(card.path / "lmem_avail_bytes")
