"""What a judge has learnt, on disk: a file for each pair of models that it was learnt with."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from gemd.errors import GemdError
from gemd.routing.risk.labels import KEPT_LABELS, Label, Source
from gemd.routing.risk.running import KEPT
from gemd.routing.risk.signals import SIGNALS, VERSION
from gemd.routing.risk.verdicts import State
from gemd.store.disk import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

log = structlog.get_logger(__name__)

FORMAT: Final = 1
KEPT_FILES: Final = 8
"""Pairs that are not forgotten; the one written longest ago goes first."""
_DIGITS: Final = 6
_MOST_DRAFTS: Final = 1 << 53
_MOST_BYTES: Final = 8 << 20
"""A full state has less than one MiB."""


@dataclass(frozen=True, slots=True)
class Key:
    """What makes things learnt worthless when it changes.

    Attributes:
        drafter: Identity of the drafter's weights and engine.
        checker: The same of who scores and refines.
        signals: Version of the signals.

    """

    drafter: str
    checker: str
    signals: int = VERSION


class KeptStates:
    """The files of one folder. Reads and writes block.

    Args:
        folder: Where they are; made if it is not there.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, key: Key) -> Path:
        """The file of a pair."""
        digest = hashlib.sha256(json.dumps(asdict(key), sort_keys=True).encode()).hexdigest()
        return self._folder / f"{digest[:16]}.json"

    def load(self, key: Key) -> State:
        """What was learnt with that pair; nothing if there is no file.

        A file that cannot be read, or is none of ours, is moved aside: it is learnt again.
        """
        path = self.path(key)
        try:
            return state_of(_text(path), key)
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, RecursionError) as error:
            aside = path.with_suffix(".bad")
            log.warning("risk.unreadable", path=str(path), aside=str(aside), error=str(error))
            self._move(path, aside)
            return State()

    def save(self, key: Key, state: State) -> bool:
        """Write what was learnt; whether that went well. A failure is logged."""
        path = self.path(key)
        try:
            write_whole(path, text_of(state, key).encode())
            self._forget()
        except (OSError, GemdError) as error:
            log.warning("risk.not_written", path=str(path), error=str(error))
            return False
        return True

    def _move(self, path: Path, aside: Path) -> None:
        try:
            path.replace(aside)
        except OSError as error:
            log.warning("risk.not_moved", path=str(path), error=str(error))

    def _forget(self) -> None:
        files = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for path in files[:-KEPT_FILES]:
            path.unlink(missing_ok=True)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"more than {_MOST_BYTES} bytes are too many")
    return content.decode()


def text_of(state: State, key: Key) -> str:
    """As JSON. Signals of a label are a row in the order of the names, null for a missing one."""
    names = list(SIGNALS)
    return json.dumps(
        {
            "format": FORMAT,
            "key": asdict(key),
            "names": names,
            "judged": state.judged,
            "seen": {name: _rounded(values) for name, values in state.seen.items()},
            "drafts": _rounded(state.drafts),
            "finals": _rounded(state.finals),
            "refined": [int(value) for value in state.refined],
            "labels": [_row_of(label, names) for label in state.labels],
        },
        separators=(",", ":"),
        allow_nan=False,
    )


def state_of(text: str, key: Key) -> State:
    """From its JSON.

    Raises:
        ValueError: It is none, of another pair or another format, or its values make no sense.

    """
    try:
        found = json.loads(text)
        if found["format"] != FORMAT or found["key"] != asdict(key):
            raise ValueError("it is of another format or another pair of models")
        names = [name for name in found["names"] if name in SIGNALS]
        if names != found["names"]:
            raise ValueError("it has signals that there are not")
        return State(
            seen={name: _numbers(found["seen"][name], name) for name in found["seen"]},
            drafts=_shares(found["drafts"]),
            finals=_shares(found["finals"]),
            refined=_shares(found["refined"]),
            judged=_count(found["judged"]),
            labels=tuple(_label_of(row, names) for row in found["labels"][-KEPT_LABELS:]),
        )
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"it has another form: {error!r}") from error


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(value, _DIGITS) for value in values]


def _row_of(label: Label, names: list[str]) -> list[Any]:
    signals = [
        round(label.signals[name], _DIGITS) if name in label.signals else None for name in names
    ]
    return [
        label.good,
        label.source.value,
        label.weight,
        label.propensity,
        label.at,
        label.task,
        label.mode,
        label.origin,
        *signals,
    ]


def _label_of(row: list[Any], names: list[str]) -> Label:
    good, source, weight, propensity, at, task, mode, origin, *values = row
    if not isinstance(good, bool) or not 0 < weight <= 1 or not 0 < propensity <= 1:
        raise ValueError("a label makes no sense")
    signals = {
        name: _number(value, name)
        for name, value in zip(names, values, strict=True)
        if value is not None
    }
    return Label(
        signals=signals,
        good=good,
        source=Source(source),
        weight=float(weight),
        propensity=float(propensity),
        at=_number(at),
        task=str(task),
        mode=str(mode),
        origin=str(origin),
    )


def _numbers(values: list[Any], name: str = "") -> tuple[float, ...]:
    return tuple(_number(value, name) for value in values[-KEPT:])


def _shares(values: list[Any]) -> tuple[float, ...]:
    found = _numbers(values)
    if any(not 0 <= each <= 1 for each in found):
        raise ValueError("a score is not between 0 and 1")
    return found


def _number(value: object, name: str = "") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return SIGNALS[name].bounded(float(value)) if name else float(value)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MOST_DRAFTS:
        raise ValueError(f"{value!r} is no count")
    return value
