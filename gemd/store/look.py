"""Headers of files on the hub, read by ranges: what a model takes is known before it is fetched.

What was looked at is kept as a file with the header and a hole in place of the weights
(`gemd.footprint.sparse_twin`), one for each variant, so that the next plan asks nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.catalog.sources import HubSource
from gemd.errors import DiskFullError, NotImplementedYetError
from gemd.footprint import gguf_header
from gemd.footprint.source import RemoteSource
from gemd.footprint.twin import sparse_twin
from gemd.store import hub
from gemd.store.http import Http, UnreachableError
from gemd.store.threads import in_thread

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog import Profile, Variant
    from gemd.store.hub import HubFile
    from gemd.store.threads import Stop
    from gemd.store.transport import Transport

KEPT: Final = 16
"""Twins; each takes up to some 16 MB of disk."""
_PARTIAL: Final = 206
_MARK: Final = 16
"""Hexadecimal digits of a hash that tell one file's twin from the next one's."""
_ANY: Final = "?" * _MARK


@dataclass(frozen=True, slots=True)
class Look:
    """A look at a file of the hub.

    Attributes:
        twin: The header, with a hole in place of the weights.
        fetched_bytes: What it took.

    """

    twin: Path
    fetched_bytes: int


class Looks:
    """Looks at files of the hub, and keeps what was seen.

    Args:
        folder: Where twins are kept; made when there is the first one.
        transport: How to reach the hub.

    """

    def __init__(self, folder: Path, transport: Transport) -> None:
        self._folder = folder
        self._transport = transport
        # Two looks at one file would write, and clear away, the same names.
        self._one_at_a_time = asyncio.Lock()

    def seen(self, profile: Profile, variant: Variant) -> Path | None:
        """The twin of an earlier look; None if there was none, or it was at another file."""
        wanted = variant.sha256[:_MARK] or _ANY
        found = sorted(self._folder.glob(f"{_stem(profile, variant)}.{wanted}.gguf"))
        return found[-1] if found else None

    async def look(self, profile: Profile, variant: Variant) -> Look:
        """Read the header of a variant's file.

        Raises:
            NotImplementedYetError: It is no single file of the hub.
            BadModelFileError: It is no GGUF file, or its header is of no sensible size.
            HubUnreachableError: And what else `hub.ask` raises.
            DiskFullError: There is no room for the header.

        """
        source = next((each for each in variant.sources if isinstance(each, HubSource)), None)
        if source is None or variant.engine != "llama":
            raise NotImplementedYetError(
                f"{profile.id} {variant.id} cannot be looked at before it is fetched",
                why="only single GGUF files of the hub can",
            )
        found = await hub.ask(source, variant, self._transport)
        async with self._one_at_a_time:
            return await in_thread(lambda stop: self._read(profile, variant, source, found, stop))

    def _read(
        self, profile: Profile, variant: Variant, source: HubSource, found: HubFile, stop: Stop
    ) -> Look:
        remote = RemoteSource(
            lambda start, end: self._fetch(found, start, end, stop),
            size=found.size_bytes or variant.size_bytes,
            name=source.file,
        )
        header = gguf_header(remote)
        mark = (variant.sha256 or found.etag)[:_MARK]
        path = self._folder / f"{_stem(profile, variant)}.{mark}.gguf"
        part = path.with_suffix(".part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            part.unlink(missing_ok=True)
            sparse_twin(remote, header, part)
            for old in self._folder.glob(f"{_stem(profile, variant)}.{_ANY}.gguf"):
                old.unlink(missing_ok=True)
            part.replace(path)
            self._forget_oldest()
        except OSError as error:
            raise DiskFullError(
                f"the header of {source.file} cannot be kept in {self._folder}",
                why=error.strerror or str(error),
                advice=(f"df -h {self._folder}",),
                metadata={"path": self._folder},
            ) from None
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        return Look(path, remote.fetched)

    def _fetch(self, found: HubFile, start: int, end: int, stop: Stop) -> bytes:
        transport = self._transport
        http = Http(
            transport.environ,
            connect_timeout_s=transport.connect_timeout_s,
            read_timeout_s=transport.read_timeout_s,
        )
        wanted = {"Range": f"bytes={start}-{end - 1}"}
        try:
            with http.get(found.url, stop=stop, headers=wanted, token=found.token) as reply:
                if reply.status != _PARTIAL:
                    raise hub.unreachable(
                        transport.hub_endpoint,
                        f"it answers {reply.status} to a request for a part of a file",
                    )
                data = bytearray()
                while len(data) < end - start:
                    piece = reply.read(end - start - len(data))
                    if not piece:
                        break
                    data += piece
                    stop.check()
                return bytes(data)
        except UnreachableError as error:
            raise hub.unreachable(transport.hub_endpoint, str(error)) from None

    def _forget_oldest(self) -> None:
        twins = sorted(self._folder.glob("*.gguf"), key=lambda each: os.stat(each).st_mtime)  # noqa: PTH116 -- one call each
        for old in twins[:-KEPT]:
            old.unlink(missing_ok=True)


def _stem(profile: Profile, variant: Variant) -> str:
    return f"{profile.id.replace('/', '_')}.{variant.id}"
