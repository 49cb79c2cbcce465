"""Each strategy has its runner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.routing.cascade.direct import direct
from gemd.routing.cascade.speculated import speculated
from gemd.routing.decide import Strategy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gemd.routing.cascade.events import Event
    from gemd.routing.cascade.job import Job, Tools


def run(job: Job, tools: Tools) -> AsyncGenerator[Event]:
    """What happens to a request that takes the way that was chosen; close it to cancel.

    Raises:
        GemdError: It cannot be answered, or no longer.

    """
    # The judge and the checks of texts are large, and a daemon that drafts nothing needs none.
    if job.asked.best_of:
        from gemd.routing.cascade.ranked import ranked  # noqa: PLC0415 - see above

        return ranked(job, tools)
    if job.choice.strategy is Strategy.DIRECT:
        return direct(job, tools)
    if job.choice.strategy is Strategy.SPECULATE:
        return speculated(job, tools)
    from gemd.routing.cascade.drafted import drafted  # noqa: PLC0415 - see above

    return drafted(job, tools)
