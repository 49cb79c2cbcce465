"""The daemon's log: one event per line, for people on a terminal and as JSON elsewhere.

Modules write through `structlog.get_logger(__name__)`; what libraries write through
`logging` comes out in the same form. What users send and models answer is withheld
unless the level is debug.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import structlog

from gemd.errors import ConfigError
from gemd.paths import make_private_directory

if TYPE_CHECKING:
    from io import TextIOWrapper
    from pathlib import Path
    from typing import TextIO

    from structlog.typing import EventDict, Processor, WrappedLogger

    from gemd.config import Settings

FILE_BYTES: Final = 10_000_000
"""Of the log file and of the one before it."""

CONTENT_KEYS: Final = frozenset(
    {"answer", "completion", "content", "draft", "input", "messages", "prompt", "text", "texts"}
)
"""Event keys that hold what users sent or models answered."""

_QUIET_LIBRARIES: Final = ("apscheduler", "asyncio", "grpc", "huggingface_hub", "urllib3")
"""Their chatter is for debugging."""

_TELLTALE_LIBRARIES: Final = ("httpcore2", "httpx2")
"""What they say below a warning holds signed addresses and headers; it is never logged."""


def configure_logging(
    settings: Settings, stream: TextIO | None, *, file: Path | None = None
) -> None:
    """Send every log event of this process to the stream and, as JSON, to the file.

    Replaces what an earlier call set up, and closes its file.

    Args:
        settings: `log_level` and `log_format`.
        stream: Usually stderr; None where that is the file itself.
        file: Rotated at 10 MB, one predecessor is kept; readable by this user only.

    Raises:
        ConfigError: The file cannot be written.

    """
    debug = settings.log_level == "debug"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    if not debug:
        shared.append(_withhold_content)
    handlers: list[logging.Handler] = []
    if stream is not None:
        handlers.append(logging.StreamHandler(stream))
        console = _is_console(settings, stream)
        handlers[-1].setFormatter(_formatter(shared, console=console, colors=stream.isatty()))
    if file is not None:
        handlers.append(_file_handler(file))
        handlers[-1].setFormatter(_formatter(shared, console=False, colors=False))
    _install(handlers, logging.getLevelNamesMapping()[settings.log_level.upper()], debug=debug)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Cached loggers would go on writing to the stream of an earlier set-up.
        cache_logger_on_first_use=False,
    )


def _is_console(settings: Settings, stream: TextIO) -> bool:
    if settings.log_format == "auto":
        return stream.isatty()
    return settings.log_format == "console"


def _formatter(
    shared: list[Processor], *, console: bool, colors: bool
) -> structlog.stdlib.ProcessorFormatter:
    tail: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if console:
        colors = colors and "NO_COLOR" not in os.environ
        # The default prints every local variable: prompts, tokens, passwords.
        plain = structlog.dev.plain_traceback
        tail.append(structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain))
    else:
        tail += [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(sort_keys=True, ensure_ascii=False),
        ]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=tail)


def _withhold_content(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key in CONTENT_KEYS & event.keys():
        event[key] = _withheld(event[key])
    return event


def _withheld(value: Any) -> str:
    size = f"{len(value)} " if hasattr(value, "__len__") else ""
    return f"<{size}withheld>"


class _PrivateRotatingFile(logging.handlers.RotatingFileHandler):
    def _open(self) -> TextIOWrapper:
        def private(path: str, flags: int) -> int:
            return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

        return open(self.baseFilename, "a", encoding="utf-8", opener=private)

    def doRollover(self) -> None:  # noqa: N802 - the library's name
        ours = [number for number in _OUTPUTS if _is_same_file(number, self.baseFilename)]
        super().doRollover()
        assert self.stream is not None, "it is opened anew"
        # What libraries write there themselves would go on into the old file, which nobody keeps
        # small, and after the next time into one that has no name.
        for number in ours:
            os.dup2(self.stream.fileno(), number)


_OUTPUTS: Final = (1, 2)


def _is_same_file(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))  # noqa: PTH116 - a name
    except OSError:
        return False


def _file_handler(file: Path) -> logging.Handler:
    try:
        make_private_directory(file.parent)
        return _PrivateRotatingFile(file, maxBytes=FILE_BYTES, backupCount=1, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the log file {file} cannot be written",
            why=error.strerror or str(error),
            advice=(f"ls -ld {file.parent}",),
            metadata={"file": file},
        ) from None


def _install(handlers: list[logging.Handler], level: int, *, debug: bool) -> None:
    root = logging.getLogger()
    for old in root.handlers[:]:
        if getattr(old, "gemd_owned", False):
            root.removeHandler(old)
            old.close()
    for handler in handlers:
        handler.gemd_owned = True  # type: ignore[attr-defined]  # marks it for the next call
        root.addHandler(handler)
    root.setLevel(level)
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(logging.NOTSET if debug else max(level, logging.WARNING))
    for name in _TELLTALE_LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=not sys.warnoptions)
