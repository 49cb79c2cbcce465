"""The commands of `gemctl`, and the one place where errors become exit codes."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from gemd import __version__
from gemd.cli.failures import CommandError, Exit, document_of, error_document
from gemd.cli.offers import files
from gemd.cli.output import Output, ReaderGoneError, StdoutFailedError
from gemd.cli.session import Session
from gemd.cli.shells import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from click.shell_completion import CompletionItem

COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": ("run", "run", "Answer PROMPT, or what is piped in."),
    "bench": ("bench", "bench", "Measure how fast MODEL answers on this machine."),
    "batch": ("batch", "batch", "Answer a file of prompts, and go on after an interruption."),
    "status": ("daemon", "status", "Show the daemon, its devices and its models."),
    "list": ("files", "list_models", "List the models of the catalogue and of the disk."),
    "pull": ("models", "pull", "Fetch MODEL and verify it."),
    "load": ("models", "load", "Make MODEL warm, so that it answers at once."),
    "unload": ("models", "unload", "Make MODEL cold and release its memory."),
    "pin": ("models", "pin", "Keep MODEL in memory once it is loaded."),
    "lease": ("lease", "lease", "Keep MODEL warm for a while."),
    "yield": ("yielding", "yield_memory", "Give memory back to other programs now."),
    "rm": ("files", "remove", "Remove the files of MODEL from this machine."),
    "quantize": (
        "quantize",
        "quantize",
        "Make a smaller variant of MODEL, or of the weights at PATH, and verify it.",
    ),
    "prune": ("files", "prune", "Remove what nobody needs."),
    "verify": ("verify", "verify", "Check the files of MODEL, or of all models on disk."),
    "ops": ("ops", "ops", "See, follow and cancel downloads and other long work."),
    "why": ("why", "why", "Show what was decided about models or a request, and why."),
    "feedback": (
        "feedback",
        "feedback",
        "Tell whether an answer was good, so that drafts are judged better.",
    ),
    "events": ("events", "events", "Show what happens in the daemon, as it happens."),
    "logs": ("logs", "logs", "Show what the daemon has logged."),
    "top": ("top", "top", "Show the daemon on one screen, kept up to date."),
    "devices": (
        "daemon",
        "devices",
        "Show the processors, what they can and who holds their memory.",
    ),
    "doctor": ("doctor", "doctor", "Check gemd and this machine, and say how to mend them."),
    "plan": (
        "plan",
        "plan",
        "Show which weights suit this machine, where they would lie, and why.",
    ),
    "info": ("daemon", "info", "Show who the running daemon is."),
    "engine": ("engine", "engine", "List, install, verify and remove engine builds."),
    "config": ("config", "config", "Look at the settings."),
    "service": ("service", "service", "Run gemd as a service of this user."),
    "stop": ("daemon", "stop", "End the running daemon in good order."),
    "completion": ("completion", "completion", "Print the completion script of SHELL."),
}
"""Name: module, attribute, and the first line of its help, so that `--help` loads none."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What writing to standard output fails with where its file system is the reason."""


class _Commands(click.Group):
    """A group that loads a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"gemd.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # click looks for similar names among the commands that it holds, and it holds none.
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.exceptions.NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            name = ctx.invoked_subcommand
            command = self.get_command(ctx, name) if name else None
            if error.ctx is None and command is not None:
                # Found while the command's options were read, before it had a context.
                error.ctx = click.Context(command, info_name=name, parent=ctx)
            raise

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands with their help, for which none of their modules is loaded, and options."""
        from click.shell_completion import CompletionItem

        begun = [name for name in COMMANDS if name.startswith(incomplete)]
        found = [CompletionItem(name, help=COMMANDS[name][2]) for name in begun]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gemctl", message="%(prog)s %(version)s")
@click.option("--socket", metavar="PATH", shell_complete=files, help="Socket of the daemon.")
@click.pass_obj
def gemctl(session: Session, socket: str | None) -> None:
    """Run local language models through gemd, the model daemon of this desktop.

    Data goes to standard output, everything else to standard error. Exit codes: 0 ok,
    1 failure, 2 usage, 3 daemon unreachable, 4 not found, 5 does not fit, 6 precondition or
    engine, 124 deadline, 130 interrupted.
    """
    if socket is not None:
        session.flags["socket"] = os.path.abspath(socket)  # noqa: PTH100 - pathlib keeps ".."


def main() -> None:
    """Entry point of `gemctl`."""
    # gRPC's own log lines are for its developers.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if os.environ.get(VARIABLE):
        from gemd.cli.completing import answer

        sys.exit(answer(sys.argv[1:], os.environ))
    sys.exit(invoke(sys.argv[1:], os.environ))


def invoke(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one command line and return its exit code; everything it says has been written."""
    session = Session(Output.standard(environ), environ)
    try:
        return _run(arguments, session)
    except click.Abort as error:
        # click ends the line after a Ctrl-C, but not the one that ends with its own question.
        if error.__cause__ is None:
            session.output.note("")
        return Exit.INTERRUPTED
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last stop before the interpreter's own
        return _end(error, session, arguments)


def _end(error: Exception, session: Session, arguments: Sequence[str]) -> int:
    """Say what ended the command, and return its exit code."""
    output = session.output
    if isinstance(error, ReaderGoneError):
        _forget_stdout()
        return Exit.READER_GONE
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        output.note(error.format_message())
        return Exit.USAGE
    unwritable = _unwritable(error)
    if unwritable is not None:
        _forget_stdout()
        output.failure("standard output cannot be written", why=unwritable)
        return Exit.FAILURE
    told = _document(error, output)
    content = told["error"]
    output.failure(content["message"], why=content["why"], advice=content["advice"])
    # One that is written already says what failed, and has to stay the only one.
    if _wants_json(session, arguments) and not output.has_document:
        _print_document(told, output)
    return int(content["exit_code"])


def _wants_json(session: Session, arguments: Sequence[str]) -> bool:
    """Whether the data of the command is JSON; guessed of one whose options were not read."""
    if session.as_json is not None:
        return session.as_json
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return "--json" in arguments[:end]


def _print_document(content: dict[str, Any], output: Output) -> None:
    """The error as data; on one line, so that it can also end a stream of documents."""
    try:
        output.record(content)
    except (ReaderGoneError, StdoutFailedError):
        # What it would have said has been said on stderr.
        _forget_stdout()


def _unwritable(error: Exception) -> str | None:
    """Why standard output could not be written to, if that is what failed."""
    if isinstance(error, StdoutFailedError):
        return str(error)
    # click writes help, version and completions itself.
    if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
        return error.strerror or ""
    return None


def _run(arguments: Sequence[str], session: Session) -> int:
    for argument in arguments:
        if not _is_text(argument):
            shown = os.fsencode(argument).decode(errors="backslashreplace")
            raise click.UsageError(f"the argument '{shown}' is not UTF-8 text")
    result = gemctl.main(
        args=list(arguments), prog_name="gemctl", obj=session, standalone_mode=False
    )
    return result if isinstance(result, int) else Exit.OK


def _is_text(argument: str) -> bool:
    """Whether it has none of the surrogates that Python makes of bytes it cannot decode."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _document(error: Exception, output: Output) -> dict[str, dict[str, Any]]:
    """What is said of an error, on stderr and as data.

    Raises:
        Exception: The error itself, if it is a defect and GEMD_DEBUG wants to see where.

    """
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "gemctl"
        return error_document(error.format_message(), Exit.USAGE, advice=(f"{path} --help",))
    if isinstance(error, _expected_errors()):
        expected: Any = error
        return document_of(expected)
    if output.environ.get("GEMD_DEBUG"):
        raise error
    return error_document(
        f"unexpected {type(error).__name__}: {error}",
        Exit.FAILURE,
        why="this is a defect of gemctl",
        advice=("GEMD_DEBUG=1 gemctl …   (shows where it happened)",),
    )


def _expected_errors() -> tuple[type[Exception], ...]:
    """What a command may fail with; looked up late, since its modules are loaded late."""
    expected: list[type[Exception]] = [CommandError]
    for module, name in (
        ("gemd.errors", "GemdError"),
        ("gemd.client.errors", "GemdClientError"),
    ):
        if module in sys.modules:
            expected.append(getattr(sys.modules[module], name))
    return tuple(expected)


def _forget_stdout() -> None:
    """Keep the interpreter from failing over the closed pipe once more when it flushes."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
