"""What is in a machine, as far as it decides which weights suit it. Values only; sizes are bytes.

A machine is this one (`inventory_of` a sample) or one that a device profile describes
(`inventory_of_table`). Unknown is None or empty, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemd.hardware.readings import DeviceKind


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU.

    Attributes:
        device: Its id in the API: ``gpu0``.
        name: As the vendor sells it.
        vendor: ``nvidia``, ``amd``, ``intel``, ``apple`` or ``other``.
        kind: Where its memory is.
        capacity_bytes: What models can have of its memory if nobody else has any: all of a
            discrete GPU's, the recommended working set of a unified one; 0 if it has none of its
            own.
        taken_bytes: What other programs hold, and what nobody knows the holder of.
        architecture: A compute capability (``8.9``) or gfx target (``gfx1100``).
        bandwidth_bytes_per_s: Of its memory.
        features: Number formats that its units compute with: ``bf16``, ``fp8``, ``fp4``.
        backends: Engine backends that it could run, best first: ``cuda``, ``vulkan``.
        drives_display: Whether a display hangs on it.
        driver_version: Of its driver.
        unusable_reason: Why nothing is placed here, in one sentence; empty if it may be.

    """

    device: str
    name: str
    vendor: str
    kind: DeviceKind
    capacity_bytes: int
    taken_bytes: int = 0
    architecture: str = ""
    bandwidth_bytes_per_s: int | None = None
    features: frozenset[str] = frozenset()
    backends: tuple[str, ...] = ()
    drives_display: bool | None = None
    driver_version: str = ""
    unusable_reason: str = ""


@dataclass(frozen=True, slots=True)
class Processor:
    """The processor with the main memory.

    Attributes:
        name: As the vendor sells it.
        architecture: ``x86_64``, ``arm64``, …
        cores: Physical ones that this process may use; 0 if unknown.
        features: Instruction sets by the kernel's names.
        ram_bytes: Main memory, within the control group's limit.
        taken_bytes: What other programs hold of it.
        bandwidth_bytes_per_s: Of main memory.
        vendor: ``amd``, ``intel``, ``apple`` or ``other``.

    """

    name: str
    architecture: str
    cores: int
    ram_bytes: int
    taken_bytes: int = 0
    features: frozenset[str] = frozenset()
    bandwidth_bytes_per_s: int | None = None
    vendor: str = "other"


@dataclass(frozen=True, slots=True)
class Inventory:
    """A machine.

    Attributes:
        processor: With the main memory.
        gpus: In the order of their ids.
        platform: ``linux`` or ``darwin``.
        name: Of the device profile; empty for this machine.

    """

    processor: Processor
    gpus: tuple[Gpu, ...] = ()
    platform: str = "linux"
    name: str = ""
