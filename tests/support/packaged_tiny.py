"""``python -m tests.support.packaged_tiny``: write the model that the self-test travels with.

It is the fixture `TINY` in ModelOpt's layout, experts and dense layers packed, in one file and
without its vision tower: as small as it gets, and with a layer of each packed kind.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

from tests.support.tiny_diffusion import (
    ANSWERS,
    TINY,
    read_tensors,
    write_nvfp4,
    write_plain,
)

PACKAGED: Final = Path(__file__).parents[2] / "gemd" / "worker" / "diffusion" / "tiny"
MODEL: Final = "model.safetensors"
_IMAGES: Final = ("model.encoder.vision_tower.", "model.encoder.embed_vision.")


def write_packaged(target: Path) -> None:
    """Write all files of the packaged model.

    Args:
        target: A folder; made if it is not there.

    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        plain, packed = Path(made) / "plain", Path(made) / "packed"
        tensors = read_tensors(TINY)
        text = {name: each for name, each in tensors.items() if not name.startswith(_IMAGES)}
        write_plain(plain, text, vision_config=None)
        write_nvfp4(plain, packed, "modelopt", dense=True)
        metadata = {"format": "pt"}
        save_file(read_tensors(packed), target / MODEL, metadata=metadata)
        # As any other file of the package: safetensors makes it for its owner alone.
        (target / MODEL).chmod(0o644)
        for file in packed.iterdir():
            if "safetensors" not in file.name:
                shutil.copy(file, target / file.name)
    (target / "answers.json").write_text(json.dumps(ANSWERS, indent=2) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write_packaged(PACKAGED)
