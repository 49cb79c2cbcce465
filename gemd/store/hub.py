"""What the model hub has, asked once and briefly.

The hub client supplies address, authentication and its reading of the hub's refusals. Its
own retries are not used: they take 23 s without a network and minutes in a black hole, and
its downloads neither resume in another process nor check a hash.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from gemd.catalog.sources import HubSource
from gemd.errors import (
    AuthRequiredError,
    ContentMismatchError,
    GemdError,
    HubUnreachableError,
    ModelNotFoundError,
    RepoGatedError,
)
from gemd.store.threads import in_thread
from gemd.store.xet import place_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.catalog import RepositorySource, Variant
    from gemd.store.fetch import Fetcher, RefusedError, Wanted
    from gemd.store.transport import Transport
    from gemd.store.xet import XetPlace

    Tick = Callable[[], None]

T = TypeVar("T")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_UNAUTHORIZED = 401
_FORBIDDEN = 403
_NO_ANSWER = (
    ImportError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    # Lists in lists without an end.
    RecursionError,
)
"""What its client says where an answer is not what it expects, by trial."""


@dataclass(frozen=True)
class HubFile:
    """A file that the hub says it has.

    Attributes:
        url: Address of exactly this revision.
        token: The user's, or empty.
        commit: The revision.
        size_bytes: Its size; 0 if the hub did not say.
        sha256: Its hash, of a large file; empty if the hub did not say.
        blob_id: Git's SHA-1 of it, of a small file, which the hub keeps in git; else empty.
        name: Path inside the repository.

    """

    url: str
    token: str
    commit: str
    size_bytes: int = 0
    sha256: str = ""
    blob_id: str = ""
    name: str = ""

    @property
    def etag(self) -> str:
        """What the hub's client names its blob by; empty if the hub said no hash."""
        return self.blob_id or self.sha256


async def ask(
    source: HubSource, variant: Variant, transport: Transport, *, pinned: bool = True
) -> HubFile:
    """Asks the hub for a file within `transport.hub_timeout_s`, everything included.

    What it has must be what the variant promises; if that promises nothing, it must say what it is.

    Args:
        source: The file.
        variant: What is expected.
        transport: How to reach the hub.
        pinned: Whether the variant's hash counts, if it names one.

    Raises:
        HubUnreachableError: No sensible answer in time.
        AuthRequiredError: A token is needed, or the one there is does not do.
        RepoGatedError: The terms have to be accepted on the hub first.
        ModelNotFoundError: No such repository, revision or file.
        ContentMismatchError: It has another file by now than the one that is pinned, or does not
            say which one it has, so that nothing could be verified.

    """
    found = await within(transport, lambda: _head(source, transport))
    page = f"{transport.hub_endpoint}/{source.repository}"
    if variant.announced or not pinned:
        if not (found.etag and found.size_bytes):
            raise _unverifiable(source, found, page)
    elif (found.size_bytes or variant.size_bytes) != variant.size_bytes or (
        found.sha256 or variant.sha256
    ) != variant.sha256:
        raise _another(source, variant, found, page)
    return found


async def within(transport: Transport, question: Callable[[], T | GemdError]) -> T:
    """Asks the hub something within `transport.hub_timeout_s`, in a thread.

    Raises:
        HubUnreachableError: No answer in time.
        GemdError: What the question returned.

    """
    limit = transport.hub_timeout_s
    try:
        async with asyncio.timeout(limit):
            found = await in_thread(lambda _: question(), abandon=True)
    except TimeoutError:
        raise unreachable(transport.hub_endpoint, f"no answer within {limit:g} s") from None
    if isinstance(found, GemdError):
        raise found
    return found


def _another(
    source: HubSource, variant: Variant, found: HubFile, page: str
) -> ContentMismatchError:
    return ContentMismatchError(
        f"{source.repository} has another {source.file} by now than the pinned one",
        why=f"{found.size_bytes} bytes with SHA-256 {found.sha256 or 'unknown'}, "
        f"{variant.size_bytes} and {variant.sha256} were expected",
        advice=(f"open {page}",),
        metadata={
            "repository": source.repository,
            "file": source.file,
            "commit": found.commit,
            "expected_sha256": variant.sha256,
            "actual": found.sha256,
            "size_bytes": found.size_bytes,
            "expected_size_bytes": variant.size_bytes,
        },
    )


def _unverifiable(source: HubSource, found: HubFile, page: str) -> ContentMismatchError:
    missing = "hash" if found.size_bytes else "size"
    return ContentMismatchError(
        f"{source.file} of {source.origin} cannot be verified",
        why=f"the profile names no SHA-256 that counts, and the hub did not say its {missing}",
        advice=(f"open {page}", "put sha256 and size_bytes into a profile of your own"),
        metadata={
            "repository": source.repository,
            "file": source.file,
            "commit": found.commit,
            "missing": missing,
        },
    )


async def first_bytes_within(
    limit_s: float | None, fetcher: Fetcher, wanted: Wanted, transport: Transport, tick: Tick
) -> str:
    """Fetches a file of the hub, if its first bytes come in time after the first request.

    A hub answers questions itself and sends for the bytes to other servers. Those may be the
    ones that a network swallows, and patience with a transfer is measured in minutes.

    Args:
        limit_s: None where there is no other source to turn to.
        fetcher: Does it.
        wanted: The file.
        transport: For the hub's name.
        tick: Called about once a second.

    Returns:
        SHA-256 of the file.

    Raises:
        HubUnreachableError: Nothing came in time.
        RefusedError: And what else `Fetcher.fetch` raises.

    """
    loop = asyncio.get_running_loop()

    def move(when: float | None) -> None:
        # Too late if the limit has struck or the file is complete.
        with contextlib.suppress(RuntimeError):
            limit.reschedule(when)

    def asking() -> None:
        if limit_s is not None:
            loop.call_soon_threadsafe(move, loop.time() + limit_s)

    def answered() -> None:
        loop.call_soon_threadsafe(move, None)

    patient = replace(fetcher, asking=asking, answered=answered, xet=_xet(transport))
    try:
        async with asyncio.timeout(None) as limit:
            return await in_thread(lambda stop: patient.fetch(wanted, stop), tick=tick)
    except TimeoutError:
        if not limit.expired():
            raise
        why = f"it has the file, but no bytes of it came within {limit_s:g} s"
        raise unreachable(transport.hub_endpoint, why) from None


def _xet(transport: Transport) -> Callable[[Wanted], XetPlace | None] | None:
    """Finds files in Xet storage, if that is wanted."""
    if not transport.xet:
        return None
    return lambda wanted: place_of(
        wanted.url,
        wanted.token,
        endpoint=transport.hub_endpoint,
        timeout_s=transport.hub_timeout_s,
    )


def _head(source: HubSource, transport: Transport) -> HubFile | GemdError:
    endpoint = transport.hub_endpoint

    def question(token: str) -> HubFile | GemdError:
        from huggingface_hub import get_hf_file_metadata  # noqa: PLC0415 - as in `client_asks`

        metadata = get_hf_file_metadata(
            address(source.repository, source.file, source.revision, endpoint),
            token=token or False,
            timeout=transport.hub_timeout_s,
            library_name="gemd",
            endpoint=endpoint,
        )
        commit = metadata.commit_hash or ""
        if not _SHA1.fullmatch(commit):
            return unreachable(endpoint, "the answer is not that of a model hub")
        etag = metadata.etag or ""
        return HubFile(
            address(source.repository, source.file, commit, endpoint),
            token,
            commit,
            metadata.size or 0,
            etag if _SHA256.fullmatch(etag) else "",
            # Of a small file the hub has no SHA-256, but the one that git names its blob by.
            etag if _SHA1.fullmatch(etag) else "",
            source.file,
        )

    return client_asks(source, transport, question)


def address(repository: str, file: str, revision: str, endpoint: str) -> str:
    """Where a file of the hub is."""
    from huggingface_hub import hf_hub_url  # noqa: PLC0415 - as in `client_asks`

    return hf_hub_url(repository, file, revision=revision, endpoint=endpoint)


def client_asks(
    source: HubSource | RepositorySource,
    transport: Transport,
    question: Callable[[str], T | GemdError],
) -> T | GemdError:
    """What the hub's client answers; an error is returned, so that causes stay short. Blocks.

    Args:
        source: What it is asked about.
        transport: How to reach the hub.
        question: Asks the client with the user's token, which may be empty.

    """
    endpoint = transport.hub_endpoint
    # The client asks this server, whatever endpoint a call names, for a list that goes into
    # its user agent; it must not ask the public hub when a mirror is set.
    os.environ.setdefault("HF_ENDPOINT", endpoint)
    # 20 MB of the daemon's memory are not spent on a client that may never be used.
    import httpx2  # noqa: PLC0415
    from huggingface_hub import get_session, get_token  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # noqa: PLC0415

    from gemd.store.hub_limits import limit  # noqa: PLC0415

    token = ""
    try:
        limit(get_session())
        token = get_token() or ""
        return question(token)
    except HfHubHTTPError as error:
        headers = error.response.headers
        return refusal(
            source,
            endpoint,
            error.response.status_code,
            headers.get("X-Error-Code", ""),
            with_token=bool(token),
        )
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, HFValidationError) as error:
        return unreachable(endpoint, f"{type(error).__name__}: {error}")
    except _NO_ANSWER as error:
        # What the client says to a proxy of a kind that it does not speak, such as SOCKS, or to an
        # answer that is no JSON, or another one than it expects.
        return unreachable(endpoint, f"the hub's client cannot be used: {error}")


def refusal(
    source: HubSource | RepositorySource, endpoint: str, status: int, code: str, *, with_token: bool
) -> GemdError:
    """The domain error for a status of the hub that means no."""
    page = f"{endpoint}/{source.repository}"
    file = source.file if isinstance(source, HubSource) else ""
    facts = {"repository": source.repository, "file": file, "status": status, "code": code}
    login = ("hf auth login", "set HF_TOKEN for the daemon")
    if code == "GatedRepo" or status == _FORBIDDEN:
        return RepoGatedError(
            f"the hub does not give {source.repository} to this account",
            why="its terms have to be accepted first"
            if with_token
            else "its terms have to be accepted first, and no token is set",
            advice=(f"open {page} and accept the terms", *login),
            metadata=facts,
        )
    if status == _UNAUTHORIZED:
        return AuthRequiredError(
            f"the hub wants a{' valid' if with_token else ''} token for {source.repository}",
            why="it refused the one that is set"
            if with_token
            else "it is private, gated or does not exist, and no token is set",
            advice=login,
            metadata=facts,
        )
    if status < 500 and status not in {408, 425, 429}:  # noqa: PLR2004 - server errors
        return ModelNotFoundError(
            f"the hub has no {f'{file} in ' if file else ''}{source.origin}",
            why=f"it answered {status} {code}".rstrip(),
            advice=(f"open {page}",),
            metadata=facts,
        )
    return unreachable(endpoint, f"it answered {status} {code}".rstrip())


def refused(
    source: HubSource | RepositorySource, endpoint: str, error: RefusedError, *, with_token: bool
) -> GemdError:
    """The domain error for a refusal in mid-transfer."""
    return refusal(source, endpoint, error.status, error.code, with_token=with_token)


def unreachable(endpoint: str, why: str) -> HubUnreachableError:
    """The domain error for a hub that does not answer."""
    return HubUnreachableError(
        f"the model hub {endpoint} cannot be reached",
        why=why,
        advice=(f"curl -I {endpoint}", "set GEMD_HUB_ENDPOINT to a mirror"),
        metadata={"endpoint": endpoint, "cause": why},
    )
