"""Who reaches the TCP port without the token cannot write into the log."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gemd.rpc import undecodable
from tests.support import attacker
from tests.support.app import serving
from tests.support.attacker import END_HEADERS, END_STREAM, GREETING, HEADERS, call_headers, frame
from tests.support.methods import free_port

if TYPE_CHECKING:
    import pytest

BYTES = b"Bearer \xff\xfe, a secret nearly right"
REFUSED = b"grpc-status\x0216"
"""UNAUTHENTICATED, as HPACK has it."""


def answer(address: tuple[str, int], authorization: bytes) -> bytes:
    """What comes back until the status."""
    fields = call_headers("/gemd.v1.DaemonService/GetInfo", (b"authorization", authorization))
    with attacker.dial(address) as connection:
        connection.sendall(GREETING + frame(HEADERS, END_HEADERS | END_STREAM, 1, fields))
        said = b""
        while b"grpc-status" not in said:
            piece = connection.recv(65536)
            assert piece, said
            said += piece
    return said


async def test_bytes_that_are_no_text_are_refused_and_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nor any of the header, which may be a token with a byte too many."""
    port = free_port()
    async with serving(tcp_port=port) as running:
        with caplog.at_level(logging.DEBUG):
            said = await asyncio.to_thread(answer, ("127.0.0.1", port), BYTES)
        assert REFUSED in said
        assert await running.answer("others are answered") == "others are answered"
    assert "a secret nearly right" not in caplog.text
    assert "Invalid encoding" not in caplog.text


def test_what_else_grpc_says_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    """And being asked twice changes nothing."""
    undecodable.keep_out_of_the_log()
    undecodable.keep_out_of_the_log()
    logger = logging.getLogger("grpc._cython.cygrpc")
    logger.error("Invalid encoding on %s", b"\xff")
    logger.error("something else: %s", "Invalid encoding on")
    assert [record.getMessage() for record in caplog.records] == [
        "something else: Invalid encoding on"
    ]
