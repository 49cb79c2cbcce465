"""The model that a setting names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.config import mend
from gemd.errors import GemdError

if TYPE_CHECKING:
    from gemd.catalog import Profile
    from gemd.rpc.library import Library

AUTO: Final = "auto"
"""As a setting: the model that the plan names."""
LOOK_AGAIN_S: Final = 2.0
"""How long a look at the disk counts: requests come more often, and files seldom."""


def named_model(library: Library, name: str, *, key: str, origin: str) -> Profile:
    """The profile that a setting means.

    Args:
        library: What models there are.
        name: What the setting says.
        key: The setting's.
        origin: What set it, as in `gemd.config.Resolved.origins`.

    Raises:
        ModelNotFoundError: No profile goes by the name; it says which setting is to blame, because
            the client has named nobody.

    """
    try:
        return library.resolve(name)
    except GemdError as error:
        error.why = f"{origin} sets {key} to it, and {error.why}"
        error.advice = (mend(key, origin), "gemctl stop", *error.advice)
        error.metadata["origin"] = origin
        raise
