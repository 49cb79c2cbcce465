"""Metrics of a daemon with a real model, as Prometheus and a user see them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gemd.client import Finished
from tests.support.desktop import MODEL, PARIS, asking, desktop
from tests.support.scrape import free_port, scrape, value

if TYPE_CHECKING:
    from pathlib import Path


def test_a_real_answer_is_told_with_its_tokens_and_times(store: Path) -> None:
    """What `Finished` says to the client is what the counters say to Prometheus."""
    port = free_port()
    with desktop(store, GEMD_METRICS_PORT=str(port)) as running, running.client() as client:
        ends = [list(client.chat(PARIS, asking()))[-1] for _ in range(2)]
        found = asyncio.run(scrape(port))
        open_found = asyncio.run(scrape(port, openmetrics=True))

    usage = [end.usage for end in ends if isinstance(end, Finished)]
    written = sum(each.completion_tokens for each in usage)
    assert value(found, "gemd_completion_tokens_total", model=MODEL) == written
    assert value(found, "gemd_prompt_tokens_total", model=MODEL) == sum(
        each.prompt_tokens for each in usage
    )
    assert value(found, "gemd_cached_tokens_total", model=MODEL) == usage[1].cached_tokens
    assert value(found, "gemd_model_loads_total", model=MODEL) == 1
    assert value(found, "gemd_request_time_to_first_token_seconds_count", model=MODEL) == 2
    assert value(found, "gemd_model_state", model=MODEL, state="ready") == 1
    held = value(found, "gemd_model_memory_bytes", model=MODEL, device="cpu")
    assert held is not None
    assert held > 50_000_000
    ours = value(found, "gemd_device_ours_bytes", device="cpu")
    assert ours is not None
    assert ours > 50_000_000
    owned = value(found, "gemd_disk_owned_bytes")
    assert owned is not None
    assert owned > 90_000_000
    assert sum(v for (name, _), v in found.items() if name == "gemd_routes_total") == 2
    assert {name for name, _ in found} <= {name for name, _ in open_found}
