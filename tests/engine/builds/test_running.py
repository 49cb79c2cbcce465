"""A long command that ends with us."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gemd.engine.builds import running
from gemd.engine.builds.running import (
    NotStartedError,
    bytes_in,
    ended_in_order,
    run,
    steps_in,
)
from tests.support.desktop import wait_until
from tests.support.workers import alive, wait_until_gone

ENVIRON = {"PATH": os.environ["PATH"]}


def shell(script: str, lines: list[str] | None = None) -> tuple[int, str]:
    """Run a script; its exit code and the log."""
    log = io.BytesIO()
    on_line = (lines if lines is not None else []).append
    command = ["/bin/sh", "-c", script]
    code = run(command, environ=ENVIRON, cwd=Path("/"), log=log, on_line=on_line)
    return code, log.getvalue().decode()


def test_both_streams_are_read_line_by_line() -> None:
    """And kept in the log."""
    lines: list[str] = []
    code, log = shell("echo one; echo two >&2; exit 3", lines)
    assert (code, lines) == (3, ["one", "two"])
    assert log == "one\ntwo\n"


def test_no_password_of_an_index_is_kept() -> None:
    """Neither shown nor logged."""
    lines: list[str] = []
    _, log = shell("echo Looking in https://me:secret@host/simple", lines)
    assert lines == ["Looking in https://host/simple"]
    assert "secret" not in log


def test_an_at_sign_ends_no_password() -> None:
    """Whoever did not quote it: pip takes the last one for the end as well."""
    lines: list[str] = []
    shell("echo https://me:se@cr@et@host/simple", lines)
    assert lines == ["https://host/simple"]


def test_it_sees_its_own_environment_and_no_terminal() -> None:
    """A question of a program gets no answer instead of ours."""
    lines: list[str] = []
    shell('echo "$HOME-$PATH"; read x || echo nothing', lines)
    assert lines == [f"-{ENVIRON['PATH']}", "nothing"]


def test_an_interrupt_ends_the_whole_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children of children too, which ignore the first signal."""
    monkeypatch.setattr(running, "_TERMINATE_S", 0.2)
    seen: list[int] = []

    def on_line(line: str) -> None:
        seen.append(int(line))
        if len(seen) == 2:
            raise KeyboardInterrupt

    script = "trap '' TERM; echo $$; sh -c 'trap \"\" TERM; echo $$; sleep 600; sleep 600'"
    with pytest.raises(KeyboardInterrupt):
        run(
            ["/bin/sh", "-c", script],
            environ=ENVIRON,
            cwd=Path("/"),
            log=io.BytesIO(),
            on_line=on_line,
        )
    for pid in seen:
        wait_until_gone(pid, seconds=5)


def test_a_second_interrupt_ends_the_group_at_once() -> None:
    """Who presses Ctrl-C again, while the first one is being obeyed, leaves nothing running."""
    seen: list[int] = []

    def on_line(line: str) -> None:
        seen.append(int(line))
        raise KeyboardInterrupt

    script = "trap 'kill -INT $PPID' TERM; echo $$; while :; do sleep 600 & wait; done"
    with pytest.raises(KeyboardInterrupt):
        run(
            ["/bin/sh", "-c", script],
            environ=ENVIRON,
            cwd=Path("/"),
            log=io.BytesIO(),
            on_line=on_line,
        )
    wait_until_gone(seen[0], seconds=2)


def test_an_interrupt_right_after_the_start_ends_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is there, and whoever ends it is not yet: the interrupt waits for that."""
    started: list[int] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            started.append(self.pid)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        shell("exec sleep 600")
    wait_until_gone(started[0], seconds=5)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("most", [1, 3, 1 << 16])
def test_lines_are_whole_however_they_come(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Read in pieces of any size; one is longer than a pipe holds, and the last has no end."""
    monkeypatch.setattr(running, "_CHUNK_BYTES", most)
    lines: list[str] = []
    count = 100_000 if most > 1 else 1000
    long = f"head -c {count} /dev/zero | tr '\\0' x"
    code, log = shell(f"printf 'ab\\n\\n'; {long}; printf '\\nend'", lines)
    assert code == 0
    assert lines == ["ab", "", "x" * 500, "end"]
    assert log == "ab\n\n" + "x" * count + "\nend\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_interrupt_is_heard_between_two_lines() -> None:
    """Python notices it, and the read that it waits in is not interrupted: it looks by itself.

    So it is when a signal comes just ahead of the read; here another thread takes it.
    """
    silent = threading.Event()
    main = threading.get_native_id()

    def interrupt() -> None:
        silent.wait(30)
        # Twice in a row: once it may sleep because this thread runs.
        states: list[str] = []

        def waits() -> bool:
            states.append(_state(main))
            return states[-2:] == ["S", "S"]

        wait_until(waits, what="the command's silence")
        os.kill(os.getpid(), signal.SIGUSR1)

    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, handler)
    helper = threading.Thread(target=interrupt)
    helper.start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run(
                ["/bin/sh", "-c", "echo; exec sleep 60"],
                environ=ENVIRON,
                cwd=Path("/"),
                log=io.BytesIO(),
                on_line=lambda _: silent.set(),
            )
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        helper.join()
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - began < 30


def _state(thread: int) -> str:
    """Of a thread of this process, as in proc_pid_stat(5): S sleeps."""
    stat = Path(f"/proc/self/task/{thread}/stat").read_text(encoding="utf-8")
    return stat.rpartition(")")[2].split()[0]


def test_a_leftover_that_holds_the_pipe_holds_nobody_up() -> None:
    """What a compile leaves in the background inherits its output, and never closes it."""
    lines: list[str] = []
    code, _ = shell("sleep 600 & echo $!; exit 3", lines)
    assert code == 3
    wait_until_gone(int(lines[0]), seconds=5)


def test_what_cannot_be_started_is_told_from_a_full_disk() -> None:
    """The first is the command's fault, the second nobody's."""
    with pytest.raises(NotStartedError, match="No such file"):
        run(["/no/such"], environ={}, cwd=Path("/"), log=io.BytesIO(), on_line=print)
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(OSError, match="No space left"),
    ):
        run(["/bin/echo", "x"], environ={}, cwd=Path("/"), log=full, on_line=print)


def test_what_outlives_its_leader_is_ended() -> None:
    """A compiler that was left in the background holds nothing open."""
    lines: list[str] = []
    code, _ = shell("sleep 600 >/dev/null 2>&1 & echo $!", lines)
    assert code == 0
    wait_until_gone(int(lines[0]), seconds=5)
    assert not alive(int(lines[0]))


def test_it_works_on_any_thread() -> None:
    """Nothing of it needs signals."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(shell("exit 4")[0]))
    thread.start()
    thread.join()
    assert codes == [4]


@pytest.mark.parametrize(
    "line,says",
    [
        ("[17/335] Building CXX object x.o", (17, 335)),
        ("  [2/3] x", (2, 3)),
        ("[ 42%] Building CXX object x.o", (42, 100)),
        ("[100%] Linking", (100, 100)),
        ("-- [1/2] no", None),
        ("Building", None),
        ("", None),
    ],
)
def test_how_far_a_compile_is(line: str, says: tuple[int, int] | None) -> None:
    """Ninja counts steps, make per cent."""
    assert steps_in(line) == says


def test_how_far_a_download_is() -> None:
    """As pip's bar for programs tells it."""
    assert bytes_in("Progress 131072 of 25500000") == (131072, 25500000)
    assert bytes_in("Progress 0 of 0") is None
    assert bytes_in("Progress is made") is None


def test_a_signal_that_is_ignored_stays_so() -> None:
    """A compile under nohup outlives its terminal; otherwise the end of it is an interrupt."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_in_order():
            os.kill(os.getpid(), signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with pytest.raises(KeyboardInterrupt), ended_in_order():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
