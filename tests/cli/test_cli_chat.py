"""Conversations: what is typed, what is sent, what is remembered, and the slash commands."""

from __future__ import annotations

import io
import json
import stat
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.cli.chat import lines
from gemd.cli.chat.commands import COMMANDS, words
from gemd.cli.chat.conversation import Conversation
from gemd.cli.chat.history import LONGEST, MOST_BYTES, PrivateHistory, newest
from gemd.cli.chat.loop import Chat
from gemd.cli.failures import CommandError
from gemd.cli.names import Names
from gemd.cli.output import Output
from gemd.cli.run import run
from gemd.cli.session import Session
from gemd.client import Message
from gemd.v1 import generation_pb2
from tests.support.daemon_says import abort, delta, finished, model, started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.v1 import generation_service_pb2
    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl

    Events = Iterator[generation_service_pb2.GenerateResponse]

PARIS = "The capital of France is Paris."


class Typist:
    """Types what it was given, an exception as the key that raises it, and then Ctrl-D."""

    def __init__(self, *typed: str | type[BaseException]) -> None:
        self._typed = list(typed)

    def read(self) -> str:
        """The next of it."""
        if not self._typed:
            raise EOFError
        one = self._typed.pop(0)
        if isinstance(one, str):
            return one
        raise one

    @property
    def left(self) -> int:
        """How much was not read."""
        return len(self._typed)


@pytest.fixture
def chat(gemctl: Gemctl, daemon: FakeDaemon) -> Chat:
    """A conversation with the scripted daemon, without options."""
    output = Output(io.StringIO(), io.StringIO(), gemctl.environ)
    defaults: dict[str, Any] = {
        str(each.name): () if each.multiple else None if each.default is not False else False
        for each in run.params
    } | {"as_json": False, "yes": False}
    return Chat(Session(output, gemctl.environ), defaults)


def said(chat: Chat) -> str:
    """What stands on stderr."""
    assert isinstance(chat.output.stderr, io.StringIO)
    return chat.output.stderr.getvalue()


def sent(daemon: FakeDaemon) -> list[list[tuple[str, str]]]:
    """Role and text of the messages of each request."""
    return [
        [
            (generation_pb2.Message.Role.Name(one.role).removeprefix("ROLE_"), one.parts[0].text)
            for one in request.chat.messages
        ]
        for request in daemon.asked("Generate")
    ]


def test_an_answer_that_a_limit_cut_off_says_how_to_have_another(
    chat: Chat, daemon: FakeDaemon
) -> None:
    """No command of a conversation sets it: the option it is begun with does."""

    def cut(*_: object) -> Any:
        yield started()
        yield delta("half")
        last = finished()
        last.finished.finish_reason = generation_pb2.Finished.FINISH_REASON_MAX_TOKENS
        yield last

    daemon.script.generate = cut
    chat.run(Typist("Hi"))
    assert "cut off after 8 tokens; a conversation begun with --max-tokens has another" in said(
        chat
    )


@pytest.mark.parametrize(
    "typed,message",
    [
        ("Hi", "Hi"),
        ("  Hi \n", "Hi"),
        ('"""', None),
        ('"""one', None),
        ('"""one\ntwo"""', "one\ntwo"),
        ('"""\n  one\n"""', "  one"),
        ('""""""', ""),
        ('""""', None),
        ('say """x"""', 'say """x"""'),
    ],
)
def test_quotes_go_around_several_lines(typed: str, message: str | None) -> None:
    """They are no part of the message; quotes inside of it are. Until the last, none is whole."""
    assert lines.is_open(typed) is (message is None)
    if message is not None:
        assert lines.message(typed) == message


@given(st.text())
def test_any_text_can_be_said_in_quotes(text: str) -> None:
    """As it is, but for quotes of its own at its end."""
    inside = f"\n{text}x\n"
    assert lines.message(f'"""{inside}"""') == f"{text}x"


@pytest.mark.parametrize(
    "line,backslashes", [("a\\", 1), ("a\\\\", 2), ("\\", 1), ("a", 0), ("", 0), ("\\a", 0)]
)
def test_a_backslash_at_the_end_goes_on(line: str, backslashes: int) -> None:
    """Two are a backslash."""
    assert lines.goes_on(line) is (backslashes == 1)


@pytest.mark.parametrize(
    "typed,expected",
    [
        ("/help", ("help", "")),
        ("/system  Be brief. ", ("system", "Be brief.")),
        (" /usr/bin is where?", None),
        ("/usr\nand more", None),
        ("Hi", None),
    ],
)
def test_a_slash_begins_a_command(typed: str, expected: tuple[str, str] | None) -> None:
    """On one line, and without a blank before it."""
    assert lines.command(typed) == expected


def test_all_that_was_said_is_sent_again(chat: Chat, daemon: FakeDaemon) -> None:
    """Word for word, so that the model finds its prefix; the instructions come first."""
    chat.run(Typist("/system Be brief.", "France?", "   ", "And Japan?"))
    first = [("SYSTEM", "Be brief."), ("USER", "France?")]
    assert sent(daemon) == [first, [*first, ("ASSISTANT", PARIS), ("USER", "And Japan?")]]


def test_an_answer_that_was_stopped_is_what_was_said(
    chat: Chat, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conversation goes on from what stands on the screen."""
    write = chat.output.data

    def interrupted(content: str) -> None:
        write(content)
        if content == "The capital of France":
            raise KeyboardInterrupt

    monkeypatch.setattr(chat.output, "data", interrupted)
    chat.run(Typist("one"))
    monkeypatch.undo()
    chat.run(Typist("two"))
    assert sent(daemon)[1] == [
        ("USER", "one"),
        ("ASSISTANT", "The capital of France"),
        ("USER", "two"),
    ]
    assert said(chat) == "stopped\n"


def test_a_question_that_failed_was_not_asked(chat: Chat, daemon: FakeDaemon) -> None:
    """The error is shown, and the next question is asked as if there had been none before it."""

    def fails(_: object, context: grpc.ServicerContext) -> Events:
        yield delta("half")
        abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "CONTEXT_TOO_LONG", "it is too long")

    working, daemon.script.generate = daemon.script.generate, fails
    chat.run(Typist("one"))
    daemon.script.generate = working
    chat.run(Typist("two"))
    assert sent(daemon)[1] == [("USER", "two")]
    assert said(chat) == "error: it is too long\n"


def test_a_daemon_that_went_away_ends_nothing(chat: Chat, daemon: FakeDaemon) -> None:
    """It is said, and what was said stays; the next question looks for a daemon again."""
    chat.run(Typist("one"))
    daemon.stop()
    chat.run(Typist("two"))
    assert "error: gemd is not running" in said(chat)
    assert [turn.text for turn in chat.conversation.turns] == ["one", PARIS]


def test_it_ends_with_the_second_interrupt(chat: Chat, daemon: FakeDaemon) -> None:
    """The first one warns, and whatever is typed after it takes the warning back."""
    typist = Typist(KeyboardInterrupt, "/clear", KeyboardInterrupt, KeyboardInterrupt, "unread")
    chat.run(typist)
    assert typist.left == 1
    assert said(chat).count("Ctrl-C once more") == 2


@pytest.mark.parametrize("way_out", ["/bye", "/exit", "/quit"])
def test_it_ends_when_told_to(chat: Chat, daemon: FakeDaemon, way_out: str) -> None:
    """Nothing after it is read."""
    typist = Typist(way_out, "unread")
    chat.run(typist)
    assert (typist.left, said(chat)) == (1, "")


def test_commands_change_what_is_sent(chat: Chat, daemon: FakeDaemon) -> None:
    """Model, mode and instructions, and back again."""
    daemon.script.models["m"] = model("m")
    chat.run(Typist("/model m", "/mode best", "/system Be brief.", "one", "/clear"))
    chat.run(Typist("/model off", "/mode off", "/system off", "two"))
    first, second = daemon.asked("Generate")
    assert (first.model, first.mode) == ("m", generation_pb2.MODE_BEST)
    assert (second.WhichOneof("target"), second.mode) == (None, generation_pb2.MODE_UNSPECIFIED)
    assert sent(daemon)[1] == [("USER", "two")]


def test_commands_tell_how_things_stand(chat: Chat, daemon: FakeDaemon) -> None:
    """Without an argument they only show; the help names all of them."""
    chat.run(Typist("/model", "/mode", "/system"))
    assert said(chat) == ("model: as gemd chooses\nmode: as gemd chooses\ninstructions: none\n")
    chat.run(Typist("/help"))
    for name in (*COMMANDS, "bye"):
        assert f"\n/{name} " in said(chat)
    chat.run(Typist("Hi", "/stats"))
    assert "8 generated" in said(chat)


@pytest.mark.parametrize(
    "typed,says",
    [
        ("/usr/bin is where?", "there is no command /usr/bin"),
        ("/mode quick", "there is no mode 'quick'"),
        ("/model nothing", "no model is called nothing"),
        ("/stats", "there is no whole answer yet"),
        ("/save", "a file is needed"),
        ("/load /nowhere/talk.json", "/nowhere/talk.json cannot be read"),
        ("/save /nowhere/talk.json", "/nowhere/talk.json cannot be written"),
    ],
)
def test_a_command_that_cannot_be_obeyed_says_why(
    chat: Chat, daemon: FakeDaemon, typed: str, says: str
) -> None:
    """And the conversation goes on."""
    chat.run(Typist(typed, "Hi"))
    assert said(chat).startswith(f"error: {says}")
    assert len(daemon.asked("Generate")) == 1


def test_a_conversation_is_saved_and_loaded(chat: Chat, daemon: FakeDaemon, tmp_path: Path) -> None:
    """In a private file, which is never written over; loading takes the place of what was said."""
    file = tmp_path / "talk.json"
    chat.run(Typist("/system Be brief.", "one", f"/save {file}", "two", f"/save {file}"))
    assert f"error: {file} cannot be written\n  why: File exists\n" in said(chat)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    chat.run(Typist("/system off", f"/load {file}", "three"))
    assert sent(daemon)[2] == [
        ("SYSTEM", "Be brief."),
        ("USER", "one"),
        ("ASSISTANT", PARIS),
        ("USER", "three"),
    ]


_TURN = {"role": "user", "text": "x"}


@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        b"[" * 100_000,
        b"[]",
        json.dumps({"format": 2, "system": "", "messages": []}).encode(),
        json.dumps({"format": 1, "system": None, "messages": []}).encode(),
        json.dumps({"format": 1, "system": "", "messages": [_TURN]}).encode(),
        json.dumps({"format": 1, "system": "", "messages": [_TURN, _TURN]}).encode(),
        json.dumps({"format": 1, "system": "", "messages": [[], []]}).encode(),
    ],
)
def test_a_file_that_is_none_changes_nothing(tmp_path: Path, content: bytes) -> None:
    """It is refused with its name."""
    file = tmp_path / "talk.json"
    file.write_bytes(content)
    conversation = Conversation("Be brief.", [Message("user", "one")])
    with pytest.raises(CommandError, match=r"talk\.json is no saved conversation"):
        conversation.load(file)
    assert conversation == Conversation("Be brief.", [Message("user", "one")])


@pytest.mark.parametrize(
    "typed,found",
    [
        ("/s", ["/system", "/save", "/stats"]),
        ("/mode b", ["/mode balanced", "/mode best"]),
        ("/model smollm2-135m:", ["/model smollm2-135m:q4_1"]),
        ("What is /s", []),
        ("/system /s", []),
    ],
)
def test_commands_are_completed(tmp_path: Path, typed: str, found: list[str]) -> None:
    """Names of models too, from the disk."""
    assert list(words(typed, Names({"HOME": str(tmp_path)}))) == found


def test_the_history_is_private(tmp_path: Path) -> None:
    """Whatever the mode of the file was, its own user alone can read it; it is never a link."""
    file = tmp_path / "state" / "history"
    PrivateHistory(file).store_string("one\ntwo")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.chmod(0o644)
    assert list(PrivateHistory(file).load_history_strings()) == ["one\ntwo"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    link = tmp_path / "state" / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        PrivateHistory(link)
    assert not (tmp_path / "elsewhere").exists()


def test_the_history_does_not_grow_without_end(tmp_path: Path) -> None:
    """The older half goes, and what is too long for it is not remembered at all."""
    file = tmp_path / "state" / "history"
    history = PrivateHistory(file)
    history.store_string("x" * (LONGEST + 1))
    assert file.stat().st_size == 0
    count = MOST_BYTES // LONGEST + 2
    for number in range(count):
        history.store_string(f"{number} " + "x" * (LONGEST - 10))
    kept = [text.split()[0] for text in PrivateHistory(file).load_history_strings()]
    assert kept == [str(number) for number in reversed(range(count - len(kept), count))]
    assert count // 3 < len(kept) < count * 2 // 3


@given(st.binary(max_size=200))
def test_any_history_can_be_halved(content: bytes) -> None:
    """What is kept is an end of it that begins with an entry, or nothing."""
    kept = newest(content)
    assert content.endswith(kept)
    assert not kept or kept.startswith(b"\n# ")
