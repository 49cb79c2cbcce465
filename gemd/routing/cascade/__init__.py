"""The runner: models at work for one request, one after the other, as one stream of events."""

from gemd.routing.cascade.direct import plain, way_of
from gemd.routing.cascade.events import (
    Began,
    Checking,
    Drafted,
    Ended,
    Judged,
    Resolution,
    Settled,
    Way,
)
from gemd.routing.cascade.job import Job, Tools
from gemd.routing.cascade.run import run
from gemd.routing.cascade.streams import Streams

__all__ = [
    "Began",
    "Checking",
    "Drafted",
    "Ended",
    "Job",
    "Judged",
    "Resolution",
    "Settled",
    "Streams",
    "Tools",
    "Way",
    "plain",
    "run",
    "way_of",
]
