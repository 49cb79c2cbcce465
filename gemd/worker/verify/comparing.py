"""A GGUF model against its source: what it says of the same text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.errors import GemdError
from gemd.worker.verify import reading
from gemd.worker.verify.bounds import gate_of
from gemd.worker.verify.job import failed, failing, passed
from gemd.worker.verify.probability import Kept, Position, compared, comparison, kept_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from gemd.wire.verify import CheckMade
    from gemd.worker.llama.binding import Model
    from gemd.worker.verify.bounds import Gate
    from gemd.worker.verify.job import Job
    from gemd.worker.verify.probability import Comparison

DIVERGENCE: Final = "kl-divergence"
AGREEMENT: Final = "top-1"
PERPLEXITY: Final = "perplexity"


def check_predictions(job: Job) -> Iterator[CheckMade]:
    """Divergence, agreement and perplexity; all three come from one reading."""
    gate = gate_of(job.order.quantization, reading.parameters(job.path))
    why = _why_not(job, gate)
    if why or gate is None or job.source is None:
        job.leave_out(DIVERGENCE, why)
        return
    try:
        texts, kept = _reference(job, job.source)
    except GemdError as error:
        job.leave_out(DIVERGENCE, f"the source cannot be run: {error}")
        return
    with failing(DIVERGENCE), reading.opened(job.path) as model:
        if reading.windows(model, job.order.chat_template, job.order.windows) != texts:
            yield failed(DIVERGENCE, "it makes other tokens of the same text than its source")
            return
        found = comparison(_positions(job, model, texts, kept))
    yield from verdicts(found, gate, len(texts))


def verdicts(found: Comparison, gate: Gate, windows: int) -> Iterator[CheckMade]:
    """The three checks that a comparison amounts to."""
    text = f"{found.positions} tokens in {windows} windows"
    verdict = passed if found.divergence <= gate.divergence else failed
    yield verdict(
        DIVERGENCE,
        f"mean {found.divergence:.4f} nats, 99 % below {found.divergence_p99:.3f}; {text}",
        value=found.divergence,
        limit=gate.divergence,
    )
    verdict = passed if found.agreement >= gate.agreement else failed
    yield verdict(
        AGREEMENT,
        f"the source's most likely token is its own too at {found.agreement:.1%} of them",
        value=found.agreement,
        limit=gate.agreement,
    )
    verdict = passed if found.ratio <= gate.perplexity else failed
    yield verdict(
        PERPLEXITY,
        f"{found.perplexity:.3f}, the source {found.reference_perplexity:.3f}",
        value=found.ratio,
        limit=gate.perplexity,
    )


def _why_not(job: Job, gate: Gate | None) -> str:
    """Why they cannot be compared; empty if they can."""
    if job.source is None:
        return "what it was made from is not here"
    if gate is None:
        return f"no figures are known for {job.order.quantization or 'this quantization'}"
    if job.source.is_dir():
        return "what it was made from is a checkpoint, which llama.cpp does not run"
    free = job.order.memory_bytes
    reasons = (
        reading.unloadable(path, reading.WINDOW_TOKENS, free) for path in (job.source, job.path)
    )
    return next(filter(None, reasons), "")


def _reference(job: Job, source: Path) -> tuple[list[list[int]], dict[tuple[int, int], Kept]]:
    """The text in the source's tokens, and what it predicts; some 2 MB."""
    kept: dict[tuple[int, int], Kept] = {}

    def take(window: int, position: int, logits: NDArray[np.float32], following: int) -> None:
        kept[window, position] = kept_of(logits, following)

    with reading.opened(source) as model:
        texts = reading.windows(model, job.order.chat_template, job.order.windows)
        reading.read(model, texts, threads=job.order.threads, take=take)
    return texts, kept


def _positions(
    job: Job,
    model: Model,
    texts: list[list[int]],
    kept: dict[tuple[int, int], Kept],
) -> list[Position]:
    found: list[Position] = []

    def take(window: int, position: int, logits: NDArray[np.float32], following: int) -> None:
        found.append(compared(kept[window, position], logits, following))

    reading.read(model, texts, threads=job.order.threads, take=take)
    return found
