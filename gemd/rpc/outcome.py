"""What becomes of one request's draft, for what can be learnt of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd import wire
from gemd.routing.cascade import Ended, Judged, Resolution
from gemd.routing.risk import Label, Source, compare
from gemd.rpc.shadow import Shipped

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.routing.cascade import Job
    from gemd.routing.cascade.events import Event
    from gemd.rpc.shadow import ShadowRuns


class Outcome:
    """Follows one request.

    Args:
        job: The request.
        add: Takes a label.
        shadow: Takes a shipped draft; None: nobody does.
        wall: Seconds since the epoch.

    """

    def __init__(
        self,
        job: Job,
        add: Callable[[Label], None],
        shadow: ShadowRuns | None,
        *,
        wall: Callable[[], float],
    ) -> None:
        self._job = job
        self._add = add
        self._shadow = shadow
        self._wall = wall
        self._judged: Judged | None = None
        self._texts: list[str] = []

    def note(self, event: Event) -> None:
        """Something happened to it."""
        match event:
            case Judged():
                self._judged = event
            case wire.Delta() if self._judged is not None:
                self._texts.append(event.text)
            case Ended() if self._judged is not None and event.message.reason != "cancelled":
                self._end(event, self._judged)

    def _end(self, event: Ended, judged: Judged) -> None:
        if event.way.resolution is Resolution.KEPT:
            self._offer(judged)
            return
        good = compare(self._job.question, judged.draft, "".join(self._texts))
        if good is None:
            return
        # The strong answer to a closed question tells for nothing whether the draft was right.
        self._add(
            Label(
                signals=judged.judgement.signals,
                good=good,
                source=Source.SHADOW,
                at=self._wall(),
                task=judged.judgement.task,
                mode=self._job.asked.mode.value,
                origin=f"{self._job.request_id}/0",
            )
        )

    def _offer(self, judged: Judged) -> None:
        if self._shadow is None:
            return
        self._shadow.offer(
            Shipped(
                request_id=self._job.request_id,
                prompt=self._job.asked.prompt,
                question=self._job.question,
                draft=judged.draft,
                judgement=judged.judgement,
                mode=self._job.asked.mode.value,
                strong=self._job.strong,
                add=self._add,
            )
        )
