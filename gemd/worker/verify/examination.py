"""The order of the checks, and where they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.wire.verify import Examined
from gemd.worker.memory import importing
from gemd.worker.verify import files
from gemd.worker.verify.job import (
    CENSUS,
    CONTAINER,
    NO_ALLOC_LOAD,
    SAMPLED_ERROR,
    SCALES,
    SMOKE,
    FailedCheck,
    Job,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gemd.wire.verify import CheckMade, Examine, Progress

    Check = Callable[[], Iterator[CheckMade]]

_WITH_TORCH: Final = (SAMPLED_ERROR, NO_ALLOC_LOAD, SMOKE)
_ENDED: Final = "; nothing after it was checked"


def examine(order: Examine, tell: Callable[[Progress], None]) -> Examined:
    """Make all checks that the order wants, until one fails: the next ones would mean nothing.

    Args:
        order: What is to be checked.
        tell: Takes how far it is.

    Raises:
        GemdError: This machine cannot check it; that says nothing about the files.

    """
    job = Job(order, tell)
    size = sum(file.size_bytes for file in order.files)
    job.plan(size * (1 + any(file.sha256 for file in order.files)))
    made: list[CheckMade] = []
    for name, check in _row(job):
        job.begin(name)
        try:
            made += check()
        except FailedCheck as verdict:
            made.append(verdict.made)
        if any(not each.passed for each in made):
            break
    return Examined(checks=_ended(made), left_out=tuple(job.left_out))


def _ended(made: list[CheckMade]) -> tuple[CheckMade, ...]:
    """The checks; the last one says so if it ended the row."""
    if made and not made[-1].passed:
        made[-1] = made[-1].model_copy(update={"detail": made[-1].detail + _ENDED})
    return tuple(made)


def _row(job: Job) -> Iterator[tuple[str, Check]]:
    """Every check by the name it is shown with while it is made, in order."""
    yield files.SIZES, lambda: files.check_sizes(job)
    yield files.SHA256, lambda: files.check_hashes(job)
    if job.order.engine == "llama":
        yield from _of_gguf(job)
    else:
        yield from _of_directory(job)


def _of_gguf(job: Job) -> Iterator[tuple[str, Check]]:
    # Only now: what has another size or hash need not wait for llama.cpp.
    from gemd.worker.verify import gguf, loading  # noqa: PLC0415 - as said

    checks = gguf.GgufChecks(job)
    try:
        yield CONTAINER, checks.container
        yield CENSUS, checks.census
        yield SCALES, checks.scales
        yield SAMPLED_ERROR, checks.sampled_error
    finally:
        checks.close()
    yield NO_ALLOC_LOAD, lambda: loading.check_no_alloc_load(job)
    if job.order.depth == "full":
        from gemd.worker.verify import comparing, smoke  # noqa: PLC0415 - as above

        yield comparing.DIVERGENCE, lambda: comparing.check_predictions(job)
        yield SMOKE, lambda: smoke.check_llama_smoke(job)


def _of_directory(job: Job) -> Iterator[tuple[str, Check]]:
    from gemd.worker.verify import checkpoint  # noqa: PLC0415 - as above

    checks = checkpoint.CheckpointChecks(job)
    yield CONTAINER, checks.container
    if job.order.engine == "none":
        yield CENSUS, checks.census
        yield SCALES, checks.scales
        return
    try:
        with importing():
            from gemd.worker.verify import diffusion  # noqa: PLC0415 - torch may not be there
    except ImportError as error:
        yield CENSUS, checks.census
        yield SCALES, checks.scales
        for name in _WITH_TORCH:
            job.leave_out(name, f"it needs the diffusion engine: {error}")
        return
    model = diffusion.DiffusionChecks(job)
    # What the plan says is one thing, and what the model needs another; it is one check.
    yield CENSUS, lambda: (each for each in checks.census() if not each.passed)
    yield CENSUS, model.census
    yield SCALES, checks.scales
    yield SAMPLED_ERROR, model.sampled_error
    yield NO_ALLOC_LOAD, model.no_alloc_load
    if job.order.depth == "full":
        yield SMOKE, model.smoke
