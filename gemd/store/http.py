"""A small blocking HTTP client that can be interrupted from another thread.

Python's own `http.client` with what a download needs around it: proxies and certificates as
the environment names them, credentials that never reach another host, separate patience for
connecting and reading, and a handle on the socket so that a cancel does not wait for a
stalled server.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import netrc
import os
import re
import socket
import ssl
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gemd.store.threads import Stop

_REDIRECTS = 10
_REDIRECT_CODES = frozenset({301, 302, 303, 307, 308})
_CERTIFICATE_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")


class UnreachableError(Exception):
    """No HTTP answer: name, route, proxy, TLS, time-out or a broken connection."""


@dataclass
class Reply:
    """The head of an answer and its body, which is read once.

    Attributes:
        url: Where it came from after redirects, without credentials.
        status: HTTP status.
        headers: Of the answer; names are case-insensitive.

    """

    url: str
    status: int
    headers: http.client.HTTPMessage
    _body: http.client.HTTPResponse

    def read(self, limit: int) -> bytes:
        """The next bytes, at most so many; empty at the end of what the server sent.

        The end is not proof of completeness: compare the count with the promised size.

        Raises:
            UnreachableError: The connection broke or stalled.

        """
        try:
            return self._body.read1(limit)
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(_reason(error)) from error


@dataclass(frozen=True)
class Http:
    """Settings of the client.

    Attributes:
        environ: Environment with proxies, certificates and the place of netrc.
        connect_timeout_s: For name, route, proxy and TLS.
        read_timeout_s: Longest silence.
        certificates: File or folder of trusted certificates; "" for what `environ` or the
            system names.

    """

    environ: Mapping[str, str] = field(default_factory=dict)
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    certificates: str = ""

    @contextlib.contextmanager
    def get(
        self, url: str, *, stop: Stop, headers: Mapping[str, str] | None = None, token: str = ""
    ) -> Iterator[Reply]:
        """GETs a URL, following redirects.

        Args:
            url: May hold ``user:password@``; netrc is asked otherwise.
            stop: Interrupts the call.
            headers: Sent to every host.
            token: Sent as bearer token to the URL's own host only.

        Raises:
            UnreachableError: No answer.
            Stopped: `stop` was set.

        """
        first = url
        for _ in range(_REDIRECTS):
            if not is_http(url):
                raise UnreachableError(f"{redacted(url)} is no http address")
            plain, credentials = split_credentials(url)
            sent = dict(headers or {})
            if token and same_origin(url, first):
                sent["Authorization"] = f"Bearer {token}"
            elif login := credentials or self._netrc(plain):
                sent["Authorization"] = _basic(login)
            with self._exchange(plain, sent, stop) as reply:
                target = reply.headers.get("Location")
                if reply.status not in _REDIRECT_CODES or not target:
                    yield reply
                    return
                following = urllib.parse.urljoin(plain, target)
            if plain.startswith("https:") and not following.startswith("https:"):
                raise UnreachableError(
                    f"{redacted(plain)} redirects to {redacted(following)}, which is not https"
                )
            if not is_http(following):
                raise UnreachableError(
                    f"{redacted(plain)} redirects to {redacted(following)}, "
                    "which is no http address"
                )
            url = following
            if same_origin(following, plain):
                url = with_credentials(following, credentials)
        raise UnreachableError(f"{redacted(url)} redirects more than {_REDIRECTS} times")

    @contextlib.contextmanager
    def _exchange(self, url: str, headers: Mapping[str, str], stop: Stop) -> Iterator[Reply]:
        stop.check()
        connection = None
        try:
            connection, target, extra = self._connection(url)
            connection.connect()
            channel = connection.sock
        except (OSError, http.client.HTTPException, ValueError) as error:
            if connection:
                connection.close()
            raise UnreachableError(_reason(error)) from error
        # A second descriptor on the same connection: http.client closes its own early.
        handle = socket.socket(fileno=os.dup(channel.fileno()))

        def interrupt() -> None:
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

        try:
            with stop.interruptible(interrupt):
                channel.settimeout(self.read_timeout_s)
                try:
                    connection.request("GET", target, headers={**_FIXED, **extra, **headers})
                    body = connection.getresponse()
                except (OSError, http.client.HTTPException, ValueError) as error:
                    stop.check()
                    raise UnreachableError(_reason(error)) from error
                with body:
                    yield Reply(url, body.status, body.headers, body)
        finally:
            handle.close()
            connection.close()

    def _connection(self, url: str) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
        """A connection that is not open yet, the request's target, and headers it needs."""
        parts = urllib.parse.urlsplit(url)
        hostname = parts.hostname or ""
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        proxy = proxy_for(url, self.environ)
        host, at = (proxy.hostname or "", proxy.port or 80) if proxy else (hostname, port)
        login = _proxy_login(proxy)
        if not secure:
            plain = http.client.HTTPConnection(host, at, timeout=self.connect_timeout_s)
            return plain, url if proxy else path, login
        connection = http.client.HTTPSConnection(
            host, at, timeout=self.connect_timeout_s, context=self._tls()
        )
        if proxy:
            connection.set_tunnel(hostname, port, headers=login)
        return connection, path, {}

    def _tls(self) -> ssl.SSLContext:
        named = self.certificates or next(
            filter(None, (self.environ.get(name) for name in _CERTIFICATE_VARIABLES)), ""
        )
        if not named:
            # The operating system's own trust, also on a Mac. It comes with huggingface_hub.
            import truststore  # noqa: PLC0415 - 10 ms that only an encrypted request needs

            return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        folder = Path(named).is_dir()
        return ssl.create_default_context(
            cafile=None if folder else named, capath=named if folder else None
        )

    def _netrc(self, url: str) -> str:
        file = Path(self.environ.get("NETRC") or Path(self.environ.get("HOME", "/")) / ".netrc")
        try:
            found = netrc.netrc(str(file)).authenticators(urllib.parse.urlsplit(url).hostname or "")
        except (OSError, ValueError, netrc.NetrcParseError):
            return ""
        return f"{found[0]}:{found[2]}" if found else ""


_FIXED = {
    "Accept-Encoding": "identity",  # sizes and ranges must be those of the file
    "Connection": "close",
    "User-Agent": "gemd",
}


def is_http(url: str) -> bool:
    """Whether it is an http(s) address with a host and a possible port."""
    try:
        parts = urllib.parse.urlsplit(url)
        # Reading the port checks it.
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def split_credentials(url: str) -> tuple[str, str]:
    """The URL without ``user:password@``, and ``user:password`` decoded (or "")."""
    parts = urllib.parse.urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, ""
    return parts._replace(netloc=host).geturl(), urllib.parse.unquote(login)


def with_credentials(url: str, login: str) -> str:
    """The URL with ``user:password`` put in; as it is if it has some or `login` is empty."""
    parts = urllib.parse.urlsplit(url)
    if not login or "@" in parts.netloc:
        return url
    user, _, password = login.partition(":")
    quoted = ":".join(urllib.parse.quote(text, safe="") for text in (user, password))
    return parts._replace(netloc=f"{quoted}@{parts.netloc}").geturl()


def redacted(url: str) -> str:
    """An address for messages, however broken: without logins and without its query."""
    return re.sub(r"//.*@", "//", url.partition("?")[0].partition("#")[0], flags=re.DOTALL)


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs have scheme, host and port in common."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urllib.parse.urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname or "", port


def proxy_for(url: str, environ: Mapping[str, str]) -> urllib.parse.SplitResult | None:
    """The proxy that the environment names for a URL; None for a direct connection.

    `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` in either case, as everywhere.

    Raises:
        ValueError: It is one of a kind that we do not speak (SOCKS).

    """
    parts = urllib.parse.urlsplit(url)
    value = _variable(environ, f"{parts.scheme}_proxy") or _variable(environ, "all_proxy")
    exceptions = _variable(environ, "no_proxy")
    if not value or _direct(parts.hostname or "", exceptions):
        return None
    proxy = urllib.parse.urlsplit(value if "://" in value else f"http://{value}")
    if proxy.scheme != "http":
        raise ValueError(f"proxies of kind {proxy.scheme} are not supported")
    return proxy


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def _direct(host: str, exceptions: str) -> bool:
    for entry in exceptions.split(","):
        name = entry.strip().partition(":")[0].lstrip(".").lower()
        if name == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return True
    return False


def _proxy_login(proxy: urllib.parse.SplitResult | None) -> dict[str, str]:
    if not proxy or not proxy.username:
        return {}
    login = urllib.parse.unquote(f"{proxy.username}:{proxy.password or ''}")
    return {"Proxy-Authorization": _basic(login)}


def _basic(login: str) -> str:
    """The header for ``user:password``, or for a bare user, whose password is empty."""
    complete = login if ":" in login else f"{login}:"
    return f"Basic {base64.b64encode(complete.encode()).decode()}"


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
