"""What models were measured to do on this machine: the speeds that routing prices with.

Every figure is a running median over the latest observations, which one request that met a busy
machine, or the first after a load, does not move. A request that shared its batch is slower than
one alone, and counts less by as much: routing asks what the next request will see, and that is
most often alone. Answers of a few tokens tell nothing of a rate and do not count at all.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import TYPE_CHECKING, Final

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gemd.errors import GemdError
from gemd.store.disk import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from gemd import wire

log = structlog.get_logger(__name__)

WINDOW: Final = 32
"""Observations of a figure that count."""
LEAST_WRITTEN: Final = 8
"""Tokens of an answer below which its rate is mostly the clock's."""
LEAST_READ: Final = 32
"""The same for a prompt."""
MOST_WEIGHT: Final = 256
"""Tokens beyond which an answer counts no more for being longer."""
LEAST_APART: Final = 64
"""Tokens between two prompts whose difference in time tells a rate."""
LEAST_PAIRS: Final = 8
"""Of such prompts, for a line through them."""
LEAST_DRAFTED: Final = 8
MOST: Final = 1e12
"""Of any figure. What is more is no measurement, and sums of it would overflow."""
KEPT: Final = 100
"""Models, variants, devices and engines that are remembered together."""
SAVE_AFTER: Final = 16
"""Observations. What a crash loses is learned again in as many requests."""
_LAYOUT: Final = 1


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one model is here. A figure that is not known is None.

    Attributes:
        prefill_tps: Tokens of a prompt read per second.
        decode_tps: Tokens written per second; None of a block-diffusion model.
        canvas_s: Of a block-diffusion model: seconds of one canvas, all its steps together.
        step_s: Likewise: seconds of one denoising step.
        canvas_steps: Likewise: steps of a canvas.
        load_s: Seconds from the decision to load until it answers.
        overhead_s: Seconds of reading that do not depend on the length of the prompt.
        accepted: Share of the tokens of foreign drafts that it would have written itself.
        samples: Answers that these figures come from; 0 if they are predicted.

    """

    prefill_tps: float | None = None
    decode_tps: float | None = None
    canvas_s: float | None = None
    step_s: float | None = None
    canvas_steps: float | None = None
    load_s: float | None = None
    overhead_s: float | None = None
    accepted: float | None = None
    samples: int = 0

    @property
    def measured(self) -> bool:
        """Whether at least one answer was seen; a load alone is none."""
        return self.samples > 0

    def or_else(self, predicted: Speed) -> Speed:
        """The same, with predictions where nothing was measured."""
        missing = {
            each.name: getattr(predicted, each.name)
            for each in fields(self)
            if getattr(self, each.name) is None
        }
        return replace(self, **missing)


UNKNOWN: Final = Speed()


def fingerprint(*, variant: str, device: str, engine: str) -> str:
    """What a measured speed holds for, as one text: other weights, place or build are others."""
    return f"{variant} on {device} by {engine}"


class _Weighted(BaseModel):
    """An observed value. One stream alone weighs 1 for each canvas or 256 tokens."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)
    value: float = Field(ge=0, le=MOST)
    weight: float = Field(gt=0, le=MOST)


class _Read(BaseModel):
    """A prompt that was read: tokens that no cache held, and seconds."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)
    tokens: int = Field(gt=0, le=MOST)
    seconds: float = Field(gt=0, le=MOST)


class _Record(BaseModel):
    """What was seen of one model, oldest first."""

    model_config = ConfigDict(extra="forbid")
    model: str
    fingerprint: str
    samples: int = Field(default=0, ge=0, le=MOST)
    reads: list[_Read] = []
    decode_tps: list[_Weighted] = []
    canvas_s: list[_Weighted] = []
    step_s: list[_Weighted] = []
    canvas_steps: list[_Weighted] = []
    load_s: list[_Weighted] = []
    accepted: list[_Weighted] = []

    @property
    def key(self) -> tuple[str, str]:
        return self.model, self.fingerprint

    def speed(self) -> Speed:
        """The figures of it."""
        rate, overhead = _reading(self.reads[-WINDOW:])
        return Speed(
            prefill_tps=rate,
            decode_tps=_median(self.decode_tps),
            canvas_s=_median(self.canvas_s),
            step_s=_median(self.step_s),
            canvas_steps=_median(self.canvas_steps),
            load_s=_median(self.load_s),
            overhead_s=overhead,
            accepted=_median(self.accepted),
            samples=self.samples,
        )


class _Kept(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid")
    layout: int = Field(ge=_LAYOUT, le=_LAYOUT)
    records: list[_Record]


class Speeds:
    """What was seen of each model as it is placed now, and of earlier placements.

    Args:
        fingerprint: What speeds of a model hold for now, by its id (`fingerprint`); whatever was
            measured under another one does not count.
        records: Of earlier runs.
        path: Where `save` writes; None for nowhere.

    """

    def __init__(
        self,
        fingerprint: Callable[[str], str],
        records: Iterable[_Record] = (),
        path: Path | None = None,
    ) -> None:
        self._fingerprint = fingerprint
        self._records = {each.key: each for each in records}
        self._path = path
        self._computed: dict[tuple[str, str], Speed] = {}
        self._unsaved = 0

    def of(self, model: str, predicted: Speed = UNKNOWN) -> Speed:
        """How fast a model is as it is placed now; `predicted` where nothing was measured yet."""
        key = model, self._fingerprint(model)
        if key not in self._records:
            return replace(predicted, samples=0)
        if key not in self._computed:
            self._computed[key] = self._records[key].speed()
        return self._computed[key].or_else(predicted)

    def observe(self, model: str, message: wire.Finished, *, streams: int = 1) -> None:
        """A model has ended an answer.

        Args:
            model: Which.
            message: What its worker says of it.
            streams: Answers that its engine wrote at the same time, this one included.

        """
        record = self._record(model)
        weight = 1 / max(1, streams)
        read = message.prompt_tokens - message.cached_tokens
        seen = _read(record, read, message.prefill_seconds)
        if message.trace is not None:
            seen |= _canvases(record, message, message.trace, weight)
        else:
            seen |= _written(record, message, weight)
        record.samples += seen
        self._noted(record, seen)

    def observe_reading(self, model: str, *, tokens: int, seconds: float) -> None:
        """A model has read so many tokens that no cache held, and written none."""
        record = self._record(model)
        self._noted(record, _read(record, tokens, seconds))

    def observe_load(self, model: str, seconds: float) -> None:
        """A load took so long."""
        record = self._record(model)
        seen = _put(record.load_s, seconds, 1.0)
        self._noted(record, seen)
        if seen:
            # There are few of them.
            self._unsaved += SAVE_AFTER

    def observe_speculation(self, model: str, *, drafted: int, accepted: int) -> None:
        """A model was given a draft, and took over a part of it."""
        if drafted < LEAST_DRAFTED:
            return
        record = self._record(model)
        share = min(1.0, max(0.0, accepted / drafted))
        self._noted(record, _put(record.accepted, share, min(1.0, drafted / MOST_WEIGHT)))

    @property
    def due(self) -> bool:
        """Whether enough was seen since the last `save` to be worth another."""
        return self._path is not None and self._unsaved >= SAVE_AFTER

    def save(self) -> None:
        """Write what was seen, if anything new was; a failure is logged, and tried again."""
        if self._path is None or not self._unsaved:
            return
        # What is seen while this is written comes with the next one.
        self._unsaved = 0
        kept = _Kept(layout=_LAYOUT, records=list(self._records.values()))
        try:
            write_whole(self._path, kept.model_dump_json().encode())
        except (OSError, GemdError) as error:
            log.warning("speeds.not_written", path=str(self._path), error=str(error))
            # Not at once: a full disk stays full for a while.
            self._unsaved += 1

    def _record(self, model: str) -> _Record:
        key = model, self._fingerprint(model)
        # The one that was seen last is forgotten last.
        record = self._records.pop(key, None) or _Record(model=model, fingerprint=key[1])
        self._records[key] = record
        while len(self._records) > KEPT:
            forgotten = next(iter(self._records))
            del self._records[forgotten]
            self._computed.pop(forgotten, None)
        return record

    def _noted(self, record: _Record, seen: bool) -> None:  # noqa: FBT001 - what the callers got
        if seen:
            self._computed.pop(record.key, None)
            self._unsaved += 1


def kept_speeds(path: Path, fingerprint: Callable[[str], str]) -> Speeds:
    """Those of the file; a file that is none is put aside, and all is measured anew."""
    return Speeds(fingerprint, _kept(path), path)


def _kept(path: Path) -> list[_Record]:
    try:
        return _Kept.model_validate_json(path.read_bytes()).records
    except FileNotFoundError:
        return []
    except OSError as error:
        log.warning("speeds.unreadable", path=str(path), error=str(error))
        return []
    except ValidationError as error:
        aside = path.with_name(f"{path.name}.bad")
        first = error.errors(include_url=False, include_input=False)[0]
        log.warning("speeds.bad_file", path=str(path), aside=str(aside), error=first["msg"])
        try:
            path.replace(aside)
        except OSError as failure:
            log.warning("speeds.unmoved", path=str(path), error=str(failure))
        return []


def _read(record: _Record, tokens: int, seconds: float) -> bool:
    if not (0 < tokens <= MOST and 0 < seconds <= MOST):
        return False
    record.reads.append(_Read(tokens=tokens, seconds=seconds))
    del record.reads[:-WINDOW]
    return True


def _written(record: _Record, message: wire.Finished, weight: float) -> bool:
    tokens, seconds = message.completion_tokens, message.decode_seconds
    # With a draft taken over it is another thing that is measured.
    if tokens < LEAST_WRITTEN or seconds <= 0 or message.drafted_tokens:
        return False
    # The first token ends the reading.
    rate = (tokens - 1) / seconds
    return _put(record.decode_tps, rate, weight * min(tokens, MOST_WEIGHT) / MOST_WEIGHT)


def _canvases(record: _Record, message: wire.Finished, trace: wire.Trace, weight: float) -> bool:
    # A canvas that was given up is in the time and not in the count.
    seconds = message.decode_seconds
    if message.reason == "cancelled" or seconds <= 0 or min(trace.canvases, trace.steps) <= 0:
        return False
    weight *= trace.canvases
    seen = _put(record.canvas_s, seconds / trace.canvases, weight)
    _put(record.step_s, seconds / trace.steps, weight)
    _put(record.canvas_steps, trace.steps / trace.canvases, weight)
    return seen


def _put(window: list[_Weighted], value: float, weight: float) -> bool:
    # NaN fails any comparison.
    if not (0 <= value <= MOST and 0 < weight <= MOST):
        return False
    window.append(_Weighted(value=value, weight=weight))
    del window[:-WINDOW]
    return True


def _median(window: Sequence[_Weighted]) -> float | None:
    """The value that half of the weight lies below; None of nothing."""
    half = sum(each.weight for each in window) / 2
    below = 0.0
    for each in sorted(window, key=lambda one: one.value):
        below += each.weight
        if below >= half:
            return each.value
    return None


def _reading(reads: Sequence[_Read]) -> tuple[float | None, float | None]:
    """Tokens per second, and what a prompt costs beside its length: seconds.

    The line through prompts of several lengths is Theil's and Sen's (the median of the slopes of
    all pairs), which a quarter of outliers does not bend. Where lengths differ too little for one,
    it is the median rate of those that are long enough, and the cost beside it is not known.
    """
    slopes = [
        (one.seconds - other.seconds) / (one.tokens - other.tokens)
        for one, other in combinations(reads, 2)
        if abs(one.tokens - other.tokens) >= LEAST_APART
    ]
    slope = statistics.median(slopes) if len(slopes) >= LEAST_PAIRS else 0.0
    if slope > 0:
        rest = statistics.median(each.seconds - slope * each.tokens for each in reads)
        return 1 / slope, max(0.0, rest)
    rates = [each.tokens / each.seconds for each in reads if each.tokens >= LEAST_READ]
    return (statistics.median(rates) if rates else None), None
