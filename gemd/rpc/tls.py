"""The certificate that the TCP port shows, read and checked before gRPC gets it."""

from __future__ import annotations

import os
import shlex
import ssl
import stat
from functools import partial
from typing import TYPE_CHECKING

import grpc

from gemd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_FILE_BYTES = 1024 * 1024
"""A chain of certificates has a few kilobytes."""


def server_credentials(certificate: Path, key: Path) -> grpc.ServerCredentials:
    """What a listener shows, from two PEM files.

    Args:
        certificate: The chain, the server's own one first.
        key: Its private key, without a passphrase; nobody but this user and root may read it.

    Raises:
        ConfigError: A file cannot be read, holds something else, is open to others, or the
            two do not belong together. gRPC itself would only say that it cannot listen.

    """
    chain = _read(certificate, "tls_certificate")
    secret = _read(key, "tls_key", check=partial(_check_private, key))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            certificate, key, password=_no_passphrase
        )
    except (ssl.SSLError, _PassphraseError) as error:
        why = (
            "the key has a passphrase, and nobody is there to type it"
            if isinstance(error, _PassphraseError)
            else _reason(error)
        )
        raise ConfigError(
            f"{certificate} and {key} are no certificate and key for TLS",
            why=why,
            advice=(
                shlex.join(["openssl", "x509", "-in", str(certificate), "-noout", "-subject"]),
                shlex.join(["openssl", "pkey", "-in", str(key), "-noout"]),
            ),
            metadata={"tls_certificate": certificate, "tls_key": key},
        ) from error
    return grpc.ssl_server_credentials([(secret, chain)])


class _PassphraseError(Exception):
    """Asked for one."""


def _no_passphrase() -> str:
    raise _PassphraseError


def _reason(error: ssl.SSLError) -> str:
    known = {
        "KEY_VALUES_MISMATCH": "the key is another certificate's",
        "NO_START_LINE": "one of them is no PEM file",
    }
    return known.get(error.reason or "", f"OpenSSL says {error.reason or error}")


def _read(
    path: Path, setting: str, *, check: Callable[[os.stat_result], None] = lambda _: None
) -> bytes:
    try:
        # Of a pipe the opening itself would wait for a writer, for ever.
        with open(path, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(
                    f"{path} is no file",
                    why=f"{setting} names it",
                    advice=(shlex.join(["ls", "-l", str(path)]),),
                    metadata={"path": path},
                )
            # Of what was opened, whatever the name means by then.
            check(found)
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}",
            why=f"{error.strerror}; {setting} names it",
            advice=(shlex.join(["ls", "-l", str(path)]),),
            metadata={"path": path, "errno": error.errno},
        ) from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(
            f"{path} is larger than {MAX_FILE_BYTES} bytes",
            why=f"{setting} names it, and no certificate or key is that large",
            metadata={"path": path, "limit_bytes": MAX_FILE_BYTES},
        )
    return content


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _check_private(key: Path, found: os.stat_result) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid not in {os.getuid(), 0} or mode & 0o077:
        raise ConfigError(
            f"the private key {key} is open to others (mode {mode:04o}, user {found.st_uid})",
            why="whoever reads it can pose as this daemon",
            advice=(shlex.join(["chmod", "600", str(key)]),),
            metadata={"path": key, "mode": f"{mode:04o}", "uid": found.st_uid},
        )
