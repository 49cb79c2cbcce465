"""One brief request of a server: whether it answers, and through which proxy."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.store.http import Http, UnreachableError, proxy_for, redacted
from gemd.store.threads import Stop, Stopped

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROXIES: Final = ("https_proxy", "http_proxy", "all_proxy")


@dataclass(frozen=True, slots=True)
class Reached:
    """How a server answered.

    Attributes:
        url: What was asked for, without credentials.
        status: HTTP status; 0 if nobody answered.
        problem: Why nobody did; empty if somebody did.
        proxy: ``host:port`` of the proxy that was used; empty for none.

    """

    url: str
    status: int = 0
    problem: str = ""
    proxy: str = ""


def reach(
    url: str,
    environ: Mapping[str, str],
    *,
    limit_s: float,
    token: str = "",
    certificates: str = "",
    headers: Mapping[str, str] | None = None,
) -> Reached:
    """Ask for a URL and look at the head of the answer. Blocks.

    Names are resolved with the patience of the system; all else ends within the limit.

    Args:
        url: May hold ``user:password@``.
        environ: With proxies and certificates.
        limit_s: Seconds for each step, and for the answer as a whole.
        token: Sent as bearer token to this host only.
        certificates: File of trusted ones; empty for what `environ` or the system names.
        headers: Sent along.

    """
    shown = redacted(url)
    try:
        found = proxy_for(url, environ)
    except ValueError as error:
        return Reached(shown, problem=str(error))
    proxy = f"{found.hostname}:{found.port or 80}" if found else ""
    http = Http(
        environ=environ,
        connect_timeout_s=limit_s,
        read_timeout_s=limit_s,
        certificates=certificates,
    )
    stop = Stop()
    # A server that sends a byte now and then never exceeds the silence that is allowed.
    alarm = threading.Timer(limit_s, stop.set)
    alarm.daemon = True
    alarm.start()
    try:
        with http.get(url, stop=stop, headers=headers, token=token) as reply:
            # A head that was cut off by the alarm passes for one that ended.
            stop.check()
            return Reached(shown, status=reply.status, proxy=proxy)
    except Stopped:
        return Reached(shown, problem=f"no answer within {limit_s:g} s", proxy=proxy)
    except UnreachableError as error:
        return Reached(shown, problem=str(error), proxy=proxy)
    finally:
        alarm.cancel()


def unset_proxies(environ: Mapping[str, str]) -> str:
    """The command that takes the proxies away; empty where none is set."""
    names = [name for each in _PROXIES for name in (each, each.upper()) if environ.get(name)]
    return f"unset {' '.join(names)}" if names else ""
