"""A user with a stand-in for `systemctl`, and `gemctl` that may start a daemon for them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.gemctl import Inside
from tests.support.service_desks import at_hand
from tests.support.service_managers import Desk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class ServiceHome:
    """One user.

    Attributes:
        path: The home directory.
        desk: The stand-in.
        gemctl: Runs in this process; it may start a daemon.

    """

    path: Path
    desk: Desk
    gemctl: Inside

    @property
    def unit(self) -> Path:
        """Where the unit belongs."""
        return self.path / ".config" / "systemd" / "user" / "gemd.service"

    def edit(self, old: str, new: str) -> None:
        """Change the unit by hand."""
        text = self.unit.read_text(encoding="utf-8")
        assert old in text
        self.unit.write_text(text.replace(old, new), encoding="utf-8")

    def say_no(self, script: str) -> None:
        """Let `systemctl` be this shell script from now on."""
        file = self.desk.folder / "bin" / "systemctl"
        file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")


@contextlib.contextmanager
def service_home(home: Path, environ: Mapping[str, str]) -> Iterator[ServiceHome]:
    """Such a user, with the stand-in at hand, all of whose daemons are gone afterwards.

    Args:
        home: An empty folder.
        environ: Of a `gemctl` there.

    """
    user = home / "user"
    user.mkdir(mode=0o700)
    desk = Desk(home / "desk")
    desk.install("systemctl")
    made = ServiceHome(
        user, desk, Inside({**environ, "HOME": str(user), "PATH": desk.path, "GEMD_AUTOSTART": ""})
    )
    desk.remember(unit=str(made.unit))
    try:
        with at_hand(desk):
            yield made
    finally:
        desk.kill()
        made.gemctl("stop", "--now")
