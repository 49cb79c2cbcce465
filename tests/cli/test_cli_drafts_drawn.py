"""Drafts on terminals of any size, whatever is drafted and however the answer comes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from gemd.cli.answers import Answers
from gemd.cli.canvas import Painter
from gemd.cli.output import Output
from gemd.cli.progress import Progress
from gemd.client import Canvas, Delta, Draft, Finished, Resolved
from gemd.client.events import generation_event
from tests.support.daemon_says import canvas, delta, draft, ended, resolved
from tests.support.screen import Screen

if TYPE_CHECKING:
    from gemd.v1 import generation_service_pb2

    Response = generation_service_pb2.GenerateResponse


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Shown:
    """Answers on a terminal of any size, and what stands on it."""

    def __init__(self, columns: int, height: int) -> None:
        self.written = _Terminal()
        self.screen = Screen(columns, height)
        output = Output(self.written, io.StringIO(), {"TERM": "xterm"})
        self.answers = Answers(output, Progress(output))
        self.answers._painter = Painter(output, size=lambda: (columns, height))

    def tell(self, response: Response) -> str:
        """Show one more event; what is on the screen then."""
        event = generation_event(response)
        if isinstance(event, Delta | Draft | Resolved):
            self.answers.add(event)
        elif isinstance(event, Canvas):
            self.answers.draw(event)
        elif isinstance(event, Finished):
            self.answers.end(event)
        return self.text()

    def text(self) -> str:
        """What is on the screen."""
        self.screen.feed(self.written.getvalue())
        self.written.seek(0)
        self.written.truncate()
        return self.screen.text


TEXT = st.text(st.sampled_from("ab \n\t漢é\u0301"), min_size=1, max_size=30)


@given(
    st.lists(TEXT, min_size=1, max_size=4),
    st.sampled_from(("KEPT", "CONTINUED", "REPLACED")),
    st.integers(0, 60),
    TEXT,
    st.integers(1, 9),
    st.tuples(st.integers(6, 12), st.integers(4, 8)),
)
def test_what_stays_on_a_terminal_is_the_answer(
    drafted: list[str],
    resolution: str,
    kept: int,
    written: str,
    size: int,
    terminal: tuple[int, int],
) -> None:
    """Whatever was drafted, however long it is and in which pieces the answer comes."""
    shown, plain = Shown(*terminal), Screen(*terminal)
    for piece in drafted:
        shown.tell(draft(piece))
        shown.tell(canvas("#"))
    whole = "".join(drafted)
    beginning = whole.encode()[:kept].decode(errors="ignore")
    answer = {"KEPT": whole, "CONTINUED": beginning + written, "REPLACED": written}[resolution]
    shown.tell(resolved(resolution, kept=beginning))
    for at in range(0, len(answer), size):
        shown.tell(delta(answer[at : at + size]))
    plain.feed(answer if answer.endswith("\n") else answer + "\n")
    assert shown.tell(ended(resolution)) == plain.text


def test_what_does_not_fit_the_screen_is_counted() -> None:
    """A row that has left it could not be taken away; it comes with the answer."""
    shown = Shown(40, 5)
    seen = shown.tell(draft("1\n2\n3\n4\n5"))
    assert seen.splitlines()[:3] == ["1", "2", "3"]
    assert seen.splitlines()[3].startswith("2 more rows; draft of diffuser")
