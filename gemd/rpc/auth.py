"""The token that protects the TCP listener; the UNIX socket is protected by its directory."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from typing import TYPE_CHECKING

from gemd.errors import AuthRequiredError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TOKEN_BYTES = 32
SCHEME = b"bearer"
"""Whose case does not matter (RFC 9110, section 11.1)."""


def ensure_token(path: Path) -> bytes:
    """The token in the file, made if there is none: 32 random bytes as hexadecimal text.

    Raises:
        ConfigError: The file can be read by others, belongs to another user, or holds
            no such token.

    """
    with contextlib.suppress(FileNotFoundError):
        return _read(path)
    token = secrets.token_hex(TOKEN_BYTES).encode()
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    # It appears whole or not at all: what lies there half-written would keep gemd from starting.
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(token + b"\n")
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)
    return token


def _read(path: Path) -> bytes:
    facts = path.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise ConfigError(
            f"the token file {path} is open to others (mode {facts.st_mode & 0o777:04o}, "
            f"user {facts.st_uid})",
            why="whoever reads it can use this daemon",
            advice=(f"chmod 600 {path}", f"rm {path}"),
            metadata={"path": path, "mode": f"{facts.st_mode & 0o777:04o}", "uid": facts.st_uid},
        )
    token = path.read_bytes().strip()
    if len(token) < 2 * TOKEN_BYTES:
        raise ConfigError(
            f"the token file {path} holds {len(token)} characters, not {2 * TOKEN_BYTES}",
            why="a short token can be guessed",
            advice=(f"rm {path}",),
            metadata={"path": path, "characters": len(token)},
        )
    return token


def is_authorized(metadata: Iterable[tuple[str, str | bytes]], token: bytes) -> bool:
    """Whether a call's metadata carry the token, once; compared in constant time."""
    given = [value for key, value in metadata if key == "authorization"]
    if len(given) != 1:
        # Programs between us and the caller might have looked at the other one.
        return False
    value = given[0].encode() if isinstance(given[0], str) else given[0]
    scheme, _, credentials = value.partition(b" ")
    return scheme.lower() == SCHEME and hmac.compare_digest(credentials, token)


def refusal(path: Path) -> AuthRequiredError:
    """What a caller without the token is told; never whether it was missing or wrong."""
    return AuthRequiredError(
        "this listener needs a token",
        why="the call carried none, or a wrong one",
        advice=(f'-H "authorization: Bearer $(cat {path})"',),
        metadata={"token_file": path},
    )
