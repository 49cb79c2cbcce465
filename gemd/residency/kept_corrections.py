"""What models were measured to take, on disk, so that it outlives the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from gemd.errors import GemdError
from gemd.residency.corrections import Corrections, Ratios, ratios_of, text_of
from gemd.store.disk import write_whole

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger(__name__)


def kept_corrections(path: Path) -> Corrections:
    """Those of the file, which follows every change; none if there is no file, or a bad one."""
    return Corrections(_read(path), keep=lambda ratios: _write(path, ratios))


def _read(path: Path) -> Ratios:
    try:
        return ratios_of(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        # They are learned again; a daemon that does not start costs more.
        log.warning("sizes.unreadable", path=str(path), error=str(error))
        return {}


def _write(path: Path, ratios: Ratios) -> None:
    # Written where it happens: a few KiB, when a prediction changes, and that is seldom.
    try:
        write_whole(path, text_of(ratios).encode())
    except (OSError, GemdError) as error:
        log.warning("sizes.not_written", path=str(path), error=str(error))
