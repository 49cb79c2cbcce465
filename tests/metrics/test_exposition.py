"""The page as text that Prometheus reads, and the names on it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse

from gemd.metrics.exposition import render
from gemd.metrics.families import FAMILIES, METHODS, Kind, error_reasons
from gemd.metrics.tally import Tally
from gemd.v1 import generation_service_pb2

if TYPE_CHECKING:
    from gemd.metrics.tally import Page

DESIGN = Path(__file__).parents[2] / "gemd" / "metrics" / "DESIGN.md"
OPENMETRICS = "application/openmetrics-text"
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.1"
)
"""What a server of version 3 sends."""


def full_page(label: str = "x") -> Page:
    """A page with a figure of every family."""
    tally = Tally()
    for family in FAMILIES:
        labels = dict.fromkeys(family.labels, label)
        if family.kind is Kind.COUNTER:
            tally.count(family.name, 3, **labels)
        elif family.kind is Kind.HISTOGRAM:
            tally.observe(family.name, 0.3, **labels)
    page = tally.page()
    for family in FAMILIES:
        if family.kind in {Kind.GAUGE, Kind.INFO}:
            page.put(family.name, 1.5, **dict.fromkeys(family.labels, label))
    return page


@pytest.mark.parametrize(
    "accept, media_type",
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/html", "text/plain; version=0.0.4"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0"),
        (PROMETHEUS, "application/openmetrics-text; version=1.0.0"),
        # Nothing of what a client sends goes into a header that it gets.
        (f"{OPENMETRICS}; version=9.9.9", "application/openmetrics-text; version=1.0.0"),
        (f"{OPENMETRICS}; version=x\r\nX: y", "application/openmetrics-text; version=1.0.0"),
    ],
)
def test_both_formats_hold_every_figure(accept: str, media_type: str) -> None:
    """By the library's own parsers, which are strict about names, kinds and buckets."""
    body, said = render(full_page(), accept)
    assert said.startswith(media_type)
    assert "\n" not in said
    text = body.decode()
    read: Any = parse_openmetrics if "openmetrics" in said else parse
    families = read(text)
    values = {sample.name: sample.value for family in families for sample in family.samples}
    for family in FAMILIES:
        match family.kind:
            case Kind.COUNTER:
                assert values[family.name] == 3
            case Kind.GAUGE:
                assert values[family.name] == 1.5
            case Kind.INFO:
                assert values[family.name] == 1
            case Kind.HISTOGRAM:
                assert values[f"{family.name}_count"] == 1
                assert values[f"{family.name}_sum"] == 0.3


def test_buckets_are_cumulative_and_end_with_infinity() -> None:
    """As `histogram_quantile` wants them."""
    tally = Tally()
    for value in (0.001, 0.3, 0.3, 1e9):
        tally.observe("gemd_request_queue_seconds", value, model="m")
    body, _ = render(tally.page())
    (family,) = (each for each in parse(body.decode()) if each.type == "histogram")
    buckets = {
        float(each.labels["le"]): each.value
        for each in family.samples
        if each.name.endswith("_bucket")
    }
    assert list(buckets) == sorted(buckets)
    assert (buckets[0.005], buckets[0.25], buckets[0.5], buckets[float("inf")]) == (1, 1, 3, 4)


def test_what_nobody_has_counted_yet_is_not_told() -> None:
    """An empty page is a page."""
    for accept in ("", OPENMETRICS):
        body, _ = render(Tally().page(), accept)
        assert body.decode().strip() in {"", "# EOF"}


def test_a_label_with_any_text_stays_one_label() -> None:
    """Quotes, line ends and backslashes are escaped by the library."""
    nasty = 'a"} 1\nevil_total 2\\'
    body, _ = render(full_page(nasty))
    samples = [sample for family in parse(body.decode()) for sample in family.samples]
    assert "evil_total" not in {sample.name for sample in samples}
    assert {sample.labels.get("device") for sample in samples} == {None, nasty}


def test_names_follow_the_conventions() -> None:
    """Prefix, base units, `_total` on counters and on nothing else, labels in lower case."""
    units = ("_seconds", "_bytes", "_joules", "_watts", "_ratio")
    plain = ("gemd_requests_in_progress", "gemd_model_state", "gemd_operations_running")
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert re.fullmatch(r"gemd(_[a-z]+)+", family.name)
        assert family.name.endswith("_total") is (family.kind is Kind.COUNTER)
        assert family.name.endswith("_info") is (family.kind is Kind.INFO)
        if family.kind in {Kind.GAUGE, Kind.HISTOGRAM}:
            assert family.name.endswith(units) or family.name in plain
        assert bool(family.buckets) is (family.kind is Kind.HISTOGRAM)
        assert list(family.buckets) == sorted(set(family.buckets))
        assert all(re.fullmatch(r"[a-z]+", label) for label in family.labels)
        assert "le" not in family.labels
        assert not family.meaning.endswith(".")


def test_the_table_of_names_is_the_programs_own() -> None:
    """DESIGN.md has each family in a row, and no other."""
    rows = [
        line
        for line in DESIGN.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `gemd_")
    ]
    assert rows == [
        f"| `{family.name}` | {family.kind.value} | "
        f"{', '.join(f'`{label}`' for label in family.labels)} | {family.meaning} |"
        for family in FAMILIES
    ]


def test_methods_are_rpcs_of_the_api() -> None:
    """A label names what exists."""
    service = generation_service_pb2.DESCRIPTOR.services_by_name["GenerationService"]
    assert set(service.methods_by_name) >= METHODS


def test_reasons_are_those_of_all_errors() -> None:
    """The list is the tree of errors itself."""
    assert {"QUEUE_FULL", "UNEXPECTED", "UNSUPPORTED_INPUT"} <= error_reasons()
