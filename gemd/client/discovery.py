"""Where this user's daemon listens."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def default_socket(environ: Mapping[str, str] = os.environ) -> Path:
    """The socket of this user's daemon, from the same settings that the daemon reads.

    Raises:
        gemd.errors.ConfigError: A setting is wrong.

    """
    # pydantic is a tenth of a second that a program with a socket of its own need not spend.
    from gemd.config import load_settings  # noqa: PLC0415
    from gemd.paths import config_file, resolve_paths  # noqa: PLC0415

    home = Path(environ.get("HOME") or Path.home())
    file = config_file(environ, platform=sys.platform, home=home)
    settings = load_settings(environ=environ, file=file).settings
    return resolve_paths(environ, platform=sys.platform, home=home, settings=settings).socket
