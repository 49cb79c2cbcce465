"""A store with what makes variants in it, as a daemon has them, and models to make them from."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import psutil

from gemd.catalog import (
    Catalog,
    HubSource,
    LocalSource,
    Profile,
    Variant,
)
from gemd.config import Settings
from gemd.rpc.library import Library
from gemd.rpc.quantizing import Quantizing
from gemd.rpc.upkeep import Upkeep
from gemd.store import Checked, Manifest, OperationJournal, Operations, Quantized
from gemd.v1 import store_service_pb2 as service
from tests.support.stores import make_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from gemd.rpc.cleaning import Cleaning
    from gemd.rpc.quantize_wish import Finished
    from gemd.store import Operation, Store
    from gemd.store.progress import Tracker

REPOSITORY = "someone/tiny-f16-GGUF"
FILE = "tiny-BF16.gguf"
SLOWLY = "IQ4_XS"
"""Takes seconds where the others take a moment."""


def bf16(size_bytes: int, *sources: HubSource | LocalSource) -> Variant:
    """The unquantized variant."""
    return Variant(
        id="bf16",
        quantization="BF16",
        file_name=FILE,
        size_bytes=size_bytes,
        sources=sources or (HubSource(repository=REPOSITORY, file=FILE),),
    )


def q4(**changes: Any) -> Variant:
    """A quantized one, which others are not made from."""
    return Variant(
        **(
            {
                "id": "q4",
                "quantization": "Q4_0",
                "file_name": "tiny-Q4_0.gguf",
                "size_bytes": 1000,
                "sources": (HubSource(repository=REPOSITORY, file="tiny-Q4_0.gguf"),),
            }
            | changes
        )
    )


def model(*variants: Variant, **changes: Any) -> Profile:
    """A profile of the catalogue."""
    return Profile(
        **({"id": "tiny", "display_name": "Tiny", "family": "test", "variants": variants} | changes)
    )


async def sound(_: Finished, __: Tracker) -> tuple[Checked, ...]:
    """A check that passes."""
    return (Checked(check="looked-at", passed=True, detail="it is there"),)


@dataclass
class Shop:
    """A store, its catalogue, and what makes variants in it."""

    library: Library
    operations: Operations
    quantizing: Quantizing
    seen: list[Operation] = field(default_factory=list)

    @property
    def store(self) -> Store:
        """The store."""
        return self.library.store

    def begin(self, name: object, quantization: str, **fields: Any) -> Operation:
        """Begin a quantization."""
        return self.quantizing.begin(
            service.QuantizeModelRequest(model=str(name), quantization=quantization, **fields)
        )

    async def end(self, begun: Operation) -> Operation:
        """Its last snapshot."""
        snapshots = self.operations.watch(begun.id)
        async with contextlib.aclosing(snapshots):
            async for snapshot in snapshots:
                last = snapshot
        return last

    async def made(self, name: object, quantization: str, **fields: Any) -> Quantized:
        """What came of one."""
        last = await self.end(self.begin(name, quantization, **fields))
        if last.error is not None:
            raise last.error
        assert isinstance(last.result, Quantized)
        return last.result

    def manifest(self, name: str, variant: str) -> Manifest | None:
        """Of a variant."""
        entry = self.store.entry(name, variant)
        assert entry is None or entry.intact
        return None if entry is None else entry.manifest

    def working(self, name: str, variant: str) -> Path:
        """The folder in which it is made."""
        return self.store.root / "work" / name / variant


@contextlib.asynccontextmanager
async def shop(
    root: Path,
    *profiles: Profile,
    hub: str = "http://127.0.0.1:9",
    check: Callable[[Finished, Tracker], Awaitable[tuple[Checked, ...]]] = sound,
) -> AsyncIterator[Shop]:
    """What a daemon has of this; ends everything that it began."""
    store = make_store(root, hub=hub)
    library = Library(
        catalog=Catalog(profiles),
        store=store,
        settings=Settings(),
        threads=1,
        environ={**os.environ, "HOME": str(root)},
    )
    seen: list[Operation] = []
    operations = Operations(journal=OperationJournal(root / "operations"), observe=seen.append)
    # Without a quota nobody is asked what could give way (tests/rpc/test_rpc_cleaning.py).
    upkeep = Upkeep(store=store, cleaning=cast("Cleaning", None), quota_bytes=0)
    quantizing = Quantizing(library=library, operations=operations, check=check, upkeep=upkeep)
    try:
        yield Shop(library, operations, quantizing, seen)
    finally:
        await operations.close()


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def quantizers() -> list[psutil.Process]:
    """The quantizing processes of this test."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "gemd.worker.quantize" in child.cmdline():
                found.append(child)
    return found


async def at_work(one: Shop, variant: str) -> psutil.Process:
    """The quantizing process, once it has finished some tensors."""
    journal = one.working("tiny-bf16", variant) / "files" / "journal.jsonl"
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                if journal.read_bytes().count(b"\n") > 5:
                    break
            await asyncio.sleep(0.01)
    [process] = quantizers()
    return process
