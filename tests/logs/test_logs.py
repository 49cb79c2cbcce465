"""What the log says, where, and what it keeps to itself."""

from __future__ import annotations

import io
import json
import logging
import warnings
from typing import TYPE_CHECKING, Literal

import pytest
import structlog

from gemd import logs
from gemd.config import Settings
from gemd.errors import ConfigError
from gemd.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Leave the process's logging as it was found."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    libraries = (*logs._QUIET_LIBRARIES, *logs._TELLTALE_LIBRARIES)
    library_levels = {name: logging.getLogger(name).level for name in libraries}
    yield
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)
    for name, value in library_levels.items():
        logging.getLogger(name).setLevel(value)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def _set_up(
    level: Literal["debug", "info", "warning", "error"] = "info", file: Path | None = None
) -> io.StringIO:
    stream = io.StringIO()
    configure_logging(Settings(log_level=level), stream, file=file)
    return stream


def _events(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_pipe_gets_one_json_object_per_event() -> None:
    """Each has time, level, logger and the event's own fields."""
    stream = _set_up()
    structlog.get_logger("gemd.x").info("model ready", model="m", seconds=1.5)
    (event,) = _events(stream)
    assert event["event"] == "model ready"
    assert event["level"] == "info"
    assert event["logger"] == "gemd.x"
    assert event["seconds"] == 1.5
    assert str(event["time"]).endswith("Z")


def test_the_console_form_is_for_reading() -> None:
    """It holds the same words, and no JSON."""
    stream = io.StringIO()
    configure_logging(Settings(log_format="console"), stream)
    structlog.get_logger("gemd.x").info("model ready", model="m")
    assert "model ready" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
    assert "\x1b" not in stream.getvalue()


def test_libraries_come_out_in_the_same_form() -> None:
    """Their warnings are events; their chatter below that is not."""
    stream = _set_up()
    logging.getLogger("huggingface_hub").warning("slow %s", "hub")
    logging.getLogger("huggingface_hub").info("chatter")
    (event,) = _events(stream)
    assert event["event"] == "slow hub"
    assert event["logger"] == "huggingface_hub"


def test_a_traceback_stays_in_its_line() -> None:
    """It is a field of the event."""
    stream = _set_up()
    try:
        int("inside")
    except ValueError:
        structlog.get_logger("gemd.x").exception("failed")
    (event,) = _events(stream)
    assert "ValueError: invalid literal" in str(event["exception"])


def test_a_traceback_shows_no_values(tmp_path: Path) -> None:
    """Local variables hold prompts and tokens; the console's pretty form would print them."""
    for form in ("console", "json"):
        stream = io.StringIO()
        configure_logging(Settings(log_format=form), stream, file=tmp_path / "gemd.log")
        prompt = "secret words"
        try:
            len(prompt) / 0
        except ZeroDivisionError:
            structlog.get_logger("gemd.x").exception("failed")
        assert "ZeroDivisionError" in stream.getvalue()
        assert "secret" not in stream.getvalue()
    assert "secret" not in (tmp_path / "gemd.log").read_text()


@pytest.mark.parametrize("library", ["httpx2", "httpcore2.http11"])
def test_the_hub_clients_addresses_are_not_logged(library: str) -> None:
    """Signed links and headers are in them, so not even at the level for content."""
    stream = _set_up("debug")
    logging.getLogger(library).info("HTTP Request: GET https://cdn.example/x?signature=abc")
    assert stream.getvalue() == ""


def test_prompts_are_withheld_below_debug() -> None:
    """What users send and models answer appears only at the level that asks for it."""
    stream = _set_up()
    structlog.get_logger("gemd.x").info("request", prompt="secret words", tokens=3)
    assert "secret" not in stream.getvalue()
    assert _events(stream)[0]["tokens"] == 3
    stream = _set_up("debug")
    structlog.get_logger("gemd.x").info("request", prompt="secret words")
    assert _events(stream)[0]["prompt"] == "secret words"


def test_the_level_holds_for_both_sides() -> None:
    """Less severe events of ours and of libraries are dropped."""
    stream = _set_up("error")
    structlog.get_logger("gemd.x").warning("no")
    logging.getLogger("library").warning("no")
    structlog.get_logger("gemd.x").error("yes")
    assert [event["event"] for event in _events(stream)] == ["yes"]


def test_a_second_set_up_replaces_the_first() -> None:
    """Loggers made before it write to the new stream only."""
    logger = structlog.get_logger("gemd.x")
    first = _set_up()
    second = _set_up()
    logger.info("once")
    assert first.getvalue() == ""
    assert len(_events(second)) == 1


def test_the_file_is_private_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It rotates at its size, keeps one predecessor and lets nobody else read."""
    monkeypatch.setattr(logs, "FILE_BYTES", 2000)
    file = tmp_path / "state" / "gemd.log"
    _set_up(file=file)
    for number in range(100):
        structlog.get_logger("gemd.x").info("line", number=number)
    assert sorted(path.name for path in file.parent.iterdir()) == ["gemd.log", "gemd.log.1"]
    for path in file.parent.iterdir():
        assert path.stat().st_size <= 2000
        assert path.stat().st_mode & 0o077 == 0
    assert json.loads(file.read_text().splitlines()[-1])["number"] == 99


def test_the_file_can_be_the_only_place(tmp_path: Path) -> None:
    """Where standard error is that file, each event must come once."""
    configure_logging(Settings(), None, file=tmp_path / "gemd.log")
    structlog.get_logger("gemd.x").info("once")
    assert (tmp_path / "gemd.log").read_text().count("once") == 1


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """As a configuration error."""
    (tmp_path / "state").write_text("")
    with pytest.raises(ConfigError) as caught:
        _set_up(file=tmp_path / "state" / "gemd.log")
    assert "gemd.log" in caught.value.message


def test_python_warnings_are_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the interpreter was not told to treat them otherwise."""
    monkeypatch.setattr("sys.warnoptions", [])
    stream = _set_up()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # Inside, so that the filters above and the log's hook apply together.
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old call", stacklevel=1)
        logging.captureWarnings(capture=False)
    assert "old call" in str(_events(stream)[0]["event"])
