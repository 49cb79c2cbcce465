"""A page of figures in the text formats of Prometheus. Imported only where metrics are on."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gemd.metrics.families import FAMILIES, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from gemd.metrics.families import Family
    from gemd.metrics.tally import Histogram, Labels, Page

OPENMETRICS_TYPE: Final = "application/openmetrics-text"
OPENMETRICS: Final = f"{OPENMETRICS_TYPE}; version=1.0.0"


def render(page: Page, accept: str = "") -> tuple[bytes, str]:
    """The page as text, and its media type.

    Args:
        page: What is told.
        accept: The header of that name: whoever asks for OpenMetrics gets that.

    """
    wanted = {each.partition(";")[0].strip().lower() for each in accept.split(",")}
    # One of two constants: the library puts parts of the header into the one that it answers with.
    encode, media_type = choose_encoder(OPENMETRICS if OPENMETRICS_TYPE in wanted else "")
    # Without a registry: that would ask a collector what it has before anybody wants to know.
    return encode(_Collected(page)), media_type


class _Collected(Collector):
    """What prometheus_client asks for its figures."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def collect(self) -> Iterator[Metric]:
        """Every family that has something to tell, in their order."""
        for family in FAMILIES:
            values = self._page.values.get(family.name, {})
            if family.kind is Kind.HISTOGRAM:
                made = self._page.histograms.get(family.name, {})
                if made:
                    yield _histogram(family, made)
            elif values:
                yield _plain(family, values)


def _plain(family: Family, values: dict[Labels, float]) -> Metric:
    match family.kind:
        case Kind.COUNTER:
            counter = CounterMetricFamily(family.name, family.meaning, labels=family.labels)
            for labels, value in values.items():
                counter.add_metric(labels, value)
            return counter
        case Kind.INFO:
            info = InfoMetricFamily(family.name.removesuffix("_info"), family.meaning)
            for labels in values:
                info.add_metric([], dict(zip(family.labels, labels, strict=True)))
            return info
        case _:
            gauge = GaugeMetricFamily(family.name, family.meaning, labels=family.labels)
            for labels, value in values.items():
                gauge.add_metric(labels, value)
            return gauge


def _histogram(family: Family, made: dict[Labels, Histogram]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.meaning, labels=family.labels)
    bounds = [*(repr(bound) for bound in family.buckets), "+Inf"]
    for labels, one in made.items():
        sums = accumulate(one.counts)
        metric.add_metric(labels, list(zip(bounds, sums, strict=True)), one.total)
    return metric
