"""Profiles that a test writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.catalog.files import read_entry
from gemd.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SHA = "ab" * 32


def written(folder: Path, text: str, name: str = "tiny.toml") -> Path:
    """The file with that text; what it describes is to be called ``tiny``."""
    file = folder / name
    file.write_text(text)
    return file


def refused(folder: Path, text: str) -> ConfigError:
    """The error that a file with that text gives."""
    with pytest.raises(ConfigError) as caught:
        read_entry(written(folder, text))
    return caught.value
