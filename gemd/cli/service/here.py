"""The service manager of this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.cli.service.programs import LONGEST_S

if TYPE_CHECKING:
    from gemd.cli.service.manager import Manager
    from gemd.cli.session import Session


def manager_of(session: Session, *, patience_s: float = LONGEST_S) -> Manager:
    """What runs services of the user on this system, whether it can be asked or not.

    Args:
        session: Whose variables and paths.
        patience_s: How long its programs may take.

    """
    home = Path(session.environ.get("HOME") or Path.home())
    if sys.platform == "darwin":
        from gemd.cli.service.launchd import Launchd

        return Launchd(
            session.environ,
            home,
            log_file=session.paths.log_file,
            uid=os.getuid(),
            patience_s=patience_s,
        )
    from gemd.cli.service.systemd import Systemd

    return Systemd(session.environ, home, patience_s=patience_s)
