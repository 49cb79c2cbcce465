"""What all values of the catalogue have in common: their base, and the forms of their names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ID_PATTERN = r"^[a-z0-9][a-z0-9._-]*$"
"""Ids become file names, so they are lower case and start with a letter or a digit."""

Id = Annotated[str, Field(pattern=ID_PATTERN, max_length=100)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=200)]
Bytes = Annotated[int, Field(gt=0, lt=1 << 63)]
"""A size that fits what the API says it in."""
Repository = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]

Vendor = Literal["nvidia", "amd", "intel", "apple", "other"]
"""As `gemd.hardware.inventory.Gpu.vendor`."""


class Value(BaseModel):
    """Frozen, strict about its keys, and without infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
