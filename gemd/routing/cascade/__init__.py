"""The runner: models at work for one request, one after the other, as one stream of events."""

from gemd.routing.cascade.direct import way_of
from gemd.routing.cascade.events import (
    Began,
    Drafted,
    Ended,
    Judged,
    Resolution,
    Settled,
    Times,
    Way,
)
from gemd.routing.cascade.job import Job, Tools
from gemd.routing.cascade.run import run

__all__ = [
    "Began",
    "Drafted",
    "Ended",
    "Job",
    "Judged",
    "Resolution",
    "Settled",
    "Times",
    "Tools",
    "Way",
    "run",
    "way_of",
]
