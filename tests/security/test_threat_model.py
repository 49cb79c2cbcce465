"""SECURITY.md says what the code does: its numbers are the code's, and its tests are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gemd.config import Settings
from gemd.quantities import MIB
from gemd.rpc import auth, limits, tls
from gemd.wire import MAX_FRAME_BYTES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "service" / "SECURITY.md").read_text(encoding="utf-8")
GIVEN = {"open_files": limits.OPEN_FILES, "queue": 256, "message_bytes": 32 * MIB}
LOCAL, REMOTE = limits.local_limits(**GIVEN), limits.remote_limits(**GIVEN)


def row(name: str) -> list[str]:
    """The cells behind the first one of a table's row."""
    found = re.search(rf"^\| {re.escape(name)} \|(.*)\|$", TEXT, re.MULTILINE)
    assert found is not None, name
    return [cell.strip() for cell in found[1].split("|")]


def test_the_limits_are_those_in_force() -> None:
    """In both columns, with their units."""
    defaults = Settings()
    assert row("connections at a time") == [str(LOCAL.connections), str(REMOTE.connections)]
    assert row("calls at a time")[0] == f"`queue_limit` + {limits.CALLS_BESIDE_THE_QUEUE}"
    assert LOCAL.calls == REMOTE.calls == 256 + limits.CALLS_BESIDE_THE_QUEUE
    mib = defaults.max_message_bytes // MIB
    assert row("one request")[0] == f"`max_message_bytes`, {mib} MiB"
    assert row("headers of one call")[0] == f"{LOCAL.header_bytes // 1024} KiB"
    assert LOCAL.header_bytes == REMOTE.header_bytes
    seconds = f"{LOCAL.handshake_ms // 1000} s"
    assert row("until a connection speaks HTTP/2") == [seconds, f"{seconds}, TLS included"]
    assert LOCAL.handshake_ms == REMOTE.handshake_ms
    idle = [f"{each.idle_ms // 60_000} min" for each in (LOCAL, REMOTE)]
    assert row("a connection without a call") == idle
    assert REMOTE.keepalive_ms is not None
    gone = (REMOTE.keepalive_ms + REMOTE.ping_timeout_ms) // 1000
    assert row("a peer that has gone without a word, in a call")[1] == f"{gone} s"


@pytest.mark.parametrize(
    "words",
    [
        f"fewer descriptors than {limits.OPEN_FILES}",
        f"{Settings().queue_limit} waiting requests",
        f"{Settings().parallel} answers at a time",
        f"{MAX_FRAME_BYTES // MIB} MiB for a frame",
        f"{tls.MAX_FILE_BYTES // MIB} MiB for a certificate",
        f"{auth.TOKEN_BYTES} random bytes",
    ],
)
def test_other_numbers_are_the_codes_too(words: str) -> None:
    """Those that stand in sentences."""
    assert words in TEXT.replace("\n", " ")


def test_what_it_names_is_there() -> None:
    """Every test and every file."""
    named = set(re.findall(r"`((?:tests|gemd)/[\w/.]+)`", TEXT))
    assert len(named) > 15
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
