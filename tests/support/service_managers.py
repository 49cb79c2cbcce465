"""`systemctl` and `launchctl` for machines that have no service manager: stand-ins on the PATH.

Each keeps what it was asked in `calls`, and really starts and ends the program of the unit or
agent; a unit's is READY when it has said so. What they understand is what gemctl asks.
"""

from __future__ import annotations

import json
import os
import plistlib
import shlex
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Desk:
    """Where a stand-in is, and what it remembers.

    Attributes:
        folder: Holds its program, its memory and its calls.

    """

    folder: Path

    def install(self, name: str) -> None:
        """Put a stand-in of this name into `bin`."""
        programs = self.folder / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        script = programs / name
        script.write_text(self.program(name), encoding="utf-8")
        script.chmod(0o755)

    def program(self, name: str) -> str:
        """What `install` writes."""
        return (
            f"#!{sys.executable}\n"
            f"import sys\n"
            f"sys.path.insert(0, {str(ROOT)!r})\n"
            f"from tests.support.service_managers import Desk, {name}\n"
            f"from pathlib import Path\n"
            f"sys.exit({name}(Desk(Path({str(self.folder)!r})), sys.argv[1:]))\n"
        )

    @property
    def path(self) -> str:
        """A PATH on which it comes first."""
        return f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"

    @property
    def calls(self) -> list[str]:
        """What was asked, in order."""
        file = self.folder / "calls"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    @property
    def changes(self) -> list[str]:
        """The same without mere questions."""
        return [call for call in self.calls if not call.startswith(("show", "print"))]

    def note(self, arguments: list[str]) -> None:
        """Keep a call."""
        with (self.folder / "calls").open("a", encoding="utf-8") as file:
            file.write(" ".join(arguments) + "\n")

    @property
    def memory(self) -> dict[str, Any]:
        """What it remembers."""
        file = self.folder / "memory.json"
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}

    def remember(self, **values: Any) -> None:
        """Change what it remembers."""
        content = json.dumps(self.memory | values)
        (self.folder / "memory.json").write_text(content, encoding="utf-8")

    @property
    def running(self) -> int:
        """The program that it started, while it runs; else 0."""
        pid = int(self.memory.get("pid", 0))
        try:
            return pid if pid and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE else 0
        except psutil.NoSuchProcess:
            return 0

    def end(self) -> None:
        """End it in good order."""
        pid = self.running
        if pid:
            os.kill(pid, signal.SIGTERM)
            wait(lambda: not self.running)
        self.remember(pid=0)

    def kill(self) -> None:
        """It is certainly gone afterwards; for the end of a test."""
        if self.running:
            os.kill(self.running, signal.SIGKILL)


def wait(over: Callable[[], bool]) -> None:
    """Return when it is over."""
    give_up = time.monotonic() + PATIENCE_S
    while not over():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def systemctl(desk: Desk, arguments: list[str]) -> int:
    """What `systemctl --user` does with one unit."""
    assert arguments.pop(0) == "--user", arguments
    desk.note(arguments)
    unit = Path(desk.memory["unit"])
    link = unit.parent / "default.target.wants" / unit.name
    match arguments:
        case ["show", "--property=UnitPath"]:
            quoted = str(unit.parent).replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
            print(f'UnitPath="{quoted}.control" "{quoted}" /etc/systemd/user')  # noqa: T201
        case ["show", _, asked]:
            state = "active" if desk.running else desk.memory.get("state", "inactive")
            facts = {
                "FragmentPath": desk.memory.get("fragment", unit if unit.exists() else ""),
                "NeedDaemonReload": desk.memory.get("stale", "no"),
                "ActiveState": state,
                "SubState": {"active": "running"}.get(state, "dead"),
                "UnitFileState": "enabled" if link.is_symlink() else "disabled",
                "MainPID": desk.running,
                "StatusText": desk.memory.get("said", ""),
                "NRestarts": 0,
            }
            names = asked.removeprefix("--property=").split(",")
            print("\n".join(f"{name}={facts[name]}" for name in names))  # noqa: T201
        case ["daemon-reload" | "reset-failed", *_]:
            pass
        case ["enable", _]:
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(unit)
        case ["disable", _]:
            link.unlink(missing_ok=True)
            link.parent.rmdir()
        case ["start", _]:
            return _start_unit(desk, unit)
        case ["stop", _]:
            desk.end()
        case ["restart", _]:
            desk.end()
            return _start_unit(desk, unit)
        case _:
            return 64
    return 0


def _start_unit(desk: Desk, unit: Path) -> int:
    environ = {name: os.environ[name] for name in ("HOME", "PATH")}
    command: list[str] = []
    for line in unit.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key == "Environment":
            name, _, content = systemd_words(value)[0].partition("=")
            environ[name] = content
        elif key == "ExecStart":
            command = systemd_words(value.removeprefix(":"))
    environ |= desk.memory.get("drop_in", {})
    address = desk.folder / "notify"
    address.unlink(missing_ok=True)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening,
        (desk.folder / "log").open("ab") as log,
    ):
        listening.bind(str(address))
        listening.settimeout(0.05)
        process = subprocess.Popen(
            command,
            env={**environ, "NOTIFY_SOCKET": str(address), "INVOCATION_ID": "a1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
        said: list[str] = []
        while "READY=1" not in said and process.poll() is None:
            try:
                said += listening.recv(65536).decode().split("\n")
            except TimeoutError:
                continue
    status = [line.removeprefix("STATUS=") for line in said if line.startswith("STATUS=")]
    failed = process.poll() is not None
    state = "failed" if failed else "active"
    desk.remember(pid=process.pid, said=status[-1] if status else "", state=state)
    if failed:
        print("Job for gemd.service failed.", file=sys.stderr)  # noqa: T201
    else:
        desk.remember(state="inactive")
    return int(failed)


def systemd_words(line: str) -> list[str]:
    """Words between double quotes, as systemd reads them: escapes, then specifiers."""
    return [word.replace("%%", "%") for word in shlex.split(line)]


def launchctl(desk: Desk, arguments: list[str]) -> int:
    """What `launchctl` does with one agent."""
    desk.note(arguments)
    domain = f"gui/{os.getuid()}"
    loaded = desk.memory.get("loaded", "")
    match arguments:
        case ["print", target] if target == domain:
            return int(desk.memory.get("headless", 0))
        case ["print", target] if target.startswith(f"{domain}/"):
            if not loaded:
                return 113
            running = desk.running
            state = "running" if running else "not running"
            pid = f"\n\tpid = {running}" if running else ""
            code = desk.memory.get("code", "(never exited)")
            print(  # noqa: T201
                f"{target} = {{\n\tstate = {state}{pid}\n\truns = 1\n\tlast exit code = {code}\n"
                "\tresource coalition = {\n\t\tstate = active\n\t}\n}"
            )
        case ["bootstrap", target, file] if target == domain and not loaded:
            desk.remember(loaded=file)
            _start_agent(desk)
        case ["kickstart", target] if target.startswith(f"{domain}/") and loaded:
            _start_agent(desk)
        case ["kill", "SIGTERM", _] if loaded:
            os.kill(desk.running, signal.SIGTERM)
        case ["bootout", _] if loaded:
            desk.end()
            desk.remember(loaded="")
        case _:
            return 5
    return 0


def _start_agent(desk: Desk) -> None:
    agent = plistlib.loads(Path(desk.memory["loaded"]).read_bytes())
    with open(agent["StandardErrorPath"], "ab") as log:  # noqa: PTH123 - a text of the plist
        process = subprocess.Popen(
            agent["ProgramArguments"],
            env={"HOME": os.environ["HOME"], **agent["EnvironmentVariables"]},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=agent["WorkingDirectory"],
            start_new_session=True,
        )
    desk.remember(pid=process.pid)
