"""The bench's end of a peer process: one JSON document per line, in and out.

Peers run as scripts with whatever interpreter has their library, so this file imports
nothing beyond the standard library.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Stream = list[tuple[float, int]]
"""Moments (monotonic seconds) and how many tokens came with each."""


def serve(version: str, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer requests until the bench closes our standard input.

    Args:
        version: Of the library, for the table.
        answer: From a request to an answer.

    """
    # Libraries print as they like; only answers may go where the bench reads.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _say(out, {"version": version})
    for line in sys.stdin:
        _say(out, answer(json.loads(line)))


def _say(out: Any, document: dict[str, Any]) -> None:
    out.write(json.dumps(document) + "\n")
    out.flush()
