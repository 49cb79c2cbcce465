"""The catalogue: which models there are, in which forms, and where their bytes come from.

Profiles are TOML files, one per model: the shipped ones in ``profiles/models/``, the user's
own in a folder of theirs, where a file of the same name replaces the shipped one. An
absolute path to a ``.gguf`` file is a model as well (`gemd.catalog.local`).
"""

from __future__ import annotations

from gemd.catalog.catalog import Catalog
from gemd.catalog.profile import (
    HubSource,
    LocalSource,
    PackagePart,
    PackageSource,
    Profile,
    SamplingDefaults,
    Source,
    Variant,
)

__all__ = [
    "Catalog",
    "HubSource",
    "LocalSource",
    "PackagePart",
    "PackageSource",
    "Profile",
    "SamplingDefaults",
    "Source",
    "Variant",
]
