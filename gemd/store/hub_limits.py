"""What an answer of the model hub may cost: its client reads whole answers into memory.

A hub that means harm, or somebody in its place, could send some megabytes that unpack to
gigabytes, or a listing without an end. So nothing packed is taken, and no more than a listing
has. Files do not come this way (`gemd.store.fetch`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import httpx2

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ANSWER_BYTES: Final = 16 << 20
"""As of a package index; the hub's largest repositories list some ten thousand files."""
LONGEST_ANSWER_S: Final = 60.0
"""From its head to its end. Who asks has gone long before; this ends the thread that reads."""
_PLAIN: Final = {"", "identity"}


def limit(client: httpx2.Client) -> None:
    """Keep every answer to this client within limits; what is beyond is an `httpx2.HTTPError`.

    May be called again for the same client.
    """
    hooks = client.event_hooks
    if _bound in hooks["response"]:
        return
    hooks["request"].append(_ask_for_plain)
    hooks["response"].append(_bound)
    client.event_hooks = hooks


def _ask_for_plain(request: httpx2.Request) -> None:
    request.headers["Accept-Encoding"] = "identity"


def _bound(response: httpx2.Response) -> None:
    """Called before anything of the body is read, also of a redirect's and an error's."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in _PLAIN:
        raise httpx2.DecodingError(
            f"the answer is packed as {encoding[:40]}, which was not asked for",
            request=response.request,
        )
    assert isinstance(response.stream, httpx2.SyncByteStream), "the client is not asynchronous"
    response.stream = _Bounded(response.stream, response.request)


class _Bounded(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, request: httpx2.Request) -> None:
        self._stream = stream
        self._request = request
        self._until = time.monotonic() + LONGEST_ANSWER_S

    def __iter__(self) -> Iterator[bytes]:
        left = MAX_ANSWER_BYTES
        for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise httpx2.RemoteProtocolError(
                    f"the answer has more than {MAX_ANSWER_BYTES} bytes", request=self._request
                )
            if time.monotonic() > self._until:
                raise httpx2.ReadTimeout(
                    f"the answer takes more than {LONGEST_ANSWER_S:g} s", request=self._request
                )
            yield chunk

    def close(self) -> None:
        self._stream.close()
