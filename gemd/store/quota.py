"""Which variants give way when gemd's files may take no more than so many bytes. Pure.

Only what gemd itself fetched or made counts. A file that several variants name is there once, and
is freed with the last of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Holding:
    """A variant on disk, as far as its bytes are gemd's own.

    Attributes:
        model: Id of the model.
        variant: Of the variant.
        last_used: Seconds since the epoch.
        files: Bytes of its files by path; those that others put there are left out.

    """

    model: str
    variant: str
    last_used: float
    files: Mapping[str, int]

    @property
    def key(self) -> Key:
        """Model and variant."""
        return self.model, self.variant


def owned_bytes(holdings: Iterable[Holding]) -> int:
    """What they take together, each file once."""
    return sum({path: size for held in holdings for path, size in held.files.items()}.values())


def exclusive_bytes(
    held: Holding, holdings: Iterable[Holding], elsewhere: Collection[str] = ()
) -> int:
    """What would be free without it: its files that no other one names, and nobody `elsewhere`."""
    others = {path for other in holdings if other.key != held.key for path in other.files}
    others.update(elsewhere)
    return sum(size for path, size in held.files.items() if path not in others)


def evictable(
    holdings: Sequence[Holding],
    *,
    keep_bytes: int,
    protected: Collection[Key] = (),
    last: Collection[Key] = (),
) -> list[Holding]:
    """The variants that go so that the rest takes at most so many bytes, in the order of going.

    The longest unused go first, and no more than it takes. If all that may go are not enough, they
    go all the same. One that would free nothing stays: all its files are another one's too, which
    stays.

    Args:
        holdings: All there are.
        keep_bytes: The most that may be left.
        protected: Those that never go.
        last: Those that go only when no other one is left.

    """
    order = sorted(
        (held for held in holdings if held.key not in protected),
        key=lambda held: (held.key in last, held.last_used, held.key),
    )
    left, owners = owned_bytes(holdings), _owners(holdings)
    gone: list[Holding] = []
    for held in order:
        if left <= keep_bytes:
            break
        gone.append(held)
        left -= _release(held, owners)
    return _useful(gone, holdings)


def unused(
    holdings: Sequence[Holding], *, before: float, protected: Collection[Key] = ()
) -> list[Holding]:
    """The variants whose last use was before that second, the longest unused first.

    Without those that are protected, or that would free nothing.
    """
    gone = [held for held in holdings if held.last_used < before and held.key not in protected]
    return _useful(sorted(gone, key=lambda held: (held.last_used, held.key)), holdings)


def freed_in_turn(gone: Sequence[Holding], holdings: Iterable[Holding]) -> list[int]:
    """What each of them frees, if they go one after the other: what is shared with the last."""
    owners = _owners(holdings)
    return [_release(held, owners) for held in gone]


def _owners(holdings: Iterable[Holding]) -> Counter[str]:
    """How many name each file."""
    return Counter(path for held in holdings for path in held.files)


def _release(held: Holding, owners: Counter[str]) -> int:
    """Takes its name off its files; the bytes of those that nobody names any more."""
    freed = 0
    for path, size in held.files.items():
        owners[path] -= 1
        if not owners[path]:
            freed += size
    return freed


def _useful(gone: Sequence[Holding], holdings: Iterable[Holding]) -> list[Holding]:
    """Those of them with a file that nobody who stays names."""
    names = {held.key for held in gone}
    kept = {path for held in holdings if held.key not in names for path in held.files}
    return [held for held in gone if held.files.keys() - kept]
