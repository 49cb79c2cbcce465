"""Graphics cards as the Linux kernel lists them, and the displays that hang on them.

Names of files: the kernel's Documentation/ABI and Documentation/gpu. Nothing that is read here
wakes a card that sleeps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.hardware.files import line_of, names_in, pairs_of, text_of

if TYPE_CHECKING:
    from pathlib import Path

_CARD: Final = re.compile(r"card\d+")
_SLOT: Final = re.compile(r"([0-9a-f]{4,}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")


@dataclass(frozen=True, slots=True)
class Card:
    """A card on the PCI bus.

    Attributes:
        path: Its directory of class drm, whose ``device`` is the PCI function.
        driver: Of the kernel: ``amdgpu``, ``xe``, ``i915``.
        pci_id: Vendor and device, ``1002:744c``.
        slot: Where it is on the bus, ``0000:03:00.0``. It names the card in every list.

    """

    path: Path
    driver: str
    pci_id: str
    slot: str

    @property
    def device(self) -> Path:
        """The directory of the PCI function."""
        return self.path / "device"

    @property
    def location(self) -> tuple[int, int]:
        """Domain and bus location, as KFD numbers them; -1 if the slot is none."""
        found = _SLOT.fullmatch(self.slot)
        if found is None:
            return -1, -1
        domain, bus, device, function = (int(part, 16) for part in found.groups())
        return domain, bus << 8 | device << 3 | function

    @property
    def is_there(self) -> bool:
        """Whether the kernel still lists it there: after a reset numbers of cards can change."""
        pci_id, slot, _ = _identity(self.path)
        return (pci_id, slot) == (self.pci_id, self.slot)


def cards(root: Path, vendor: str) -> list[Card]:
    """The cards of a vendor, in the order of the bus.

    Args:
        root: Where /sys is.
        vendor: Its PCI id in hexadecimal, ``1002``.

    """
    folder = root / "sys/class/drm"
    found = []
    for name in names_in(folder) or ():
        if not _CARD.fullmatch(name):
            continue
        pci_id, slot, driver = _identity(folder / name)
        if pci_id.startswith(f"{vendor}:"):
            found.append(Card(folder / name, driver, pci_id, slot))
    return sorted(found, key=lambda card: (card.location, card.slot))


def _identity(path: Path) -> tuple[str, str, str]:
    """PCI id, slot and driver of a card; empty as far as the kernel does not tell."""
    facts = dict(pairs_of(text_of(path / "device/uevent"), "="))
    slot = facts.get("PCI_SLOT_NAME", "").lower()
    return facts.get("PCI_ID", "").lower(), slot, facts.get("DRIVER", "")


def drives_display(card: Card) -> bool | None:
    """Whether a display is plugged into it; None if no connector tells."""
    folder = card.path.parent
    connectors = [name for name in names_in(folder) or () if name.startswith(f"{card.path.name}-")]
    states = {line_of(folder / name / "status") for name in connectors}
    if "connected" in states:
        return True
    return None if states - {"disconnected"} else False


def driver_version(root: Path, driver: str) -> str:
    """Of a driver built outside the kernel its own version, otherwise the kernel's."""
    own = line_of(root / "sys/module" / driver / "version")
    kernel = line_of(root / "proc/sys/kernel/osrelease")
    return own or (f"Linux {kernel}" if kernel else "")
