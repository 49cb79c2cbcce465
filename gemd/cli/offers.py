"""What the shell offers for arguments and options, where it is more than a fixed choice.

Each function is a `shell_complete` of click: it gets the context as far as the command line has
been read, and the beginning of a word. Nothing here imports what takes time before it is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import click
    from click.shell_completion import CompletionItem

    from gemd.cli.names import Names

_PATHS = (".", "/", "~")
"""What a path begins with that cannot be taken for a name."""


def models(context: click.Context, _: click.Parameter, begin: str) -> list[CompletionItem]:
    """Models, `MODEL:VARIANT` behind a colon, and files and folders with weights."""
    found = [] if begin.startswith(_PATHS) else _names(context).models(begin)
    # A name that goes on behind a colon is no file's, or it is one that has no such model.
    return [*_plain(found, ""), *([] if found and ":" in begin else _files(begin))]


def known_models(context: click.Context, _: click.Parameter, begin: str) -> list[CompletionItem]:
    """Models and `MODEL:VARIANT`, where a file of one's own is nothing that could be meant."""
    return _plain(_names(context).models(begin), "")


def variants(context: click.Context, _: click.Parameter, begin: str) -> list[CompletionItem]:
    """Variants of the model that the command line names; none if it comes later."""
    # click leaves arguments unread where the value of an option is still missing.
    model = context.params.get("model") or next(iter(context.args), "")
    return _plain(_names(context).variants(str(model).partition(":")[0]), begin)


def machines(context: click.Context, _: click.Parameter, begin: str) -> list[CompletionItem]:
    """Device profiles, and files like them."""
    return [*_plain(_names(context).machines(), begin), *_files(begin)]


def operations(context: click.Context, _: click.Parameter, begin: str) -> list[CompletionItem]:
    """Ids of operations that have not ended."""
    # Its whole name is taken, too.
    prefix = "operations/" if begin.startswith("operations/") else ""
    return _plain([f"{prefix}{each}" for each in _names(context).operations()], begin)


def files(_: click.Context, __: click.Parameter, begin: str) -> list[CompletionItem]:
    """Whatever the shell finds: it knows better than we do how its names are written."""
    return _files(begin)


def checks(_: click.Context, __: click.Parameter, begin: str) -> list[CompletionItem]:
    """Checks of the doctor."""
    from gemd.cli.names import CHECKS

    return _plain(CHECKS, begin)


def quantizations(_: click.Context, __: click.Parameter, begin: str) -> list[CompletionItem]:
    """What can be made, also where it is begun in small letters."""
    from gemd.cli.names import QUANTIZATIONS

    if begin and begin.islower():
        return _plain([each.lower() for each in QUANTIZATIONS], begin)
    return _plain(QUANTIZATIONS, begin)


def sources(_: click.Context, __: click.Parameter, begin: str) -> list[CompletionItem]:
    """Kinds of sources of weights."""
    return _plain(("hub", "python-package", "local"), begin)


def backends(_: click.Context, __: click.Parameter, begin: str) -> list[CompletionItem]:
    """What engine builds are for."""
    return _plain(("cuda", "hip", "metal", "vulkan", "cpu"), begin)


def _names(context: click.Context) -> Names:
    import os

    from gemd.cli.names import Names
    from gemd.cli.session import Session

    session = context.find_object(Session)
    return Names(os.environ if session is None else session.environ)


def _plain(names: Iterable[str], begin: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in names if name.startswith(begin)]


def _files(begin: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(begin, type="file")]
