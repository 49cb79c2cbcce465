"""What a command that changes how the terminal behaves owes to whoever uses it next."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_SIGNALLED = 128
"""What shells add the number of a signal to for the exit code of what it ended."""

_LOCAL, _CHARACTERS = 3, 6
"""Places in what `termios.tcgetattr` returns."""


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """Have signals that end a program end this block as an exception does, its `finally` and all.

    Raises:
        SystemExit: SIGTERM or SIGHUP came, with 128 and its number.

    """
    before = {number: signal.signal(number, _end) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: object) -> NoReturn:
    for each in _ENDING:
        # One is enough: a second one must not break off the tidying up.
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(_SIGNALLED + number)


@contextlib.contextmanager
def single_keys() -> Iterator[Callable[[float], str]]:
    """Take keys as they are pressed, without writing them onto the screen.

    Yields a function that waits so many seconds for a key and returns it, or an empty text. Without
    a terminal to press keys on it only waits.
    """
    try:
        number = sys.stdin.fileno()
        before = termios.tcgetattr(number)
    except (AttributeError, OSError, ValueError, termios.error):
        yield _wait
        return
    quick = termios.tcgetattr(number)
    quick[_LOCAL] &= ~(termios.ICANON | termios.ECHO)
    # Stopping it would leave the shell on a screen that is not its own.
    quick[_CHARACTERS][termios.VSUSP] = b"\0"
    termios.tcsetattr(number, termios.TCSADRAIN, quick)
    try:
        yield lambda patience: _key(number, patience)
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(number, termios.TCSADRAIN, before)


@contextlib.contextmanager
def silent_keys() -> Iterator[None]:
    """Keep the terminal from writing what is typed into the answer that stands there.

    It is not lost: the next prompt has it. Ctrl-C works as ever.
    """
    try:
        number = sys.stdin.fileno()
        before = termios.tcgetattr(number)
    except (AttributeError, OSError, ValueError, termios.error):
        yield
        return
    quiet = termios.tcgetattr(number)
    quiet[_LOCAL] &= ~termios.ECHO
    termios.tcsetattr(number, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(number, termios.TCSADRAIN, before)


def _wait(patience: float) -> str:
    time.sleep(patience)
    return ""


def _key(number: int, patience: float) -> str:
    if not select.select([number], [], [], patience)[0]:
        return ""
    pressed = os.read(number, 64)
    if not pressed:
        # The terminal is gone, and would be «ready» for ever.
        raise KeyboardInterrupt
    return pressed.decode(errors="replace")[:1]
