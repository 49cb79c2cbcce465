"""Machines whose /sys and /proc are files of a test; see tests/hardware/machines/README.md."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MACHINES = Path(__file__).parents[1] / "hardware" / "machines"
FDINFO = """pos:\t0
flags:\t02100002
mnt_id:\t28
ino:\t1007
drm-driver:\t{driver}
drm-client-id:\t{client}
drm-pdev:\t{slot}
"""


def machine(name: str, folder: Path) -> Path:
    """A copy of a machine that a test may change; its root."""
    root = folder / name
    shutil.copytree(MACHINES / name, root)
    return root


def write(root: Path, file: str, content: object) -> None:
    """Replace what a file says."""
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{content}\n")


def forbid(root: Path, file: str) -> None:
    """Make a file unreadable, for the administrator too: a folder in its place fails likewise."""
    path = root / file
    path.unlink(missing_ok=True)
    path.mkdir(parents=True)


@dataclass
class Process:
    """One process of a made-up /proc."""

    root: Path
    pid: int
    _next: int = field(default=3)

    def __post_init__(self) -> None:
        for number, target in enumerate(("/dev/null", "pipe:[1]", "socket:[2]")):
            self._link(number, target)

    def open_card(
        self,
        slot: str,
        memory: Mapping[str, str],
        *,
        client: int = 1,
        driver: str = "amdgpu",
        node: str = "/dev/dri/renderD128",
    ) -> int:
        """Open a card; what fdinfo says of its memory by key. Returns the descriptor."""
        number, self._next = self._next, self._next + 1
        self._link(number, node)
        lines = "".join(f"{key}:\t{value}\n" for key, value in memory.items())
        head = FDINFO.format(driver=driver, client=client, slot=slot)
        write(self.root, f"proc/{self.pid}/fdinfo/{number}", head + lines)
        return number

    def open_others(self, count: int) -> None:
        """Open so many things that are no cards."""
        for _ in range(count):
            self._link(self._next, f"/dev/shm/{self._next}")
            self._next += 1

    def _link(self, number: int, target: str) -> None:
        folder = self.root / f"proc/{self.pid}/fd"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).symlink_to(target)
