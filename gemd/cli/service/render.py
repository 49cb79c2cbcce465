"""Jobs as a systemd unit and a launchd agent, and back. Pure: no file is read or written."""

from __future__ import annotations

import plistlib
import re
from typing import TYPE_CHECKING, Final
from xml.parsers.expat import ExpatError

from gemd.cli.failures import CommandError, Exit
from gemd.cli.service.job import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

LABEL: Final = "io.gemd.daemon"
UNIT: Final = "gemd.service"
_UNSAFE: Final = frozenset("\"'\\\a\b\t\n\v\f\r")
"""What systemd refuses in the name of a program, however it is written."""
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "%": "%%", "\n": "\\n", "\t": "\\t"}
_WORD: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"%%|\\(?:x([0-9a-f]{2})|(.))")
_LAST_CONTROL: Final = 0x1F
_DELETE: Final = 0x7F


def render_unit(template: str, job: Job) -> str:
    """The unit that starts a job.

    Args:
        template: `service/gemd.service`.
        job: What is to be started.

    Raises:
        CommandError: A path or a value is no UTF-8 text, which systemd refuses.

    """
    command = _started_by_shell(job.command) if _UNSAFE & set(job.command[0]) else job.command
    words = " ".join(quoted(word) for word in command)
    # Nothing of the command is a variable then. Only where it has to be said: systemd knows it
    # since 244, and in a program's path a $ could not be escaped.
    raw = ":" if any("$" in word for word in command) else ""
    variables = [f"Environment={quoted(f'{key}={value}')}" for key, value in job.environ.items()]
    content = template.replace("@COMMAND@", raw + words)
    return content.replace("@ENVIRONMENT@", "\n".join(variables) or "# (none)")


def _started_by_shell(command: tuple[str, ...]) -> tuple[str, ...]:
    """The same by way of a program whose name systemd takes; the process stays one and the same."""
    return ("/bin/sh", "-c", 'exec "$0" "$@"', *command)


def quoted(word: str) -> str:
    """A word as systemd reads it back, between double quotes: see systemd.syntax(7).

    Raises:
        CommandError: It is no UTF-8 text.

    """
    return f'"{"".join(_escaped(each) for each in _text(word))}"'


def _escaped(each: str) -> str:
    if ord(each) <= _LAST_CONTROL or ord(each) == _DELETE:
        return _ESCAPES.get(each) or f"\\x{ord(each):02x}"
    return _ESCAPES.get(each, each)


def read_unit(unit: str) -> Job | None:
    """The job of a unit as `render_unit` writes it; None if it is written in another way."""
    environ: dict[str, str] = {}
    command: tuple[str, ...] = ()
    # Not `splitlines`, which ends lines at characters that are plain ones to systemd.
    for line in unit.split("\n"):
        key, _, value = line.partition("=")
        words = tuple(_read(value.removeprefix(":")))
        if key == "Environment":
            environ |= dict(word.split("=", 1) for word in words if "=" in word)
        elif key == "ExecStart":
            command = words
    return Job(command, environ) if command else None


def _read(value: str) -> Iterator[str]:
    """Words between double quotes, without escapes."""
    for word in _WORD.findall(value):
        yield _ESCAPED.sub(_unescaped, word)


def _unescaped(found: re.Match[str]) -> str:
    if found[0] == "%%":
        return "%"
    if found[1] is not None:
        return chr(int(found[1], 16))
    return {"n": "\n", "t": "\t"}.get(found[2], found[2])


def render_agent(template: bytes, job: Job, *, log_file: str) -> str:
    """The property list of the agent that starts a job.

    Args:
        template: `service/io.gemd.daemon.plist`.
        job: What is to be started.
        log_file: Where its output goes; absolute, since launchd expands nothing.

    Raises:
        CommandError: A path or a value cannot be in a property list.

    """
    agent = plistlib.loads(template)
    agent["ProgramArguments"] = [_text(word) for word in job.command]
    agent["EnvironmentVariables"] = {key: _text(value) for key, value in job.environ.items()}
    for key in ("StandardOutPath", "StandardErrorPath"):
        agent[key] = _text(log_file)
    try:
        return plistlib.dumps(agent, sort_keys=False).decode()
    except ValueError as error:
        raise _unfit(f"{job.command} {dict(job.environ)}", str(error)) from None


def read_agent(agent: str) -> Job | None:
    """The job of a property list; None if it has none, or is none."""
    try:
        found = plistlib.loads(agent.encode(errors="surrogateescape"))
        command = tuple(map(str, found["ProgramArguments"]))
        environ = {str(key): str(value) for key, value in found["EnvironmentVariables"].items()}
    except (ValueError, LookupError, TypeError, AttributeError, ExpatError):
        return None
    return Job(command, environ) if command else None


def _text(word: str) -> str:
    try:
        word.encode()
    except UnicodeEncodeError:
        raise _unfit(word, "it is no UTF-8 text") from None
    return word


def _unfit(what: str, why: str) -> CommandError:
    shown = what.encode(errors="backslashreplace").decode()
    return CommandError(
        f"a service cannot be started with {shown!r}",
        Exit.PRECONDITION,
        why=why,
        advice=("gemd", "gemctl run 'Hello'"),
    )
