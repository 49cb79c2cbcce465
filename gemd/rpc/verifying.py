"""The files of variants, checked; what was found decides whether they are served."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

import structlog
from pydantic import BaseModel, ConfigDict

from gemd.errors import EngineMissingError, OperationConflictError
from gemd.hardware import RAM, SensorBlindError
from gemd.hardware.ram import main_memory
from gemd.residency.states import State
from gemd.rpc.convert.fields import check_known, required_model_id, short_text
from gemd.rpc.torch_placing import TorchSpot
from gemd.rpc.verify_orders import Means, order_of, order_of_made, subjects_of
from gemd.rpc.verify_process import Engine, examined
from gemd.store import Kind, Verified
from gemd.store.progress import Tracker, Unit
from gemd.store.refusals import not_on_disk
from gemd.store.threads import in_thread
from gemd.v1 import store_service_pb2 as service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from pydantic import JsonValue

    from gemd.residency.manager import Manager
    from gemd.rpc.library import Library
    from gemd.rpc.quantize_wish import Finished
    from gemd.rpc.verify_orders import Depth, Subject
    from gemd.store import Checked, Operation, Operations, PullProgress
    from gemd.wire.verify import Examine

    Report = Callable[[PullProgress], None]

log = structlog.get_logger(__name__)

_DEPTHS: Final[Mapping[int, Depth]] = {
    service.VerifyModelRequest.DEPTH_UNSPECIFIED: "files",
    service.VerifyModelRequest.DEPTH_HASHES: "files",
    service.VerifyModelRequest.DEPTH_FULL: "full",
}
_MARGIN_BYTES: Final = 1 << 30
"""Of main memory, what a verification leaves to the desktop."""
_HASHES: Final = "sha256"
"""The check that has read all bytes and found them to be those of the manifest."""
_EARLIER: Final = " (found by an earlier verification that went deeper)"


class _Wish(BaseModel):
    """One verification as it was asked for; this is what the next daemon gets.

    Attributes:
        model: Name of the profile.
        variant: Id of the variant; empty for all that are on disk.
        depth: How much to check.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    variant: str
    depth: Literal["files", "full"]


class Verifying:
    """The files of variants, checked.

    Args:
        library: Catalogue and store.
        manager: Knows what is loaded.
        operations: Runs the work.

    """

    def __init__(self, *, library: Library, manager: Manager, operations: Operations) -> None:
        self._library = library
        self._manager = manager
        self._operations = operations
        operations.register(Kind.VERIFY, self._again)

    def begin(self, request: service.VerifyModelRequest) -> Operation:
        """Start or join the operation.

        Raises:
            ModelNotFoundError: There is no such model.
            InvalidRequestError: It has no such variant.
            OperationConflictError: Something else is done to the model.

        """
        check_known(request.depth, _DEPTHS, field="depth")
        profile = self._library.resolve(required_model_id(request.model))
        variant = short_text(request.variant, field="variant")
        if variant:
            variant = self._library.store.chosen(profile, variant).id
        elif profile.id != profile.model:
            # MODEL:VARIANT is that variant, and not all that is kept of the model.
            variant = profile.variants[0].id
        wish = _Wish(model=profile.id, variant=variant, depth=_DEPTHS[request.depth])
        return self._operations.start(
            Kind.VERIFY,
            profile.model,
            self._work(wish),
            variant=variant,
            resume=wish.model_dump(),
            check=lambda running, resume: _check_depth(running, _Wish.model_validate(resume), wish),
        )

    async def check_made(self, finished: Finished, tracker: Tracker) -> tuple[Checked, ...]:
        """All checks of what a quantizer has made, before it is accepted.

        Raises:
            GemdError: This machine cannot check it.

        """
        order = order_of_made(finished, self._means(finished.wanted.engine))
        name = f"{finished.wanted.model}:{finished.wanted.variant}"
        return await self._examined(order, name, tracker, unit=_unit(name, order))

    def _again(self, resume: Mapping[str, JsonValue]) -> Callable[[Report], Awaitable[Verified]]:
        return self._work(_Wish.model_validate(resume))

    def _work(self, wish: _Wish) -> Callable[[Report], Awaitable[Verified]]:
        async def work(report: Report) -> Verified:
            tracker = Tracker(report, clock=time.monotonic, wall=time.time)
            tracker.enter("verifying")
            subjects = await in_thread(lambda _: self._subjects(wish), abandon=True)
            checks: list[Checked] = []
            for subject in subjects:
                found = await self._checked(subject, wish.depth, tracker)
                checks += found if len(subjects) == 1 else _named(subject, found)
            return Verified(tuple(checks))

        return work

    def _subjects(self, wish: _Wish) -> list[Subject]:
        store, profile = self._library.store, self._library.resolve(wish.model)
        variants = profile.every_variant
        if wish.variant:
            variants = (store.chosen(profile, wish.variant),)
        subjects = subjects_of(store, profile, variants)
        if not subjects:
            raise not_on_disk(profile, variants[0])
        return subjects

    async def _checked(
        self, subject: Subject, depth: Depth, tracker: Tracker
    ) -> tuple[Checked, ...]:
        """One variant; the result is in its manifest afterwards, if it has one."""
        means = self._means(subject.variant.engine)
        root = self._library.store.root
        order = await in_thread(lambda _: order_of(subject, root, depth, means), abandon=True)
        found = await self._examined(order, subject.name, tracker, unit=_unit(subject.name, order))
        if subject.manifest is not None:
            found = await asyncio.to_thread(self._noted, subject, found)
        # Only now: what is loaded is no part of what the manifest says.
        return self._with_loaded(subject, found)

    async def _examined(
        self, order: Examine, name: str, tracker: Tracker, *, unit: Unit
    ) -> tuple[Checked, ...]:
        tracker.plan((unit,))
        tracker.begin(unit.id)
        checks = await examined(
            order, name=name, engine=self._engine(order), tracker=tracker, unit=unit.id
        )
        tracker.complete(unit.id)
        failed = next((each for each in checks if not each.passed), None)
        log.info("verify.ended", variant=name, failed=failed.check if failed else "")
        return checks

    def _noted(self, subject: Subject, found: tuple[Checked, ...]) -> tuple[Checked, ...]:
        """Writes what was found into the manifest, if it is still about these bytes.

        A check that an earlier verification has failed and this one has not made still counts.
        """
        store = self._library.store
        assert subject.manifest is not None
        entry = store.entry(subject.manifest.model, subject.manifest.variant)
        if entry is None or entry.manifest.sha256 != subject.manifest.sha256:
            return found
        kept = kept_checks(entry.manifest.checks, found)
        every = (*found, *kept)
        failed = next((each for each in every if not each.passed), None)
        hashed = any(each.passed for each in found if each.check == _HASHES)
        store.record(
            entry.manifest.model_copy(
                update={
                    "verified": datetime.now(UTC) if hashed else entry.manifest.verified,
                    "checks": every,
                    "rejection": f"{failed.check}: {failed.detail}" if failed else "",
                }
            )
        )
        open_ones = [each for each in kept if not each.passed]
        return (*found, *(_earlier(each) for each in open_ones))

    def _with_loaded(self, subject: Subject, found: tuple[Checked, ...]) -> tuple[Checked, ...]:
        """The checks; the failed one says who goes on with the bad weights."""
        if all(each.passed for each in found):
            return found
        said = "".join(
            f"; {each.model} is loaded with it and goes on answering until it is unloaded "
            f"(gemctl unload {each.model})"
            for each in self._manager.residences().values()
            if each.path == str(subject.path) and each.state in {State.READY, State.DRAINING}
        )
        return tuple(
            each if each.passed else each.model_copy(update={"detail": each.detail + said})
            for each in found
        )

    def _means(self, engine: str) -> Means:
        device = self._spot().device if engine == "diffusion" else "cpu"
        return Means(self._library.threads, self._free_memory(), device)

    def _free_memory(self) -> int:
        """What may be taken of main memory without taking it from what is warm."""
        try:
            available = main_memory().available
        except SensorBlindError:
            return 0
        # The pages of weights that a worker has mapped count as available.
        ours = sum(each.measured.get(RAM, 0) for each in self._manager.residences().values())
        return max(0, available - ours - _MARGIN_BYTES)

    def _engine(self, order: Examine) -> Engine:
        environ = self._library.environ
        if order.engine != "diffusion":
            return Engine(None, environ)
        spot = self._spot()
        return Engine(spot.overlay, {**environ, **spot.environ})

    def _spot(self) -> TorchSpot:
        try:
            return self._library.torch_spot()
        except EngineMissingError:
            # Sizes, hashes and headers need none; the others say that they were not made.
            return TorchSpot("cpu", None, {})


def _check_depth(running: Operation, known: _Wish, wish: _Wish) -> None:
    """One that goes less deep cannot be joined.

    Raises:
        OperationConflictError: The running one, `known`, is such a one.

    """
    if wish.depth == "full" != known.depth:
        model = running.model
        raise OperationConflictError(
            f"{model} is being verified already, less deeply",
            why="the running verification compares it with nothing and does not load it",
            advice=(f"gemctl ops cancel {running.id}", f"gemctl verify {model} --full"),
            metadata={"model": model, "operation": running.id},
        )


def kept_checks(before: Sequence[Checked], found: Sequence[Checked]) -> tuple[Checked, ...]:
    """Checks of an earlier verification that the latest one has not made. Pure."""
    made = {each.check for each in found}
    return tuple(each for each in before if each.check not in made)


def _earlier(check: Checked) -> Checked:
    return check.model_copy(update={"detail": check.detail + _EARLIER})


def _named(subject: Subject, checks: Sequence[Checked]) -> list[Checked]:
    return [
        each.model_copy(update={"detail": f"{subject.variant.id}: {each.detail}"})
        for each in checks
    ]


def _unit(name: str, order: Examine) -> Unit:
    """What is read from end to end: everything once for its scales, and once for its hash."""
    size = sum(file.size_bytes for file in order.files)
    return Unit(name, name, total=size * (1 + any(file.sha256 for file in order.files)))
