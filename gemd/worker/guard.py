"""What a worker does to itself first: die with its daemon, be whom the kernel picks, leave no core.

The channel's end of file is the portable notice of the daemon's death. Linux adds
PR_SET_PDEATHSIG, which also reaches a process whose threads are all stuck. The child
asks for it itself: a ``preexec_fn`` would run Python between fork and exec of a
process full of gRPC threads. PR_SET_PDEATHSIG(2const): the signal comes when the parent's
*thread* ends that started this process, so a daemon has to start workers from a thread
that lives as long as it does.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
from pathlib import Path

from gemd.cores import leave_no_core

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_NAME_BYTES = 15
_OOM_SCORE = 500


def guard(*, parent: int, name: str) -> None:
    """Tie this process to its parent and mark it for the user and the kernel.

    Ends the process if the parent is gone already.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:_NAME_BYTES]))
        _prefer_for_oom_kill()
    if os.getppid() != parent:
        # It died before the request above could take effect.
        raise SystemExit(0)
    leave_no_core()
    # An interrupt in the daemon's terminal is the daemon's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries print; standard output has no other reader than the log.
    os.dup2(2, 1)
    # A crash in native code leaves the Python stack in the log, then takes its course.
    faulthandler.enable(all_threads=False)


def _prefer_for_oom_kill() -> None:
    # A worker can be started again; the daemon, or the user's editor, had better live.
    path = Path("/proc/self/oom_score_adj")
    try:
        if int(path.read_text()) < _OOM_SCORE:
            path.write_text(str(_OOM_SCORE))
    except OSError:
        # Containers may forbid it; then the kernel judges by size alone.
        return
