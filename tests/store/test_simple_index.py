"""Reading pages of a simple index."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.errors import HubUnreachableError
from gemd.store import simple_index
from gemd.store.http import Http, UnreachableError
from gemd.store.simple_index import IndexedFile, find_wheel, parse_page
from gemd.store.threads import Stop
from tests.support.package_index import PackageIndex

URL = "https://a.example/simple/p/"
SHA = "ab" * 32


def test_json_pages() -> None:
    """PEP 691, with a relative address."""
    page = json.dumps(
        {"files": [{"filename": "p-1.whl", "url": "../../p-1.whl", "hashes": {"sha256": SHA}}]}
    )
    assert parse_page(page.encode(), "application/vnd.pypi.simple.v1+json", URL) == [
        IndexedFile("p-1.whl", "https://a.example/p-1.whl", SHA)
    ]


def test_html_pages() -> None:
    """PEP 503: links with or without a hash, quoted names, a base."""
    page = (
        '<html><head><base href="https://files.example/x/"></head><body>'
        f'<a href="p-1%2Blocal.whl#sha256={SHA.upper()}" data-yanked="">p</a>'
        '<a name="no-link">x</a><a href="/y/p-2.whl#md5=00">q</a>'
    )
    assert parse_page(page.encode(), "text/html", URL) == [
        IndexedFile("p-1+local.whl", "https://files.example/x/p-1%2Blocal.whl", SHA),
        IndexedFile("p-2.whl", "https://files.example/y/p-2.whl", ""),
    ]


@pytest.mark.parametrize(
    "page",
    [b"", b"[]", b"{}", b'{"files": [1]}', b"\xff", b"[" * 100_000, b"9" * 5000],
    ids=["empty", "list", "object", "number", "bytes", "deep", "long"],
)
def test_other_json_is_no_index(page: bytes) -> None:
    """A captive portal's answer is not taken for an index without files."""
    with pytest.raises(UnreachableError, match="no page of a package index"):
        parse_page(page, "application/json", URL)


def test_an_endless_page_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no index, and does not fill the memory."""
    monkeypatch.setattr(simple_index, "_MAX_PAGE_BYTES", 100_000)
    with PackageIndex() as index:
        part = index.add_part("tiny-weights", b"x")
        index.files["/simple/tiny-weights/"] = b" " * 100_001
        with pytest.raises(HubUnreachableError, match="larger than 100000 bytes"):
            find_wheel(part, [index.simple], Http(), Stop())


@given(st.binary(), st.sampled_from(["application/json", "text/html"]))
def test_no_page_crashes_the_parser(page: bytes, kind: str) -> None:
    """Whatever comes, the answer is a list or an error of ours."""
    with contextlib.suppress(UnreachableError):
        parse_page(page, kind, URL)
