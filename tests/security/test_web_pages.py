"""A web page in a browser of this machine, which can make requests to every port of it."""

from __future__ import annotations

import pytest

from gemd.metrics.http import MetricsPort
from tests.support.scrape import Reply, free_port, get

BODY = b"gemd_uptime_seconds 1.0\n"


async def answered(more: str) -> tuple[Reply, int]:
    """What a request with these header lines gets, and how often the page was made for it."""
    made: list[str] = []

    async def page(accept: str) -> tuple[bytes, str]:
        made.append(accept)
        return BODY, "text/plain"

    port = free_port()
    serving = MetricsPort(port, page)
    await serving.start()
    try:
        return await get(port, more=more), len(made)
    finally:
        await serving.stop()


@pytest.mark.parametrize(
    "more",
    [
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: something-new\r\n",
        "sec-fetch-site: cross-site\r\nSec-Fetch-Mode: navigate\r\n",
        "Origin: https://elsewhere.example\r\n",
        "Origin: null\r\n",
    ],
)
async def test_a_page_of_another_site_gets_nothing(more: str) -> None:
    """Neither as an image nor as a script, and nothing is made for it."""
    reply, made = await answered(more)
    assert (reply.status, made) == (403, 0)
    assert BODY not in reply.body
    assert not [name for name in reply.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "more", ["", "Sec-Fetch-Site: none\r\n", "Sec-Fetch-Site: same-origin\r\n"]
)
async def test_scrapers_and_people_get_the_page(more: str) -> None:
    """Who scrapes says nothing of sites; who types the address into a browser comes from none."""
    reply, made = await answered(more)
    assert (reply.status, reply.body, made) == (200, BODY, 1)
