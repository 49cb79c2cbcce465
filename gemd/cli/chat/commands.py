"""What begins with a slash in a conversation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gemd.cli.asking import show_stats
from gemd.cli.failures import CommandError, Exit
from gemd.cli.session import model_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gemd.cli.chat.loop import Chat
    from gemd.cli.names import Names

MODES = ("fast", "balanced", "best", "exact")
OFF = "off"
"""The argument that takes a model, a mode or instructions away again."""
_WAYS_OUT = frozenset({"exit", "quit"})
"""Other names of /bye that people type without having read anything."""


def obey(chat: Chat, name: str, argument: str) -> bool:
    """Do what a slash command says; whether the conversation goes on.

    Raises:
        CommandError: There is no such command, or it cannot do that.
        GemdClientError: The daemon refused.

    """
    if name == "bye" or name in _WAYS_OUT:
        return False
    if name not in COMMANDS:
        raise CommandError(
            f"there is no command /{name}",
            Exit.USAGE,
            why="what begins with a slash is one; a blank before it makes it a message",
            advice=("/help",),
        )
    COMMANDS[name][2](chat, argument)
    return True


def words(typed: str, names: Names) -> Iterator[str]:
    """Whole texts that a beginning of a command may become."""
    if not typed.startswith("/"):
        return
    name, blank, argument = typed[1:].partition(" ")
    if not blank:
        yield from (f"/{each}" for each in (*COMMANDS, "bye") if each.startswith(name))
    elif name == "mode":
        yield from (f"/mode {each}" for each in (*MODES, OFF) if each.startswith(argument))
    elif name == "model":
        yield from (f"/model {each}" for each in names.models(argument))


def _help(chat: Chat, _: str) -> None:
    from gemd.cli.text import width

    rows = [(f"/{name} {usage}".rstrip(), line) for name, (usage, line, _) in COMMANDS.items()]
    rows.append(("/bye", "End the conversation, as Ctrl-D does."))
    columns = max(width(left) for left, _ in rows)
    for left, line in rows:
        chat.output.note(f"{left:<{columns}}  {line}")
    chat.output.note("")
    chat.output.note(
        'Enter sends. Alt-Enter, or \\ before Enter, begins another line; what begins with """\n'
        'goes on until """. Ctrl-C stops the answer, or takes back what is typed.'
    )


def _model(chat: Chat, argument: str) -> None:
    if argument == OFF:
        chat.options["model"] = None
    elif argument:
        name = model_name(argument)
        with chat.session.client(start=True) as client:
            client.model(name)
        chat.options.update(model=name, tier=None)
    chat.output.note(f"model: {chat.options['model'] or 'as gemd chooses'}")


def _mode(chat: Chat, argument: str) -> None:
    if argument and argument not in (*MODES, OFF):
        raise CommandError(
            f"there is no mode '{argument}'", Exit.USAGE, why=f"modes are {', '.join(MODES)}"
        )
    if argument:
        chat.options["mode"] = None if argument == OFF else argument
    chat.output.note(f"mode: {chat.options['mode'] or 'as gemd chooses'}")


def _system(chat: Chat, argument: str) -> None:
    if argument:
        chat.conversation.system = "" if argument == OFF else argument
    chat.output.note(f"instructions: {chat.conversation.system or 'none'}")


def _clear(chat: Chat, _: str) -> None:
    chat.conversation.clear()
    chat.output.note("what was said is forgotten")


def _save(chat: Chat, argument: str) -> None:
    file = _file(argument)
    chat.conversation.save(file)
    chat.output.note(f"{_turns(chat)} saved to {file}")


def _load(chat: Chat, argument: str) -> None:
    file = _file(argument)
    chat.conversation.load(file)
    chat.output.note(f"{_turns(chat)} loaded from {file}")


def _stats(chat: Chat, _: str) -> None:
    if chat.last is None:
        raise CommandError("there is no whole answer yet", Exit.USAGE)
    show_stats(chat.output, chat.last)


def _file(argument: str) -> Path:
    if not argument:
        raise CommandError("a file is needed, such as ./talk.json", Exit.USAGE)
    return Path(argument).expanduser().absolute()


def _turns(chat: Chat) -> str:
    count = len(chat.conversation.turns) // 2
    return "1 question with its answer" if count == 1 else f"{count} questions with their answers"


COMMANDS: dict[str, tuple[str, str, Callable[[Chat, str], None]]] = {
    "help": ("", "Show this.", _help),
    "model": ("[NAME|off]", "Show or change who answers.", _model),
    "mode": (f"[{'|'.join((*MODES, OFF))}]", "Show or change speed against quality.", _mode),
    "system": ("[TEXT|off]", "Show or change the instructions to the model.", _system),
    "clear": ("", "Forget what was said.", _clear),
    "save": ("FILE", "Write the conversation to a new file.", _save),
    "load": ("FILE", "Go on with a conversation that was saved.", _load),
    "stats": ("", "Tokens, times and way of the last answer.", _stats),
}
"""Name: arguments, what it does, and how."""
