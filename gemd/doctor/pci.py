"""Which display adapters are on the bus, whatever drivers there are, and who may use a device."""

from __future__ import annotations

import grp
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.hardware.files import line_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VENDORS: Final = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}
_DISPLAY: Final = ("0x0300", "0x0302", "0x0380", "0x1200")
"""Base class 03: VGA, 3D and other display controllers; 1200 is a processing accelerator."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A display adapter on the PCI bus.

    Attributes:
        address: Such as ``0000:01:00.0``.
        vendor: ``nvidia``, ``amd`` or ``intel``.
        driver: Kernel module that is bound to it; empty if none is.

    """

    address: str
    vendor: str
    driver: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A device file.

    Attributes:
        path: Of the file.
        usable: Whether this process may read and write it.
        group: Name of its group; its number if it has none.
        member: Whether the user database has this user in that group.

    """

    path: str
    usable: bool = True
    group: str = "render"
    member: bool = False


def adapters(root: Path) -> tuple[Adapter, ...]:
    """Those of the vendors whose GPUs models can run on."""
    return tuple(_adapters(root))


def _adapters(root: Path) -> Iterator[Adapter]:
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        vendor = VENDORS.get(line_of(device / "vendor"))
        if vendor is not None and line_of(device / "class").startswith(_DISPLAY):
            driver = device / "driver"
            yield Adapter(
                address=device.name,
                vendor=vendor,
                driver=os.path.basename(os.readlink(driver)) if driver.is_symlink() else "",  # noqa: PTH115, PTH119 - only the link's name
            )


def nodes(root: Path, *patterns: str) -> tuple[Node, ...]:
    """The device files below /dev that match, by name."""
    found = {path for pattern in patterns for path in (root / "dev").glob(pattern)}
    return tuple(node(path) for path in sorted(found) if not path.is_dir())


def node(path: Path) -> Node:
    """A device file as this process sees it."""
    number = path.stat().st_gid
    try:
        group = grp.getgrgid(number).gr_name
    except KeyError:
        group = str(number)
    return Node(
        path=str(path),
        usable=os.access(path, os.R_OK | os.W_OK),
        group=group,
        member=_is_member(number),
    )


def _is_member(group: int) -> bool:
    """Whether the next login of this user will be in the group."""
    import pwd  # noqa: PLC0415 - only for a device that there is

    try:
        name = pwd.getpwuid(os.getuid())
        return group in os.getgrouplist(name.pw_name, name.pw_gid)
    except (KeyError, OSError):
        return False


def is_container(root: Path) -> bool:
    """Whether this is a container, whose devices somebody outside decides on."""
    return any((root / name).exists() for name in (".dockerenv", "run/.containerenv"))
