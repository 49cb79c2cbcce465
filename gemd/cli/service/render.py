"""From templates to a systemd unit and a launchd agent. Pure: no file is read or written."""

from __future__ import annotations

import plistlib
from typing import TYPE_CHECKING, Final

from gemd.cli.failures import CommandError, Exit

if TYPE_CHECKING:
    from gemd.cli.service.job import Job

LABEL: Final = "io.gemd.daemon"
UNIT: Final = "gemd.service"
_UNSAFE: Final = frozenset("\"'\\\a\b\t\n\v\f\r")
"""What systemd refuses in the name of a program, however it is written."""
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "%": "%%", "\n": "\\n", "\t": "\\t"}
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
