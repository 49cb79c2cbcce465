"""Checkpoints of every form, written once a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories by form; not to be written to."""
    # Torch: only for tests that want one.
    import torch  # noqa: PLC0415

    from tests.support.gemma4_checkpoints import FORMS, write_checkpoint  # noqa: PLC0415

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("gemma4")
    for form in FORMS:
        write_checkpoint(root / form, form)
    return {form: root / form for form in FORMS}
