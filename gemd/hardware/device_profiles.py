"""Machines that are sold, as device files in a folder: one for each, named after it."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.errors import ConfigError, ResourceNotFoundError
from gemd.hardware.device_file import read_devices

if TYPE_CHECKING:
    from gemd.hardware.device_format import DeviceTable

_SUFFIX = ".toml"


def device_profiles(folder: Path) -> dict[str, DeviceTable]:
    """All of them by name, in the order of their names.

    Raises:
        ConfigError: One cannot be used.

    """
    return {file.stem: _whole(file) for file in sorted(folder.glob(f"*{_SUFFIX}"))}


def device_profile(folder: Path, name: str) -> DeviceTable:
    """The one with this name.

    Args:
        folder: Where they are.
        name: Of a profile, or an absolute path to a device file.

    Raises:
        ResourceNotFoundError: There is none. `metadata` has ``device`` and ``nearest``.
        ConfigError: It cannot be used.

    """
    path = Path(name)
    if path.is_absolute() and path.suffix == _SUFFIX:
        if not _may_exist(path):
            raise ResourceNotFoundError(
                f"there is no device file {path}",
                why="a plan for another machine needs the file that describes it",
                advice=("gemctl plan --help",),
                metadata={"device": name},
            )
        return _whole(path)
    known = sorted(file.stem for file in folder.glob(f"*{_SUFFIX}"))
    if name in known:
        return _whole(folder / f"{name}{_SUFFIX}")
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    raise ResourceNotFoundError(
        f"there is no device profile {name!r}",
        why=f"there are {', '.join(known) or 'none'}, and absolute paths of .toml files",
        advice=(*(f"gemctl plan --on {match}" for match in near), "gemctl plan --help"),
        metadata={"device": name, "nearest": ", ".join(near)},
    )


def _may_exist(path: Path) -> bool:
    """Whether there is something, or nobody may say; `Path.exists` fails for a name too long."""
    try:
        path.stat()
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _whole(file: Path) -> DeviceTable:
    """What a file says, if that is enough to plan for the machine."""
    table = read_devices(file)
    if table.ram is None or table.ram.capacity is None:
        raise ConfigError(
            f"the device file {file} cannot be used",
            why="it does not say how much RAM the machine has, which a plan needs",
            advice=(f"${{EDITOR:-vi}} {file}",),
            metadata={"file": file, "key": "ram.capacity"},
        )
    return table
