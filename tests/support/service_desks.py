"""Stand-ins for `systemctl` and `launchctl` that answer without a process of their own."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Final
from unittest import mock

from gemd.cli.service.programs import Done, Programs
from tests.support.service_managers import launchctl, systemctl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.service_managers import Desk

_STAND_INS: Final = {"systemctl": systemctl, "launchctl": launchctl}
_TOUCHING: Final = {"start", "stop", "restart", "bootstrap", "kickstart", "kill", "bootout"}
"""What starts or ends a program: the stand-in's own process does that."""


@contextlib.contextmanager
def at_hand(desk: Desk) -> Iterator[None]:
    """`gemctl` of this process asks the stand-ins of a desk as functions.

    A start or an end of the service, and a program that a test has put in a stand-in's place,
    is run as ever.
    """
    run = Programs.run

    def ask(programs: Programs, *command: str) -> Done:
        path = programs._found(command)[0]
        name, *arguments = command
        ours = name in _STAND_INS and path == str(desk.folder / "bin" / name)
        if not ours or _TOUCHING & {*arguments} or _text(path) != desk.program(name):
            return run(programs, *command)
        stdout, stderr = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            code = _STAND_INS[name](desk, arguments)
        return Done(code, stdout.getvalue(), stderr.getvalue())

    with mock.patch.object(Programs, "run", ask):
        yield


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - a path as the shell has it
        return file.read()
