"""Variants that are fetched, also over a restart of the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from gemd.errors import OperationConflictError
from gemd.rpc.convert.fields import invalid, required_model_id, short_text
from gemd.rpc.upkeep import Coming
from gemd.rpc.variant_choice import choose_variant, plan_of
from gemd.store import Kind
from gemd.store.request import Request, asked, unusual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from pydantic import JsonValue

    from gemd.catalog import Profile, Source
    from gemd.catalog.choice import Plan
    from gemd.residency.decisions import Decisions
    from gemd.rpc.library import Library
    from gemd.rpc.upkeep import Upkeep
    from gemd.store import ModelFile, Operation, Operations, PullProgress
    from gemd.v1 import store_service_pb2 as service

    Report = Callable[[PullProgress], None]

_SOURCES = ("", "hub", "python-package", "local")


class _Wish(BaseModel):
    """One pull as it was asked for; this is what the next daemon gets.

    Attributes:
        model: Name of the profile.
        variant: Id of the variant.
        force: Fetch it although it is there.
        accept_licence: The user agrees to the terms.
        source: Kind of the only source to use; empty for all.
        revision: Of the source; empty for the profile's.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    variant: str
    force: bool
    accept_licence: bool
    source: str
    revision: str


class Pulling:
    """Variants that are fetched.

    Args:
        library: Catalogue and store.
        operations: Runs the work.
        upkeep: Keeps the quota.
        suits: What of a model suits this machine; None if nothing is seen of it.
        decisions: Where it is kept why a variant was taken.
        clock: The monotonic time of decisions, in seconds.

    """

    def __init__(
        self,
        *,
        library: Library,
        operations: Operations,
        upkeep: Upkeep,
        suits: Callable[[Profile], Awaitable[Plan | None]],
        decisions: Decisions,
        clock: Callable[[], float],
    ) -> None:
        self._library = library
        self._suits = suits
        self._decisions = decisions
        self._clock = clock
        self._operations = operations
        self._upkeep = upkeep
        operations.register(Kind.PULL, self._again)

    async def begin(self, request: service.PullModelRequest) -> Operation:
        """Start or join the operation.

        Without a variant it is about the one that suits this machine.

        A running pull of the variant is joined if it asks the same sources in the same order, at
        the same revision: one that names neither joins one that does only if what that names is all
        that the profile has. With `force` it joins only one that forces too; without it, either.

        Raises:
            ModelNotFoundError: There is no such model.
            InvalidRequestError: It has no such variant, or there is no such source.
            OperationConflictError: Something else is done to the model, or it is pulled from
                elsewhere, or without the checks of `force`.

        """
        profile = self._library.resolve(required_model_id(request.model))
        if request.source not in _SOURCES:
            raise invalid("source", f"source must be one of {', '.join(_SOURCES[1:])}")
        revision = short_text(request.revision, field="revision")
        request_id = short_text(request.request_id, field="request_id")
        wish = _Wish(
            model=profile.id,
            variant=await self._variant(profile, request.variant),
            force=request.force,
            accept_licence=request.accept_licence,
            source=request.source,
            revision=revision,
        )
        return self._operations.start(
            Kind.PULL,
            profile.model,
            self._work(profile, wish),
            variant=wish.variant,
            request_id=request_id,
            resume=wish.model_dump(),
            check=lambda running, resume: self._check_same(
                running, profile, _Wish.model_validate(resume), wish
            ),
        )

    def _check_same(self, running: Operation, profile: Profile, known: _Wish, wish: _Wish) -> None:
        """One that brings other bytes, or checks fewer of them, cannot be joined.

        Raises:
            OperationConflictError: The running one, `known`, is such a one.

        """
        if self._asked(profile, known) != self._asked(profile, wish):
            what = "from another source or revision"
            from_there = known.source or "the profile's sources"
            why = f"that asks {from_there}" + (f" at {known.revision}" if known.revision else "")
        elif wish.force and not known.force:
            what = "without force"
            why = "that does not check again what is on disk"
        else:
            return
        name = f"{running.model}:{running.variant}"
        raise OperationConflictError(
            f"{name} is being pulled already, {what}",
            why=why,
            advice=(f"gemctl ops watch {running.id}", f"gemctl ops cancel {running.id}"),
            metadata={"model": running.model, "operation": running.id},
        )

    def _asked(self, profile: Profile, wish: _Wish) -> list[Source]:
        """The sources that a pull may take the bytes from, in their order."""
        variant = self._library.store.chosen(profile, wish.variant)
        revision = unusual(variant, wish.revision)
        return asked(Request(profile, variant, source=wish.source, revision=revision))

    async def _variant(self, profile: Profile, named: str) -> str:
        if named or len(profile.variants) == 1:
            return self._library.store.chosen(profile, named).id
        plan = await plan_of(profile, self._suits)
        variant, decision = choose_variant(profile, plan, now=self._clock())
        if decision is not None:
            self._decisions.record(decision)
        return variant.id

    def _again(self, resume: Mapping[str, JsonValue]) -> Callable[[Report], Awaitable[ModelFile]]:
        wish = _Wish.model_validate(resume)
        profile = self._library.resolve(wish.model)
        return self._work(profile, wish)

    def _work(self, profile: Profile, wish: _Wish) -> Callable[[Report], Awaitable[ModelFile]]:
        async def work(report: Report) -> ModelFile:
            file = await self._library.store.pull(
                profile,
                report,
                variant=wish.variant,
                # Begun again after a restart, it finds what it has brought already: force checks
                # what is there, and fetches only what is not right.
                force=wish.force,
                accept_licence=wish.accept_licence,
                source=wish.source,
                revision=wish.revision,
            )
            await self._library.check(profile, file)
            return file

        chosen = self._library.store.chosen(profile, wish.variant)
        coming = Coming(profile.model, chosen.id, chosen.size_bytes, chosen)
        return self._upkeep.within_quota(work, coming)
