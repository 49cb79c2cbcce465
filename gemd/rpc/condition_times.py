"""Since when conditions hold, and which have begun, changed or ended. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.rpc.convert.fields import timestamp
from gemd.v1 import status_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence


class ConditionTimes:
    """Remembers from one look to the next; what holds at the first one holds since then.

    A condition is the same as before if its type and subject are: its reason and text may change.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], status_pb2.Condition] = {}

    def look(
        self, holding: Sequence[status_pb2.Condition], *, now: float
    ) -> list[status_pb2.Condition]:
        """Give each the time since which it holds, in all looks without a gap.

        Args:
            holding: All that hold now; what is not among them is over, and begins anew if it comes
                again. Their `last_transition_time` is set.
            now: Wall-clock second of the look.

        Returns:
            Those that began, that have another reason or severity, and, with STATUS_FALSE, those
            that are over. A text alone may change with every sample, and is no change.

        """
        before, self._known = self._known, {}
        changed = []
        for each in holding:
            key = each.type, each.subject
            known = before.get(key)
            each.last_transition_time.CopyFrom(
                timestamp(now) if known is None else known.last_transition_time
            )
            self._known[key] = each
            if known is None or (known.reason, known.severity) != (each.reason, each.severity):
                changed.append(each)
        over = before.keys() - self._known.keys()
        return [*changed, *(_over(before[key], now) for key in sorted(over))]


def _over(condition: status_pb2.Condition, now: float) -> status_pb2.Condition:
    over = status_pb2.Condition(
        type=condition.type,
        subject=condition.subject,
        status=status_pb2.Condition.STATUS_FALSE,
        severity=condition.severity,
        reason=condition.reason,
    )
    over.last_transition_time.CopyFrom(timestamp(now))
    return over
