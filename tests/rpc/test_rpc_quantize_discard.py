"""What of a source is removed for a quantization: what was fetched for it, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import hf_hub_download

from gemd.errors import ContentMismatchError
from gemd.store import Checked
from tests.support.app import until
from tests.support.hub_server import HubServer
from tests.support.quantizing import (
    FILE,
    REPOSITORY,
    SLOWLY,
    bf16,
    digest,
    model,
    q4,
    quantizers,
    shop,
)
from tests.support.stores import hub_blobs, hub_cache_of
from tests.support.unquantized import DENSE, write_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.rpc.quantize_wish import Finished
    from gemd.store.progress import Tracker
    from tests.support.quantizing import Shop

PROFILE = model(q4(), bf16(10**7))


@pytest.fixture(scope="module", name="weights")
def _weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine megabytes of BF16 in the shape of a Gemma 4."""
    return write_model(tmp_path_factory.mktemp("weights") / FILE, DENSE)


@pytest.fixture(scope="module", name="hub")
def _hub(weights: Path) -> Iterator[HubServer]:
    """A hub that has them."""
    with HubServer() as server:
        server.add(REPOSITORY, FILE, weights.read_bytes())
        yield server


async def unsound(_: Finished, __: Tracker) -> tuple[Checked, ...]:
    """A check that fails."""
    return (Checked(check="sampled-error", passed=False, detail="0.3 in blk.0"),)


async def test_what_another_tool_fetched_stays(
    hub: HubServer, weights: Path, tmp_path: Path
) -> None:
    """The hub's own client had it before: it was not fetched for this."""
    cache = hub_cache_of(tmp_path)
    theirs = Path(hf_hub_download(REPOSITORY, FILE, cache_dir=cache, endpoint=hub.url))
    async with shop(tmp_path, PROFILE, hub=hub.url) as one:
        await one.made("tiny", "Q8_0", discard_source=True)
        assert any("the source stays" in each.progress.message for each in one.seen)
        assert digest(theirs) == digest(weights)
        assert one.manifest("tiny", "bf16") is not None


async def test_bytes_that_another_model_has_too_stay(
    hub: HubServer, weights: Path, tmp_path: Path
) -> None:
    """Under whatever name it was fetched first."""
    other = model(bf16(10**7), id="other")
    async with shop(tmp_path, PROFILE, other, hub=hub.url) as one:
        await one.store.pull(other, lambda _: None, variant="bf16")
        await one.made("tiny", "Q8_0", discard_source=True)
        assert digest(one.store.locate(other).path) == digest(weights)


async def test_what_the_user_pulled_meanwhile_stays(
    hub: HubServer, weights: Path, tmp_path: Path
) -> None:
    """After a try that had fetched it in order to remove it."""
    async with shop(tmp_path, PROFILE, hub=hub.url) as one:
        await given_up(one)
        pulled = await one.store.pull(PROFILE, lambda _: None, variant="bf16")
        await one.made("tiny", SLOWLY, discard_source=True)
        assert one.manifest("tiny", "bf16") is not None
        assert digest(pulled.path) == digest(weights)


async def test_what_the_user_pulled_in_place_of_a_try_stays(hub: HubServer, tmp_path: Path) -> None:
    """After one that was given up before it had all of it."""
    async with shop(tmp_path, PROFILE, hub=hub.url) as one:
        begun = one.begin("tiny", "Q8_0", discard_source=True)
        await until(hub_blobs(tmp_path, REPOSITORY).exists)
        await one.operations.cancel(begun.id)
        await one.store.pull(PROFILE, lambda _: None, variant="bf16")
        await one.made("tiny", "Q8_0", discard_source=True)
        assert one.manifest("tiny", "bf16") is not None


async def test_the_source_of_work_that_was_given_up_is_not_lost_sight_of(
    hub: HubServer, tmp_path: Path
) -> None:
    """It is no variant any more; removing the model removes it all the same."""
    async with shop(tmp_path, PROFILE, hub=hub.url) as one:
        await given_up(one)
        assert one.manifest("tiny", "bf16") is None
        assert list(hub_blobs(tmp_path, REPOSITORY).iterdir())
        one.store.delete(PROFILE)
    assert not hub_blobs(tmp_path, REPOSITORY).exists()


async def test_nothing_of_it_is_left_where_the_result_fails(hub: HubServer, tmp_path: Path) -> None:
    """It was to go, and nobody else knows it any more."""
    async with shop(tmp_path, PROFILE, hub=hub.url, check=unsound) as one:
        with pytest.raises(ContentMismatchError, match="did not pass"):
            await one.made("tiny", "Q8_0", discard_source=True)
        assert not (one.store.root / "begun" / "tiny").exists()
    assert not hub_blobs(tmp_path, REPOSITORY).exists()
    assert not list(hub_cache_of(tmp_path).glob("models--*/snapshots/*/*"))


async def given_up(one: Shop) -> None:
    """Begin to make something of it, and cancel that when the source is being used up."""
    begun = one.begin("tiny", SLOWLY, discard_source=True)
    await until(lambda: bool(quantizers()))
    await one.operations.cancel(begun.id)
