"""What `--json` prints is a contract: the shape of each command's documents is committed.

The daemon sets every field that there is, so that a shape has all keys. After a change that is
meant, renew the files in `json_shapes` and read their diff:

    UPDATE_SHAPES=1 .venv/bin/python -m pytest -n 0 tests/cli/test_cli_json_shapes.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import pytest

from gemd.cli.app import gemctl as group
from gemd.v1 import event_pb2
from tests.support.engine_wheel import copy_engine
from tests.support.filled import FilledDaemon
from tests.support.service_managers import Desk
from tests.support.shapes import difference, settled, shape, written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.gemctl import Gemctl, Inside

FOLDER: Final = Path(__file__).parent / "json_shapes"
RENEW: Final = "UPDATE_SHAPES=1 .venv/bin/python -m pytest -n 0 tests/cli/test_cli_json_shapes.py"

DOCUMENTS: Final[dict[str, list[str]]] = {
    "run": ["run", "Hi", "--model", "text"],
    "run --candidates --watch-canvas": ["run", "Hi", "--candidates", "1", "--watch-canvas"],
    "status": ["status"],
    "info": ["info"],
    "list": ["list"],
    "pull": ["pull", "text"],
    "load": ["load", "text"],
    "unload": ["unload", "text"],
    "pin": ["pin", "text"],
    "lease": ["lease", "text"],
    "lease --renew": ["lease", "--renew", "1"],
    "lease --release": ["lease", "--release", "1"],
    "lease --list": ["lease", "--list"],
    "yield": ["yield"],
    "rm": ["rm", "text", "--yes"],
    "prune": ["prune", "--yes"],
    "quantize": ["quantize", "text", "--to", "Q8_0", "--yes"],
    "verify": ["verify", "text:q4"],
    "ops list": ["ops", "list"],
    "ops watch": ["ops", "watch", "7"],
    "ops cancel": ["ops", "cancel", "7"],
    "why": ["why"],
    "feedback": ["feedback", "r-1", "good"],
    "devices": ["devices"],
    "plan": ["plan"],
    "bench": ["bench", "text", "--streams", "1", "--repeat", "1"],
    "config show": ["config", "show"],
    "doctor": ["doctor", "settings", "daemon"],
    "engine list": ["engine", "list"],
    "engine verify": ["engine", "verify"],
    "engine remove": ["engine", "remove", "llama-mine", "--yes"],
    "service status": ["service", "status"],
}
"""Forms of commands that print one document."""

STREAMS: Final[dict[str, list[str]]] = {
    "run --stream": ["run", "Hi", "--stream"],
    "events": ["events"],
}
"""Forms that print a document a line, of several kinds."""

ELSEWHERE: Final = {
    "engine install": "test_cli_engine: it compiles or downloads; its build is that of engine list",
    "logs": "test_cli_logs: the lines are those of the log, whose keys the events choose",
}
MAPS: Final = {"config show": ("settings",)}
"""Whose keys are data: a setting more is no other contract."""


@pytest.fixture
def full(socket: Path) -> Iterator[FilledDaemon]:
    """A daemon that says all there is to say."""
    with FilledDaemon(socket) as running:
        yield running


def _check(name: str, found: Any) -> None:
    """Compare with the committed file, or renew it.

    Raises:
        AssertionError: It is another shape; says which keys, and how to renew it.

    """
    file = FOLDER / f"{name.replace(' --', '-').replace(' ', '-')}.json"
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    known = json.loads(before or "null")
    # What is empty on this machine, such as the GPUs that it has, may be full on another.
    now = written(settled(found, known))
    if os.environ.get("UPDATE_SHAPES"):
        FOLDER.mkdir(exist_ok=True)
        file.write_text(now, encoding="utf-8")
        return
    changed = difference(written(settled(known, found)) if before else "", now, name=file.name)
    assert not changed, f"gemctl {name} --json has another shape:\n{changed}\n\nIf so: {RENEW}"


def _prepare(name: str, inside: Inside, home: Path, full: FilledDaemon) -> dict[str, str]:
    """What a form needs besides the daemon; more variables."""
    if name.startswith("engine "):
        copy_engine(home / ".local" / "share" / "gemd" / "engines" / "llama-mine")
    if name == "service status":
        desk = Desk(home / "desk")
        desk.install("systemctl")
        desk.remember(unit=str(home / ".config" / "systemd" / "user" / "gemd.service"))
        return {"PATH": desk.path}
    return {}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_has_the_committed_shape(
    name: str, inside: Inside, home: Path, full: FilledDaemon
) -> None:
    """Its keys and their types, whatever it says; and nothing but it is on stdout."""
    more = _prepare(name, inside, home, full)
    done = inside(*DOCUMENTS[name], "--json", GEMD_OFFLINE="true", **more)
    found = json.loads(done.stdout)
    assert set(found) != {"error"}, done.stderr
    _check(name, shape(found, maps=MAPS.get(name, ())))


@pytest.mark.parametrize("name", STREAMS)
def test_lines_have_the_committed_shapes(name: str, inside: Inside, full: FilledDaemon) -> None:
    """Each kind of line has its own; that of the error is the same everywhere."""
    done = inside(*STREAMS[name], "--json")
    _check(name, {_kind(line): shape(line) for line in map(json.loads, done.stdout.splitlines())})


def _kind(line: dict[str, Any]) -> str:
    """What a line tells: the key that none of the others has."""
    (kind,) = {*line} - {"sequence", "time"}
    return kind


def test_every_kind_of_event_is_among_the_lines() -> None:
    """One that is new gets its shape, too; a snapshot comes only where events are lost."""
    shapes = json.loads((FOLDER / "events.json").read_text(encoding="utf-8"))
    kinds = {field.name for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["payload"].fields}
    assert set(shapes) == kinds - {"snapshot"} | {"error"}


def test_a_watched_status_is_the_status_on_a_line(gemctl: Gemctl, full: FilledDaemon) -> None:
    """Each look has the shape of `gemctl status --json`, and stands on one line."""
    with gemctl.start("status", "--watch", "--interval", "0.01", "--json") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.terminate()
    for line in lines:
        _check("status", shape(json.loads(line)))


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["run", "Hi", "--stream"], ["load"], ["config", "show"]],
    ids=" ".join,
)
def test_the_error_has_one_shape(inside: Inside, arguments: list[str]) -> None:
    """Of a command, of a stream, of a wrong command line and of a wrong setting."""
    done = inside(*arguments, "--json", GEMD_SOCKET="/nowhere/s", GEMD_THREADS="many")
    _check("error", shape(json.loads(done.stdout), maps=("metadata",)))


def _commands(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name in command.list_commands(click.Context(command)):
        inner = command.get_command(click.Context(command), name)
        assert inner is not None
        yield from _commands(inner, f"{path} {name}".strip())


def test_every_command_with_json_has_a_shape() -> None:
    """A new command, or one that gets the option, cannot be without."""
    with_json = {
        path
        for path, command in _commands(group)
        if any("--json" in each.opts for each in command.params)
    }
    known = {name.partition(" --")[0] for name in (*DOCUMENTS, *STREAMS)}
    assert with_json - known - set(ELSEWHERE) == set()
    assert known - with_json == set()


NO_DATA: Final = {
    "batch": "its results are JSON lines anyway",
    "top": "a screen for people; status --watch --json is the same for programs",
    "stop": "it only says what became of the daemon",
    "completion": "a script for a shell",
    "service install": "it only says what it did",
    "service uninstall": "it only says what it did",
    "service start": "it only says what it did",
    "service stop": "it only says what it did",
    "service restart": "it only says what it did",
    "service logs": "lines as they were logged",
}


def test_every_command_that_shows_data_has_json() -> None:
    """Those without are named here, with why."""
    without = {
        path
        for path, command in _commands(group)
        if not any("--json" in each.opts for each in command.params)
    }
    assert without == set(NO_DATA)


def test_no_shape_is_left_over() -> None:
    """A file whose command has gone goes with it."""
    names = {*DOCUMENTS, *STREAMS, "error"}
    expected = {f"{each.replace(' --', '-').replace(' ', '-')}.json" for each in names}
    assert {file.name for file in FOLDER.iterdir()} == expected


def test_a_changed_key_is_told_readably(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure has the line that changed, and the command that renews the file."""
    monkeypatch.setitem(globals(), "FOLDER", tmp_path)
    monkeypatch.delenv("UPDATE_SHAPES", raising=False)
    (tmp_path / "info.json").write_text(written({"pid": "integer", "state": "string"}))
    with pytest.raises(AssertionError) as told:
        _check("info", shape({"pid": "7", "state": "x", "uptime": 1.5}))
    said = str(told.value)
    for line in ('-  "pid": "integer",', '+  "pid": "string",', '+  "uptime": "number"', RENEW):
        assert line in said
