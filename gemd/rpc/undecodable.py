"""Header values that are no text: gRPC's Python would log each with all its bytes and a traceback.

Anybody who reaches the TCP port can send such, without the token, and so fill the log; and what a
client of ours sends beside a damaged token is no matter for a log either. The call itself goes on,
and is refused or answered like every other.
"""

from __future__ import annotations

import logging
from typing import Final

_LOGGER: Final = "grpc._cython.cygrpc"
_BEGIN: Final = "Invalid encoding on "


def keep_out_of_the_log() -> None:
    """Let gRPC say nothing about them, at whatever level; may be called again."""
    logging.getLogger(_LOGGER).addFilter(_is_of_use)


def _is_of_use(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_BEGIN)
