"""One quantization from the source to the manifest: fetch, quantize, verify, accept."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from gemd.errors import BadModelFileError, ContentMismatchError, ModelNotFoundError
from gemd.quantities import human_bytes
from gemd.rpc.quantize_process import quantized
from gemd.rpc.quantize_steps import (
    changed_file,
    check_room,
    is_made_of,
    note_of_found,
    note_of_variant,
    recipe_of,
    source_files,
)
from gemd.rpc.quantize_wish import Finished
from gemd.store.accepting import accept, discard_work, seal, sealed
from gemd.store.disk import size_of_file
from gemd.store.layout import Layout
from gemd.store.locks import exclusive
from gemd.store.made import PROVENANCE, Workplace, file_name
from gemd.store.manifest import Checked, Making
from gemd.store.progress import Tracker, Unit
from gemd.store.provenance import Provenance, ResultFile, SourceNote
from gemd.store.results import Quantized
from gemd.store.snapshots import hub_cache
from gemd.store.threads import in_thread
from gemd.store.using_up import WEIGHTS, drop_rest, forget, may_be_used_up
from gemd.wire.quantize import Order

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.rpc.library import Library
    from gemd.rpc.quantize_choice import Wanted
    from gemd.rpc.quantize_process import Engine
    from gemd.rpc.quantize_wish import Check, Wish
    from gemd.store import Entry, ModelFile, PullProgress
    from gemd.store.manifest import Manifest
    from gemd.store.provenance import Recipe
    from gemd.store.threads import Stop
    from gemd.wire.quantize import Told

    Report = Callable[[PullProgress], None]

log = structlog.get_logger(__name__)


class Work:
    """Carries out one `Wish`.

    Args:
        library: Catalogue and store.
        wish: As it was asked for.
        wanted: What that means.
        engine: With what to compute.
        check: Verifies the result.
        disk_usage: As `shutil.disk_usage`.
        wall: Seconds since the epoch.

    """

    def __init__(
        self,
        *,
        library: Library,
        wish: Wish,
        wanted: Wanted,
        engine: Engine,
        check: Check,
        disk_usage: Callable[[Path], tuple[int, int, int]] = shutil.disk_usage,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._library = library
        self._store = library.store
        self._wish = wish
        self._wanted = wanted
        self._engine = engine
        self._check = check
        self._disk_usage = disk_usage
        self._wall = wall
        self._place = Workplace(library.store.root, wanted.model, wanted.variant)

    async def run(self, report: Report) -> Quantized:
        """The variant, accepted. Cancelled, it leaves what the next try goes on with.

        Raises:
            GemdError: As the pull of the source and the quantizer.
            ContentMismatchError: The result did not pass a check; nothing of it is left.

        """
        loop = asyncio.get_running_loop()
        tracker = Tracker(
            lambda progress: _soon(loop, report, progress), clock=time.monotonic, wall=self._wall
        )
        layout = Layout(self._store.root)
        with layout.refusals():
            await asyncio.to_thread(layout.make)
        lock = layout.variant_lock(self._wanted.model, self._wanted.variant)

        def waiting() -> None:
            tracker.enter("waiting", message="another gemd makes the same variant")

        # Two daemons may share one store.
        async with exclusive(lock, waiting):
            return await self._alone(report, tracker)

    async def _alone(self, report: Report, tracker: Tracker) -> Quantized:
        recipe = await in_thread(self._recipe)
        if there := await in_thread(lambda _: self._is_there(recipe), abandon=True):
            return there
        tracker.enter("resolving")
        note = await self._source(report, tracker)
        complete = await in_thread(lambda stop: self._sealed(recipe, note, stop))
        if complete is None:
            complete = await self._make(recipe, note, tracker)
        provenance = complete
        manifest = await asyncio.to_thread(
            lambda: accept(self._place, provenance, self._store.record)
        )
        await asyncio.to_thread(self._drop_source, note)
        return _result(manifest)

    def _is_there(self, recipe: Recipe) -> Quantized | None:
        """The variant, if it need not be made."""
        entry = self._entry()
        if entry is None or not entry.intact or entry.manifest.rejection:
            return None
        made = Provenance.read(self._place.made / PROVENANCE)
        if made is None or not is_made_of(made, self._wanted, recipe):
            return None
        if self._wish.force and entry.manifest.created.timestamp() < self._wish.since:
            return None
        return _result(entry.manifest)

    def _recipe(self, stop: Stop) -> Recipe:
        wish = self._wish
        return recipe_of(self._wanted, dense=wish.dense, importance=wish.importance, stop=stop)

    def _sealed(self, recipe: Recipe, note: SourceNote, stop: Stop) -> Provenance | None:
        """What an earlier try had completed, if that is the same."""
        found = sealed(self._place, self._entry(), stop.check)
        if found is None or not found.is_of(recipe, note):
            return None
        if self._wish.force and found.created.timestamp() < self._wish.since:
            return None
        return found

    def _entry(self) -> Entry | None:
        """The variant as it is on disk; one whose manifest is damaged is none."""
        with contextlib.suppress(ContentMismatchError):
            return self._store.entry(self._wanted.model, self._wanted.variant)
        return None

    # --- the source ---------------------------------------------------------------------

    async def _source(self, report: Report, tracker: Tracker) -> SourceNote:
        """What it is made from, on this machine and with its hashes."""
        before = await in_thread(lambda _: self._noted())
        if before is not None and before.manifest is not None:
            # Fetched for this, and being used up: nobody else knows it any more.
            return before
        if self._wanted.path is not None:
            note = await self._hashed(self._wanted.path, before, tracker)
        else:
            note = await self._of_variant(before, report, tracker)
        if not await in_thread(lambda _: self._may_go(note), abandon=True):
            note = note.model_copy(update={"manifest": None})
            if self._wish.discard_source:
                tracker.enter(
                    "resolving",
                    message="the source stays: it was not fetched for this, or others need it too",
                )
        await asyncio.to_thread(note.write, self._place.source_note)
        if note.manifest is not None:
            await asyncio.to_thread(forget, self._store.root, note.manifest)
        return note

    def _may_go(self, note: SourceNote) -> bool:
        """Whether the source is to go, and is nothing but what was fetched for this."""
        if note.manifest is None or not self._wish.discard_source:
            return False
        return may_be_used_up(note.manifest, self._store.root, self._store.entries())

    def _noted(self) -> SourceNote | None:
        """What an earlier try has noted of this source, as far as it is still true."""
        note = SourceNote.read(self._place.source_note)
        if note is None or note.source != self._wanted.source_name:
            return None
        if note.manifest is None:
            return note
        entry = self._store.entry(note.manifest.model, note.manifest.variant)
        if entry is None:
            return note
        # Either it was not forgotten yet, or somebody has pulled it since, and it is theirs.
        fetched = entry.manifest == note.manifest
        return note.model_copy(update={"fetched": fetched, "manifest": None})

    async def _of_variant(
        self, before: SourceNote | None, report: Report, tracker: Tracker
    ) -> SourceNote:
        profile, source = self._wanted.profile, self._wanted.source
        assert profile is not None
        assert source is not None
        here = await in_thread(lambda _: self._store.on_disk(profile, source.id), abandon=True)
        fetched = before is not None and before.fetched
        file: ModelFile
        if here:
            file = await in_thread(lambda _: self._store.locate(profile, source.id), abandon=True)
        else:
            fetched = True
            await in_thread(lambda _: self._check_room())
            file = await self._store.pull(
                profile, report, variant=source.id, accept_licence=self._wish.accept_licence
            )
        if file.manifest is None:
            return await self._hashed(file.path, before, tracker)
        return note_of_variant(self._wanted, file, fetched=fetched)

    def _check_room(self) -> None:
        """Before any byte of a source is fetched."""
        check_room(
            self._wanted,
            root=self._store.root,
            cache=hub_cache(self._library.environ),
            discard=self._wish.discard_source,
            disk_usage=self._disk_usage,
        )

    async def _hashed(self, path: Path, before: SourceNote | None, tracker: Tracker) -> SourceNote:
        def work(stop: Stop) -> SourceNote:
            if not path.exists():
                raise _gone(path)
            total = sum(map(size_of_file, source_files(path)))
            tracker.plan((Unit("source", path.name, total=total),))
            tracker.enter("checking")
            tracker.begin("source")
            return note_of_found(
                self._wanted, path, before, lambda count: tracker.advance("source", count), stop
            )

        return await in_thread(work)

    def _drop_source(self, note: SourceNote) -> None:
        """Removes what is left of a source that was fetched for this and was to go."""
        if note.manifest is None:
            return
        path = Path(note.path)
        with contextlib.suppress(OSError):
            # Its links went with its bytes; the folder of an empty commit would keep the rest.
            (path if path.is_dir() else path.parent).rmdir()
        drop_rest(self._store.root, note.manifest, self._store.entries)
        log.info("quantize.source_discarded", path=note.path)

    # --- the result ---------------------------------------------------------------------

    async def _make(self, recipe: Recipe, note: SourceNote, tracker: Tracker) -> Provenance:
        wanted = self._wanted
        llama = wanted.engine == "llama"
        order = Order(
            source=note.path,
            target=str(self._place.files),
            name=file_name(wanted.model, wanted.quantization) if llama else "",
            quantization=wanted.quantization,
            quantize_dense=self._wish.dense,
            importance_matrix=self._wish.importance,
            discard_source=note.manifest is not None,
            threads=self._library.threads,
            device=self._engine.device,
        )
        made = await quantized(
            order,
            subject=f"the quantization of {wanted.model} to {wanted.quantization}",
            engine=self._engine,
            tracker=tracker,
            born=lambda pid: log.info("quantize.started", model=wanted.model, pid=pid),
        )
        if changed := await asyncio.to_thread(changed_file, note, gone=order.discard_source):
            raise _changed(Path(note.path), changed)
        tracker.enter("verifying")
        source = None if order.discard_source else Path(note.path)
        checks = await self._check(Finished(wanted, order, made, source), tracker)
        checks = (*checks, _ratio(note, made))
        failed = next((check for check in checks if not check.passed), None)
        if failed is not None:
            await asyncio.to_thread(discard_work, self._place)
            await asyncio.to_thread(self._drop_source, note)
            raise _rejected(wanted, failed)
        provenance = self._provenance(recipe, note, made, checks)
        await asyncio.to_thread(seal, self._place, provenance)
        return provenance

    def _provenance(
        self, recipe: Recipe, note: SourceNote, made: Told, checks: tuple[Checked, ...]
    ) -> Provenance:
        wanted = self._wanted
        return Provenance(
            model=wanted.model,
            variant=wanted.variant,
            making=Making(
                quantization=wanted.quantization,
                engine=wanted.engine,
                source=wanted.source_name,
                display_name=wanted.display_name,
                context_tokens=wanted.context_tokens,
            ),
            recipe=recipe,
            source=note.model_copy(update={"manifest": None}),
            licence=wanted.profile.licence if wanted.profile else "",
            plan=made.kinds,
            fallbacks=made.fallbacks,
            versions=made.versions,
            files=tuple(
                ResultFile(name=file.name, size_bytes=file.size_bytes, sha256=file.sha256)
                for file in made.files
            ),
            checks=checks,
            created=datetime.fromtimestamp(self._wall(), UTC),
        )


def _ratio(note: SourceNote, made: Told) -> Checked:
    """How much smaller it has become: no gate, but what it was done for."""
    before = sum(file.size_bytes for file in note.files if file.name.endswith(WEIGHTS))
    after = sum(file.size_bytes for file in made.files if file.name.endswith(WEIGHTS))
    share = after / max(before, 1)
    return Checked(
        check="size-ratio",
        passed=True,
        detail=f"{human_bytes(after)} of {human_bytes(before)}, {share:.0%}",
        value=share,
    )


def _soon(loop: asyncio.AbstractEventLoop, report: Report, progress: PullProgress) -> None:
    loop.call_soon_threadsafe(report, progress)


def _result(manifest: Manifest) -> Quantized:
    return Quantized(
        variant=manifest.variant,
        size_bytes=manifest.stamp.size_bytes,
        origin=manifest.origin,
        checks=manifest.checks,
    )


def _gone(path: Path) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"the source {path} is gone",
        why="no file or directory has that name any more",
        advice=(f"ls -l {path.parent}",),
        metadata={"path": path},
    )


def _changed(path: Path, file: str) -> BadModelFileError:
    return BadModelFileError(
        f"{path} has become another model meanwhile",
        why=f"{file} was written to, or removed, after it had been read",
        advice=(f"ls -lL {shlex.quote(str(path))}",),
        metadata={"path": path, "file": file},
    )


def _rejected(wanted: Wanted, failed: Checked) -> ContentMismatchError:
    name = f"{wanted.model}:{wanted.variant}"
    return ContentMismatchError(
        f"{name} was made and did not pass the check {failed.check}",
        why=failed.detail,
        advice=("gemctl doctor",),
        metadata={
            "model": wanted.model,
            "variant": wanted.variant,
            "check": failed.check,
            "value": failed.value,
            "limit": failed.limit,
        },
    )
