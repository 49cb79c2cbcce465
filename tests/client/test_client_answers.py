"""What an answer is where a generation did not come to its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gemd.client import (
    AsyncClient,
    Client,
    Delta,
    GenerationOptions,
    ModelNotFoundError,
    RequestCancelledError,
)
from tests.support.app import MODEL, serving

if TYPE_CHECKING:
    from pathlib import Path

ABSENT = GenerationOptions(model="nobody")
ONE = GenerationOptions(model=MODEL)


async def test_a_failure_is_the_answer_however_often_it_is_asked_for() -> None:
    """And never that the daemon had broken off."""
    async with serving() as running, AsyncClient(running.paths.socket) as client:
        failing = client.generate("a", ABSENT)
        for ask in (failing.text, failing.answer, failing.answers):
            with pytest.raises(ModelNotFoundError):
                await ask()


async def test_who_closed_it_is_told_so() -> None:
    """With what had come by then; an answer that was whole stays one."""
    async with serving() as running, AsyncClient(running.paths.socket) as client:
        left = client.generate("a b c", ONE)
        async for event in left:
            if isinstance(event, Delta):
                break
        left.close()
        with pytest.raises(RequestCancelledError, match="closed before"):
            await left.answer()
        assert left.text_so_far.startswith("a")
        whole = client.generate("a b c", ONE)
        assert await whole.text() == "a b c"
        whole.close()
        assert await whole.text() == "a b c"


async def test_the_same_holds_for_threads() -> None:
    """Whose streams are others."""

    def check(socket: Path) -> None:
        with Client(socket) as client:
            failing = client.generate("a", ABSENT)
            for _ in range(2):
                with pytest.raises(ModelNotFoundError):
                    failing.answer()
            left = client.generate("a b c", ONE)
            next(left)
            left.close()
            with pytest.raises(RequestCancelledError, match="closed before"):
                left.text()
            whole = client.generate("a b c", ONE)
            assert whole.text() == whole.text() == "a b c"

    async with serving() as running:
        await asyncio.to_thread(check, running.paths.socket)


async def test_one_text_is_no_list_of_its_letters() -> None:
    """It is refused before anything is sent, in both clients."""
    async with serving() as running, AsyncClient(running.paths.socket) as client:
        with pytest.raises(TypeError, match="texts are a list of texts"):
            await client.embed("one", model=MODEL)
        with pytest.raises(TypeError, match="continuations are a list of texts"):
            await client.score("The sky is", "blue", model=MODEL)
        assert len((await client.embed(["one"], model=MODEL)).vectors) == 1
        with Client(running.paths.socket) as threaded, pytest.raises(TypeError):
            threaded.embed("one", model=MODEL)
