"""Parts of the API that this version does not do yet, each with its reason."""

from __future__ import annotations

from gemd.errors import NotImplementedYetError


def not_yet(method: str, why: str) -> NotImplementedYetError:
    """What a call to such a method ends with."""
    return NotImplementedYetError(
        f"{method} is not part of this version", why=why, metadata={"method": method}
    )
