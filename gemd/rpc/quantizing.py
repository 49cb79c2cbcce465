"""Variants that are made here by quantizing others."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.catalog.local import is_path, local_profile, size_on_disk
from gemd.catalog.profile import LOCAL
from gemd.catalog.quantizations import NVFP4, predicted_bytes
from gemd.catalog.sources import LocalSource
from gemd.errors import ModelNotFoundError, OperationConflictError
from gemd.rpc.convert.fields import invalid, required_model_id, short_text
from gemd.rpc.quantize_choice import of_path, of_profile, quantization
from gemd.rpc.quantize_process import Engine
from gemd.rpc.quantize_wish import Wish
from gemd.rpc.quantize_work import Work
from gemd.rpc.upkeep import Coming
from gemd.store import Kind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from pydantic import JsonValue

    from gemd.catalog import Profile
    from gemd.rpc.library import Library
    from gemd.rpc.quantize_choice import Wanted
    from gemd.rpc.quantize_wish import Check
    from gemd.rpc.upkeep import Upkeep
    from gemd.store import Operation, Operations, PullProgress, Quantized
    from gemd.v1 import store_service_pb2 as service

    Report = Callable[[PullProgress], None]


class Quantizing:
    """Variants that are made here by quantizing others.

    Args:
        library: Catalogue and store.
        operations: Runs the work.
        check: Verifies what was made.
        upkeep: Keeps the quota.

    """

    def __init__(
        self, *, library: Library, operations: Operations, check: Check, upkeep: Upkeep
    ) -> None:
        self._library = library
        self._operations = operations
        self._check = check
        self._upkeep = upkeep
        operations.register(Kind.QUANTIZE, self._again)

    def begin(self, request: service.QuantizeModelRequest) -> Operation:
        """Start or join the operation.

        Raises:
            ModelNotFoundError: There is no such model, file or directory.
            InvalidRequestError: It cannot become that.
            EngineMissingError: NVFP4 is computed with torch, and there is none.
            OperationConflictError: Something else is done to the model.

        """
        name = required_model_id(request.model)
        kind = quantization(short_text(request.quantization, field="quantization"))
        if request.quantize_dense and kind != NVFP4:
            raise invalid(
                "quantize_dense", f"{kind} has no dense layers to choose", why="only NVFP4 does"
            )
        wish = Wish(
            model=name,
            quantization=kind,
            source=short_text(request.source_variant, field="source_variant"),
            variant=short_text(request.variant, field="variant"),
            force=request.force,
            discard_source=request.discard_source,
            accept_licence=request.accept_licence,
            dense=request.quantize_dense,
            importance=_importance(request.importance_matrix, kind),
            since=time.time(),
        )
        wanted = self._wanted(wish)
        # The next daemon starts from the same source, whatever else is on disk by then.
        settled = wish.model_copy(
            update={
                "source": wanted.source.id if wanted.source else "",
                "variant": wanted.variant,
            }
        )
        return self._operations.start(
            Kind.QUANTIZE,
            wanted.model,
            self._work(settled, wanted),
            variant=wanted.variant,
            request_id=short_text(request.request_id, field="request_id"),
            resume=settled.model_dump(),
            check=lambda running, resume: _check_same(
                running, Wish.model_validate(resume), settled
            ),
        )

    def _again(self, resume: Mapping[str, JsonValue]) -> Callable[[Report], Awaitable[Quantized]]:
        wish = Wish.model_validate(resume)
        return self._work(wish, self._wanted(wish))

    def _work(self, wish: Wish, wanted: Wanted) -> Callable[[Report], Awaitable[Quantized]]:
        engine = self._engine(wanted)
        work = Work(
            library=self._library, wish=wish, wanted=wanted, engine=engine, check=self._check
        )
        return self._upkeep.within_quota(work.run, *_coming(wish, wanted))

    def _wanted(self, wish: Wish) -> Wanted:
        if is_path(wish.model):
            return self._of_path(wish, Path(wish.model))
        profile, source = self._library.resolve(wish.model), wish.source
        if own := self._own_path(profile):
            named = source or (profile.variants[0].id if profile.id != profile.model else "")
            if named:
                raise invalid(
                    "source_variant",
                    f"{wish.quantization} is not made of {profile.model}:{named}",
                    why=f"what is made of {profile.model} is made of {own}; leave the variant out",
                )
            return self._of_path(wish, own)
        if profile.id != profile.model:
            # MODEL:VARIANT names the source.
            source = source or profile.variants[0].id
            profile = self._library.resolve(profile.model)
        return of_profile(
            profile,
            wish.quantization,
            source=source,
            variant=wish.variant,
            dense=wish.dense,
            on_disk=lambda variant: self._library.file_of(profile, variant) is not None,
        )

    def _own_path(self, profile: Profile) -> Path | None:
        """The user's own file that a model is, or was made from."""
        if profile.family != LOCAL:
            return None
        source = profile.variants[0].sources[0]
        if isinstance(source, LocalSource):
            return source.path
        made_from = self._library.made_from().get(profile.model)
        return Path(made_from) if made_from else None

    def _of_path(self, wish: Wish, path: Path) -> Wanted:
        if wish.source:
            raise invalid("source_variant", "a path has no variants to choose from")
        return of_path(
            path,
            wish.quantization,
            variant=wish.variant,
            dense=wish.dense,
            taken=self._library.catalog.names,
            own=self._library.made_from(),
            checkpoint=lambda folder: local_profile(str(folder)),
        )

    def _engine(self, wanted: Wanted) -> Engine:
        environ = self._library.environ
        if wanted.engine == "llama":
            return Engine("cpu", None, environ)
        spot = self._library.torch_spot()
        return Engine(spot.device, spot.overlay, {**environ, **spot.environ})


def _check_same(running: Operation, known: Wish, wish: Wish) -> None:
    """One that makes something else under the same name cannot be joined.

    Raises:
        OperationConflictError: The running one, `known`, is such a one.

    """
    if known.result != wish.result:
        name = f"{running.model}:{running.variant}"
        raise OperationConflictError(
            f"{name} is being made already, from something else or in another way",
            why=f"that makes {known.quantization} of {known.source or known.model}",
            advice=(f"gemctl ops watch {running.id}", f"gemctl ops cancel {running.id}"),
            metadata={"model": running.model, "operation": running.id},
        )


def _coming(wish: Wish, wanted: Wanted) -> Iterator[Coming]:
    """What comes to disk: the source, if it has to be fetched and is to stay, and the result."""
    size = 0
    if wanted.source is not None:
        source = wanted.source
        size = predicted_bytes(source.size_bytes, source.quantization.upper(), wanted.quantization)
        if source.pullable and not wish.discard_source:
            yield Coming(wanted.model, source.id, source.size_bytes, source)
    elif wanted.path is not None:
        size = predicted_bytes(size_on_disk(str(wanted.path)) or 0, "BF16", wanted.quantization)
    yield Coming(wanted.model, wanted.variant, size)


def _importance(path: str, kind: str) -> str:
    if not path:
        return ""
    if kind == NVFP4:
        raise invalid("importance_matrix", "NVFP4 takes no importance matrix")
    if not path.startswith("/") or "\0" in path:
        raise invalid("importance_matrix", "importance_matrix must be an absolute path")
    if not Path(path).is_file():
        raise ModelNotFoundError(
            f"there is no importance matrix {path}",
            why="no file has that name",
            advice=(f"ls -l {path}",),
            metadata={"field": "importance_matrix", "path": path},
        )
    return path
