"""The token that protects the TCP listener; the UNIX socket is protected by its directory."""

from __future__ import annotations

import hmac
import os
import secrets
from typing import TYPE_CHECKING

from gemd.errors import AuthRequiredError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TOKEN_BYTES = 32
SCHEME = b"Bearer "


def ensure_token(path: Path) -> bytes:
    """The token in the file, made if there is none: 32 random bytes as hexadecimal text.

    Raises:
        ConfigError: The file can be read by others, belongs to another user, or holds
            no such token.

    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return _read(path)
    token = secrets.token_hex(TOKEN_BYTES).encode()
    with os.fdopen(handle, "wb") as file:
        file.write(token + b"\n")
        file.flush()
        os.fsync(file.fileno())
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
    """Whether a call's metadata carry the token, compared in constant time."""
    for key, value in metadata:
        if key == "authorization":
            given = value.encode() if isinstance(value, str) else value
            return hmac.compare_digest(given, SCHEME + token)
    return False


def refusal(path: Path) -> AuthRequiredError:
    """What a caller without the token is told; never whether it was missing or wrong."""
    return AuthRequiredError(
        "this listener needs a token",
        why="the call carried none, or a wrong one",
        advice=(f'-H "authorization: Bearer $(cat {path})"',),
        metadata={"token_file": path},
    )
