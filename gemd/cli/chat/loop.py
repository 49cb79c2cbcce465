"""A conversation: questions are read, sent with all that was said before, and answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gemd.cli.asking import Shown, ask, say_if_cut, show_stats, starter
from gemd.cli.chat.commands import obey, words
from gemd.cli.chat.conversation import Conversation
from gemd.cli.chat.editor import best_editor
from gemd.cli.chat.lines import command, message
from gemd.cli.failures import CommandError, report
from gemd.cli.names import Names
from gemd.cli.session import Session, model_name
from gemd.cli.terminal import ending_in_order, silent_keys

if TYPE_CHECKING:
    from gemd.cli.chat.editor import Editor
    from gemd.client import Generation

HISTORY = "history"
"""Name of the file, in the state directory."""


def converse(session: Session, options: dict[str, Any]) -> None:
    """Hold a conversation on the terminal until it is ended.

    Args:
        session: Whose daemon, and where to write.
        options: Those of `gemctl run`.

    Raises:
        CommandError: No daemon could be started for it.

    """
    if options["model"] is not None:
        options["model"] = model_name(options["model"])
    session.start_daemon()
    history = None if options["no_history"] else session.paths.state_dir / HISTORY
    with ending_in_order():
        names = Names(session.environ)
        editor = best_editor(session.output, history, lambda typed: words(typed, names))
        session.output.hint("/help shows what can be done, Ctrl-D ends the conversation")
        Chat(session, options).run(editor)


class Chat:
    """One conversation with its settings, which its commands change.

    Args:
        session: Whose daemon, and where to write.
        options: Those of `gemctl run`.

    """

    def __init__(self, session: Session, options: dict[str, Any]) -> None:
        self.session = session
        self.output = session.output
        self.options = {**options, "spans": [], "stream": False}
        self.conversation = Conversation(system=options["system"] or "")
        self.last: Shown | None = None
        """The last answer that came to its end."""
        self._told: set[str] = set()

    def run(self, editor: Editor) -> None:
        """Read and answer until Ctrl-D, or Ctrl-C twice where nothing is typed."""
        warned = False
        while True:
            try:
                typed = editor.read()
                warned = False
                if not self._take(typed):
                    return
            except EOFError:
                return
            except KeyboardInterrupt:
                if warned:
                    return
                warned = True
                self.output.hint("Ctrl-C once more, or Ctrl-D, ends the conversation")

    def _take(self, typed: str) -> bool:
        """Do what was typed, and whatever goes wrong with it; whether the conversation goes on."""
        from gemd.client import GemdClientError
        from gemd.errors import GemdError

        try:
            ordered = command(typed)
            if ordered is not None:
                return obey(self, *ordered)
            if said := message(typed):
                self._answer(said)
        except (CommandError, GemdClientError, GemdError) as error:
            report(error, self.output)
        return True

    def _answer(self, question: str) -> None:
        from gemd.client import Message

        begun: list[Generation] = []
        # As it stands now: /system may have changed it since the start.
        options = {**self.options, "system": self.conversation.system}
        with self.session.client(start=True) as client:
            start = starter(client, [*self.conversation.turns, Message("user", question)], options)

            def begin() -> Generation:
                begun.append(start())
                return begun[-1]

            try:
                shown = ask(
                    client,
                    self.session,
                    begin,
                    options,
                    told=self._told,
                    while_shown=silent_keys,
                )
            except KeyboardInterrupt:
                # What stands on the screen is what was said.
                self.conversation.add(question, begun[-1].text_so_far if begun else "")
                self.output.hint("stopped")
                return
        self.conversation.add(question, shown.generation.answer().text)
        self.last = shown
        if options["stats"]:
            show_stats(self.output, shown)
        else:
            say_if_cut(
                self.output,
                shown.generation.answer(),
                asked=options["max_tokens"] is not None,
                advice="a conversation begun with --max-tokens has another limit",
            )
