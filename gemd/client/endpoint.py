"""Where the daemon listens, and how a channel to it is set up."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

MAX_MESSAGE_BYTES = 32 * 1024 * 1024

_LAST_PORT = 65535
_CHANNEL_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A proxy from the environment must not see what is meant for this machine.
    ("grpc.enable_http_proxy", 0),
    # A daemon that starts is there within a second; gRPC's defaults would wait longer.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(frozen=True)
class Endpoint:
    """An address of a daemon.

    Args:
        target: gRPC target.
        token: Sent as bearer token with every call, or None.
        tls: Whether the channel is TLS.
        roots: PEM certificates that are trusted then; None for those that gRPC brings along.

    """

    target: str
    token: str | None = field(default=None, repr=False)
    tls: bool = False
    roots: bytes | None = field(default=None, repr=False)

    @classmethod
    def parse(
        cls, address: str | Path, token: str | None = None, *, tls: bool | str | Path = False
    ) -> Endpoint:
        """The endpoint that a user means.

        Args:
            address: Path of a socket, ``unix:PATH``, or ``HOST:PORT``.
            token: The daemon's token; its TCP port wants one.
            tls: A PEM file with the certificate that the port shows, or with its authority's;
                True for authorities that everybody trusts.

        Raises:
            ValueError: The token cannot be one, or the address is none of these, or lies beyond
                this machine and there is no TLS: the token and all texts would cross the network
                in the clear.
            OSError: The PEM file cannot be read.

        """
        token = _token(token)
        if isinstance(address, Path) or address.startswith(("/", "unix:")):
            if tls:
                raise ValueError("a socket has no TLS; nothing leaves this machine there")
            path = Path(str(address).removeprefix("unix:"))
            # A target is a URI: gRPC would cut it at "?" and "#", and decode "%41".
            return cls(f"unix:{quote(os.fsencode(path.absolute()))}", token)
        host, colon, port = address.rpartition(":")
        if not colon or not host or not port.isdecimal():
            raise ValueError(f"{address!r} is neither an absolute socket path nor HOST:PORT")
        if not 0 < int(port) <= _LAST_PORT:
            raise ValueError(f"{address!r} has no port from 1 to {_LAST_PORT}")
        if not (tls or _is_loopback(host)):
            raise ValueError(f"{host!r} is not this machine; beyond it, gemd speaks TLS only")
        roots = None if isinstance(tls, bool) else Path(tls).read_bytes()
        return cls(_tcp_target(host, port), token, bool(tls), roots)

    @property
    def options(self) -> tuple[tuple[str, str | int], ...]:
        """For the channel."""
        if self.tls:
            # The certificate is checked against the name that is asked for.
            return _CHANNEL_OPTIONS
        # Over a UNIX socket gRPC would send the percent-encoded path, which strict servers refuse.
        return (("grpc.default_authority", "localhost"), *_CHANNEL_OPTIONS)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries beside its message."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    @property
    def socket(self) -> Path | None:
        """Path of the UNIX socket, if it is one."""
        if self.target.startswith("unix:"):
            return Path(os.fsdecode(unquote_to_bytes(self.target.removeprefix("unix:"))))
        return None

    def __str__(self) -> str:
        """As people know it: the socket's path, or the target."""
        return str(self.socket or self.target)


def _tcp_target(host: str, port: str) -> str:
    if ":" in host:
        return f"ipv6:[{host.removeprefix('[').removesuffix(']')}]:{port}"
    is_number = host.replace(".", "").isdecimal()
    return f"{'ipv4' if is_number else 'dns'}:{host}:{port}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    import ipaddress  # noqa: PLC0415 - most clients have a socket and no need of it

    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _token(given: str | None) -> str | None:
    """A token without the line end of the file it was read from."""
    if given is None:
        return None
    token = given.strip()
    if not token.isascii() or not token.isprintable():
        # gRPC would say that metadata are invalid, and no more.
        raise ValueError("the token has other characters than a line of plain ASCII")
    return token
