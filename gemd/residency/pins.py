"""The pinned models on disk, so that a pin survives the daemon."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import structlog

from gemd.store.disk import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

log = structlog.get_logger(__name__)


def read_pins(path: Path) -> frozenset[str]:
    """The pinned models; none if there is no file, or one that is no list of names."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError) as error:
        # A lost pin costs a reload; a daemon that does not start costs more.
        log.warning("pins.unreadable", path=str(path), error=str(error))
        return frozenset()
    if not isinstance(names, list):
        return frozenset()
    return frozenset(name for name in names if isinstance(name, str))


def write_pins(path: Path, pins: Iterable[str]) -> None:
    """Replace the file as a whole."""
    write_whole(path, json.dumps(sorted(pins)).encode())
