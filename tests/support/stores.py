"""Profiles, contents and settings for tests of the store."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from typing import TYPE_CHECKING

from gemd.catalog import HubSource, PackageSource, Profile, Variant
from gemd.store import Retries, Store, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gemd.catalog import PackagePart, Source

REPOSITORY = "someone/tiny-GGUF"
FILE = "tiny.gguf"
HUB_SOURCE = HubSource(repository=REPOSITORY, file=FILE)
QUICK = Retries(attempts=3, first_delay_s=0.01, longest_delay_s=2.0, progress_bytes=1 << 16)


def content(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress and are the same every time."""
    return random.Random(seed).randbytes(size)


def hub_profile(data: bytes, *more: Source, terms: str = "") -> Profile:
    """A model on the hub, with further sources."""
    return profile_of(data, HUB_SOURCE, *more, terms=terms)


def announced_profile(*sources: HubSource, size_bytes: int = 1000, model: str = "tiny") -> Profile:
    """A model on the hub whose bytes only the hub knows; `size_bytes` is what is predicted."""
    return Profile(
        id=model,
        display_name=model,
        family="test",
        licence="MIT",
        variants=(
            Variant(
                id="q4",
                quantization="Q4_0",
                file_name=FILE,
                size_bytes=size_bytes,
                sources=sources or (HUB_SOURCE,),
            ),
        ),
    )


def package_profile(data: bytes, *parts: PackagePart) -> Profile:
    """A model in packages only."""
    return profile_of(data, PackageSource(parts=parts))


def profile_of(data: bytes, *sources: Source, terms: str = "", model: str = "tiny") -> Profile:
    """A model with one variant of that content."""
    return Profile(
        id=model,
        display_name=model,
        family="test",
        licence="MIT",
        licence_url="https://example.org/terms",
        licence_acceptance=terms,
        variants=(
            Variant(
                id="q4",
                quantization="Q4_0",
                file_name=FILE,
                size_bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                sources=sources,
            ),
        ),
    )


def hub_cache_of(root: Path) -> Path:
    """The hub cache of the user of `make_store`."""
    return root / ".cache" / "huggingface" / "hub"


def hub_blobs(root: Path, repository: str = REPOSITORY) -> Path:
    """The folder of a repository's contents in it."""
    return hub_cache_of(root) / f"models--{repository.replace('/', '--')}" / "blobs"


def hub_part(root: Path, data: bytes) -> Path:
    """Where the unfinished file is that becomes that content."""
    return hub_blobs(root) / f"{hashlib.sha256(data).hexdigest()}.gemd.part"


def environ(home: Path, **more: str) -> dict[str, str]:
    """An environment without settings of pip or uv; `more` adds variables."""
    return {
        "HOME": str(home),
        "PATH": os.environ.get("PATH", ""),
        "PIP_CONFIG_FILE": "/dev/null",
        "UV_CONFIG_FILE": "/dev/null",
        "NO_PROXY": "*",
        **more,
    }


def make_store(
    root: Path,
    *,
    hub: str = "http://127.0.0.1:9",
    env: Mapping[str, str] | None = None,
    retries: Retries = QUICK,
    hub_timeout_s: float = 5.0,
    read_timeout_s: float = 5.0,
    offline: bool = False,
    xet: bool = False,
    disk_usage: Callable[[Path], tuple[int, int, int]] = shutil.disk_usage,
    wall: Callable[[], float] = time.time,
) -> Store:
    """A store in a folder; by default with a hub that refuses connections."""
    transport = Transport(
        hub_endpoint=hub,
        hub_timeout_s=hub_timeout_s,
        offline=offline,
        xet=xet,
        read_timeout_s=read_timeout_s,
        retries=retries,
        environ=env if env is not None else environ(root),
    )
    return Store(root / "store", transport=transport, disk_usage=disk_usage, wall=wall)
