"""A checkpoint of several files on the hub, for tests of pulls."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gemd.catalog import Profile, RepositorySource, Variant
from tests.support.hub_server import COMMIT
from tests.support.stores import content, hub_blobs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gemd.catalog import Source
    from tests.support.hub_server import HubServer

CHECKPOINT = "someone/tiny-checkpoint"
SHARDS = tuple(f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3))
INDEX = "model.safetensors.index.json"
WANTED = RepositorySource(
    repository=CHECKPOINT, files=("*.safetensors", "*.json", "*.jinja", "sub/*.bin")
)


def checkpoint_files(seed: int = 0, *, shard_bytes: int = 200_000) -> dict[str, bytes]:
    """Eight files, seven of which `WANTED` means; the shards differ by the seed."""
    shards = {
        name: content(shard_bytes + number, seed=10 * seed + number)
        for number, name in enumerate(SHARDS)
    }
    index = {"metadata": {}, "weight_map": {f"layer.{name}": name for name in SHARDS}}
    return {
        "config.json": b'{"model_type": "tiny"}',
        "chat_template.jinja": b"{{ messages }}",
        INDEX: json.dumps(index).encode(),
        "sub/extra.bin": content(1000, seed=99),
        "README.md": b"# Tiny",
    } | shards


def wanted_of(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Those of the files that are to be pulled."""
    return {name: data for name, data in files.items() if name != "README.md"}


def fetch_order(files: Mapping[str, bytes]) -> list[str]:
    """Those of the files that are to be pulled as they are fetched, after the listing."""
    return sorted(wanted_of(files), key=lambda name: (name != INDEX, len(files[name]), name))


def checkpoint_profile(*sources: Source, model: str = "tiny", size_bytes: int = 1000) -> Profile:
    """A model that is such a checkpoint."""
    variant = Variant(
        id="bf16",
        quantization="BF16",
        engine="diffusion",
        size_bytes=size_bytes,
        sources=sources or (WANTED,),
    )
    return Profile(id=model, display_name=model, family="test", licence="MIT", variants=(variant,))


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, through links."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def fetched(hub: HubServer) -> list[str]:
    """Names of the files whose bytes were asked for, in that order."""
    return [each.path.partition(f"/{COMMIT}/")[2] for each in hub.asked("GET", "/resolve/")]


def listing_bytes(hub: HubServer) -> int:
    """What the answers about repositories took."""
    return sum(len(hub.files[each.path]) for each in hub.asked("GET", "/api/models/"))


def snapshot_of(root: Path, commit: str = COMMIT) -> Path:
    """Where the user of `make_store` has the checkpoint of that commit."""
    return hub_blobs(root, CHECKPOINT).parent / "snapshots" / commit
