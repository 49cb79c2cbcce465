"""A scraper of metrics, and worse."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""By name and sorted labels."""


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


async def talk(port: int, *parts: bytes, seconds: float = 30) -> bytes:
    """Send parts, and read until the other side closes."""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await reader.read(-1)
        except ConnectionError:
            return b""
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def reply(data: bytes) -> Reply:
    """One answer, taken apart."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines)
    }
    return Reply(int(first.split()[1]), headers, body)


def request(
    target: str = "/metrics", *, method: str = "GET", host: str | None = None, more: str = ""
) -> bytes:
    """A request; `more` are header lines that end with a line end."""
    hosts = "" if host == "" else f"Host: {host or '127.0.0.1'}\r\n"
    return f"{method} {target} HTTP/1.1\r\n{hosts}{more}\r\n".encode("latin-1")


async def get(port: int, target: str = "/metrics", **fields: Any) -> Reply:
    """Ask for a page."""
    return reply(await talk(port, request(target, **fields)))


async def scrape(port: int, *, openmetrics: bool = False) -> Samples:
    """The figures, as Prometheus reads them."""
    accept = "application/openmetrics-text" if openmetrics else "text/plain"
    page = await get(port, more=f"Accept: {accept}\r\n")
    assert page.status == 200, page
    return samples(page.body.decode(), openmetrics=openmetrics)


def samples(text: str, *, openmetrics: bool = False) -> Samples:
    """The figures of a text."""
    # One of them is typed and the other is not.
    parse: Any = parse_openmetrics if openmetrics else parse_text
    families = parse(text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    """One figure; None if it is not told."""
    return found.get((name, tuple(sorted(labels.items()))))
