"""Core files, of which neither the daemon nor its workers leave one."""

from __future__ import annotations

import resource


def leave_no_core() -> None:
    """See to it that a crash writes nothing: a core has prompts in it, and a worker's the model.

    A limit of 0 keeps the kernel from writing a file, and not from handing the core to a program
    (core(5)), as most desktops have it. One of 1 byte keeps it from both; what has a hard limit of
    0 cannot have that one.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0 if hard == 0 else 1, hard))
