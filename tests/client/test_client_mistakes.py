"""What a program gets that gives the client something else than it asks for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import pytest

from gemd.client import Client, GenerationOptions, Message

if TYPE_CHECKING:
    from pathlib import Path

OPENAI = {"role": "user", "content": "hi"}
"""A message as other libraries have it."""


@pytest.fixture
def client(socket: Path) -> Client:
    """One that reaches nobody: nothing of this is sent."""
    return Client(socket)


def test_a_message_is_a_message(client: Client) -> None:
    """A dict is named with its place, in a list as well as alone."""
    given: Any = [Message("user", "hi"), OPENAI]
    with pytest.raises(TypeError, match=r"messages\[1\] is .*'content'.*, and has to be a Message"):
        client.chat(given)


def test_a_mode_that_there_is_not_is_named_with_those_that_there_are(client: Client) -> None:
    """And not by a KeyError."""
    options = GenerationOptions(mode=cast("Any", "quick"))
    with pytest.raises(ValueError, match="'quick'; it can be fast, balanced, best, exact"):
        client.chat("hi", options)


@pytest.mark.parametrize("ttl", [math.inf, math.nan])
def test_a_lease_has_an_end(client: Client, ttl: float) -> None:
    """Whoever wants it for ever renews it."""
    with pytest.raises(ValueError, match="give a number of seconds"):
        client.create_lease("m", ttl=ttl)
