"""Quantizations that are joined, cancelled and killed, with real processes."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from gemd.errors import (
    EngineCrashedError,
    GemdError,
    OperationConflictError,
)
from gemd.store import Kind, State
from tests.support.quantizing import (
    FILE,
    SLOWLY,
    at_work,
    quantizers,
    shop,
)
from tests.support.unquantized import DENSE, write_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module", name="weights")
def _weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine megabytes of BF16 in the shape of a Gemma 4."""
    return write_model(tmp_path_factory.mktemp("weights") / FILE, DENSE)


async def test_two_ask_for_one_thing(weights: Path, tmp_path: Path) -> None:
    """They get one operation; who asks for something else of the model meanwhile is refused."""
    async with shop(tmp_path) as one:
        first, second = one.begin(weights, SLOWLY), one.begin(weights, SLOWLY)
        assert first.id == second.id
        with pytest.raises(GemdError, match="cannot quantize tiny-bf16 now"):
            one.begin(weights, "Q8_0")
        with pytest.raises(OperationConflictError, match="made already, from something else"):
            one.begin(weights, "Q8_0", variant=first.variant)
        await one.operations.cancel(first.id)


async def test_a_repeated_quantization_gets_what_the_first_call_joined(
    weights: Path, tmp_path: Path
) -> None:
    """Though something else is made under that name by then."""
    async with shop(tmp_path) as one:
        first = one.begin(weights, SLOWLY, variant="mine", request_id="u")
        assert one.begin(weights, SLOWLY, variant="mine", request_id="v").id == first.id
        await one.operations.cancel(first.id)
        other = one.begin(weights, "Q8_0", variant="mine")
        for request in ("u", "v"):
            again = one.begin(weights, SLOWLY, variant="mine", request_id=request)
            assert again.id == first.id
        await one.operations.cancel(other.id)


async def test_a_killed_quantizer_goes_on(weights: Path, tmp_path: Path) -> None:
    """The user is told, and the bytes are those of one that nobody disturbed."""
    async with shop(tmp_path) as one:
        begun = one.begin(weights, SLOWLY)
        (await at_work(one, f"{SLOWLY.lower()}-local")).send_signal(signal.SIGKILL)
        last = await one.end(begun)
        assert last.state is State.SUCCEEDED
        assert "ended by SIGKILL" in last.progress.message
        killed = one.manifest("tiny-bf16", "iq4_xs-local")
        await one.made(weights, SLOWLY, variant="undisturbed")
        undisturbed = one.manifest("tiny-bf16", "undisturbed")
        assert killed is not None
        assert undisturbed is not None
        assert killed.sha256 == undisturbed.sha256


async def test_a_quantizer_that_is_always_killed_is_given_up(weights: Path, tmp_path: Path) -> None:
    """After three ends in a row without a new byte."""
    async with shop(tmp_path) as one:
        begun = one.begin(weights, SLOWLY)
        ended = asyncio.create_task(one.end(begun))
        killed: set[int] = set()
        while not ended.done():
            for process in quantizers():
                if process.pid not in killed:
                    killed.add(process.pid)
                    process.kill()
            await asyncio.sleep(0.01)
        error = (await ended).error
        assert isinstance(error, EngineCrashedError)
        assert error.metadata["signal"] == "SIGKILL"
        assert len(killed) == 3


@pytest.mark.slow
async def test_the_next_daemon_goes_on(weights: Path, tmp_path: Path) -> None:
    """Under the same id; what was done before is not done again."""
    async with shop(tmp_path) as one:
        begun = one.begin(weights, SLOWLY)
        await at_work(one, "iq4_xs-local")
    assert not quantizers()
    async with shop(tmp_path) as next_one:
        next_one.operations.resume()
        last = await next_one.end(begun)
        assert (last.id, last.kind, last.state) == (begun.id, Kind.QUANTIZE, State.SUCCEEDED)
        assert any(unit.reused for snapshot in next_one.seen for unit in snapshot.units)
    assert not list((tmp_path / "operations").glob("*.json"))


async def test_a_cancelled_one_leaves_what_the_next_goes_on_with(
    weights: Path, tmp_path: Path
) -> None:
    """And no variant, and no process."""
    async with shop(tmp_path) as one:
        begun = one.begin(weights, SLOWLY)
        await at_work(one, "iq4_xs-local")
        ended = await one.operations.cancel(begun.id)
        assert ended.state is State.CANCELLED
        assert not quantizers()
        assert one.manifest("tiny-bf16", "iq4_xs-local") is None
        assert (one.working("tiny-bf16", "iq4_xs-local") / "files/journal.jsonl").exists()
