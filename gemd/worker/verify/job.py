"""One examination: what is to be checked, what could not be, and what a check says."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.errors import BadModelFileError, ContentMismatchError, ModelNotFoundError
from gemd.wire.quantize import TENSOR_LIST
from gemd.wire.verify import CheckMade, LeftOut, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gemd.wire.quantize import MadeTensor
    from gemd.wire.verify import Examine

CONTAINER: Final = "container"
CENSUS: Final = "tensor-census"
SCALES: Final = "scales"
SAMPLED_ERROR: Final = "sampled-error"
NO_ALLOC_LOAD: Final = "no-alloc-load"
SMOKE: Final = "smoke"
"""Names of checks that more than one format has."""

BROKEN = (BadModelFileError, ContentMismatchError, ModelNotFoundError)
"""Errors about the files themselves. Any other one is about this machine, and no verdict."""


@dataclass
class Job:
    """What all checks of one examination share.

    Attributes:
        order: What is to be checked.
        tell: Takes how far it is.
        left_out: Checks that could not be made.

    """

    order: Examine
    tell: Callable[[Progress], None]
    left_out: list[LeftOut] = field(default_factory=list)
    _check: str = ""
    _done: int = 0
    _total: int = 0

    @property
    def path(self) -> Path:
        """The file or directory."""
        return Path(self.order.path)

    @functools.cached_property
    def tensors(self) -> tuple[MadeTensor, ...]:
        """What its quantizer has written; nothing if that is not known, or the list is damaged."""
        if not self.order.tensors:
            return ()
        try:
            return TENSOR_LIST.validate_json(Path(self.order.tensors).read_bytes())
        except (OSError, ValueError):
            return ()

    @property
    def source(self) -> Path | None:
        """What it was made from, if that is here."""
        return Path(self.order.source) if self.order.source else None

    def begin(self, check: str) -> None:
        """That check is being made from now on."""
        self._check = check
        self._say()

    def plan(self, total_bytes: int) -> None:
        """So much is read from end to end by all checks together."""
        self._total = total_bytes

    def advance(self, count: int) -> None:
        """So many more bytes of that have been read."""
        self._done += count
        self._say()

    def leave_out(self, check: str, why: str) -> None:
        """A check that is to be made, and cannot be."""
        self.left_out.append(LeftOut(check=check, why=why))

    def _say(self) -> None:
        self.tell(Progress(check=self._check, current_bytes=self._done, total_bytes=self._total))


def passed(
    check: str, detail: str, *, value: float | None = None, limit: float | None = None
) -> CheckMade:
    """A check that found nothing wrong."""
    return CheckMade(check=check, passed=True, detail=detail, value=value, limit=limit)


def failed(
    check: str, detail: str, *, value: float | None = None, limit: float | None = None
) -> CheckMade:
    """A check that did."""
    return CheckMade(check=check, passed=False, detail=detail, value=value, limit=limit)


class FailedCheck(Exception):  # noqa: N818 - it is a verdict, and no error of this program
    """Ends a check that found something wrong, from wherever it was found."""

    def __init__(self, made: CheckMade) -> None:
        super().__init__(made.detail)
        self.made = made


@contextlib.contextmanager
def failing(check: str) -> Iterator[None]:
    """An error about the files is the check's verdict.

    Raises:
        FailedCheck: There was one.

    """
    try:
        yield
    except BROKEN as error:
        raise FailedCheck(failed(check, str(error))) from None
