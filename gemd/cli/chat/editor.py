"""Where a person types: a line editor with history, or plain lines where a terminal has none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from gemd.cli.chat import lines
from gemd.cli.text import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyPressEvent

    from gemd.cli.output import Output

PROMPT = ">>> "
CONTINUATION = "... "


class Editor(Protocol):
    """Reads what a person types."""

    def read(self) -> str:
        """The next text, which may have several lines.

        Raises:
            EOFError: There is none any more: Ctrl-D.
            KeyboardInterrupt: Ctrl-C, where nothing was typed.

        """


def best_editor(
    output: Output, history: Path | None, words: Callable[[str], Iterable[str]]
) -> Editor:
    """The editor that this terminal can have.

    Args:
        output: For whether the terminal can draw, and for hints.
        history: The file that remembers; None remembers nothing beyond this conversation.
        words: What a text that begins so may go on with, as whole texts.

    """
    if not output.can_draw():
        return PlainEditor(output)
    from gemd.errors import ConfigError

    remembered: History | None = None
    if history is not None:
        from gemd.cli.chat.history import PrivateHistory

        try:
            remembered = PrivateHistory(history)
        except ConfigError as error:
            output.hint(f"no history: {error.message}: {error.why}")
        except OSError as error:
            output.hint(f"no history: {history}: {error.strerror}")
    return LineEditor(output, remembered, words)


class LineEditor:
    """prompt_toolkit: arrows, history (also Ctrl-R), pasted text with its lines, Tab.

    Enter sends. Alt-Enter, or a backslash before Enter, begins another line.

    Args:
        output: The terminal.
        history: What was typed earlier.
        words: See `best_editor`.

    """

    def __init__(
        self, output: Output, history: History | None, words: Callable[[str], Iterable[str]]
    ) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.data_structures import Size
        from prompt_toolkit.output.vt100 import Vt100_Output
        from prompt_toolkit.shortcuts import CompleteStyle

        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            history=history,
            multiline=True,
            prompt_continuation=CONTINUATION,
            key_bindings=_bindings(),
            completer=_completer(words),
            input_processors=[_unmasking()],
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            enable_suspend=True,
            include_default_pygments_style=False,
            # Asking the terminal where its cursor is would leave an answer in the input of
            # whatever runs next, where a terminal is slow to give it.
            output=Vt100_Output(
                sys.stdout,
                lambda: Size(rows=output.rows(), columns=output.data_columns()),
                term=output.environ.get("TERM", ""),
                enable_cpr=False,
            ),
        )

    def read(self) -> str:
        """See `Editor`."""
        return self._session.prompt()


def _bindings() -> Any:
    from prompt_toolkit.key_binding import KeyBindings

    bindings = KeyBindings()

    @bindings.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        line = buffer.document.current_line_before_cursor
        if lines.goes_on(line):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        elif lines.is_open(buffer.text):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _another_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @bindings.add("c-c")
    @bindings.add("<sigint>")
    def _interrupt(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return bindings


def _unmasking() -> Any:
    """Shows what was pasted and can hide: the editor itself does so with control characters."""
    from prompt_toolkit.layout.processors import Processor, Transformation

    class _Unmasking(Processor):
        def apply_transformation(self, transformation_input: Any) -> Transformation:
            return Transformation(
                [
                    (style, masked(content), *handler)
                    for style, content, *handler in transformation_input.fragments
                ]
            )

    return _Unmasking()


def _completer(words: Callable[[str], Iterable[str]]) -> Any:
    from prompt_toolkit.completion import Completer, Completion

    class _Words(Completer):
        def get_completions(self, document: Any, _: Any) -> Iterator[Completion]:
            typed = document.text
            if document.cursor_position == len(typed):
                for word in words(typed):
                    yield Completion(word, start_position=-len(typed))

    return _Words()


class PlainEditor:
    """Lines as the terminal hands them over, with its own few keys.

    Args:
        output: Where the prompt is shown.

    """

    def __init__(self, output: Output) -> None:
        self._output = output

    def read(self) -> str:
        """See `Editor`."""
        typed = ""
        prompt = PROMPT
        while True:
            self._output.data(prompt)
            line = sys.stdin.readline()
            if not line:
                self._output.line()
                raise EOFError
            line = line.removesuffix("\n")
            prompt = CONTINUATION
            if lines.goes_on(line):
                typed += line[:-1] + "\n"
            elif lines.is_open(typed + line):
                typed += line + "\n"
            else:
                return typed + line
