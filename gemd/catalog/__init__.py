"""The catalogue: which models there are, in which forms, and where their bytes come from.

Profiles are TOML files, one per model: the shipped ones in ``profiles/models/``, the user's
own in a folder of theirs, where a file of the same name replaces the shipped one. A file
may also be a `NamedChoice` among models. An absolute path to a ``.gguf`` file, or to a directory
with a DiffusionGemma checkpoint, is a model as well (`gemd.catalog.local`), and so is
``MODEL:VARIANT``. What was quantized here stands beside what profiles name (`gemd.catalog.made`).
"""

from __future__ import annotations

from gemd.catalog.catalog import Catalog
from gemd.catalog.named import NamedChoice
from gemd.catalog.profile import Profile, Projector, SamplingDefaults
from gemd.catalog.sources import (
    HubSource,
    LocalSource,
    PackagePart,
    PackageSource,
    QuantizedSource,
    RepositorySource,
    Source,
)
from gemd.catalog.variant import BLOCK_DIFFUSION, Formats, Requirements, Variant, WeightGroups

__all__ = [
    "BLOCK_DIFFUSION",
    "Catalog",
    "Formats",
    "HubSource",
    "LocalSource",
    "NamedChoice",
    "PackagePart",
    "PackageSource",
    "Profile",
    "Projector",
    "QuantizedSource",
    "RepositorySource",
    "Requirements",
    "SamplingDefaults",
    "Source",
    "Variant",
    "WeightGroups",
]
