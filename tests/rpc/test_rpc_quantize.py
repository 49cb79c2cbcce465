"""QuantizeModel: from a request to a variant, with real quantizers and a real store."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from gemd.catalog import (
    LocalSource,
    QuantizedSource,
    RepositorySource,
    Variant,
)
from gemd.errors import (
    ContentMismatchError,
    DiskFullError,
    GemdError,
    InvalidRequestError,
    ModelNotFoundError,
)
from gemd.store import Checked, Manifest
from tests.support.hub_server import COMMIT, HubServer
from tests.support.quantizing import (
    FILE,
    REPOSITORY,
    bf16,
    digest,
    model,
    q4,
    shop,
)
from tests.support.stores import hub_cache_of
from tests.support.unquantized import DENSE, write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.rpc.quantize_wish import Finished
    from gemd.store.progress import Tracker


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


async def unsound(finished: Finished, _: Tracker) -> tuple[Checked, ...]:
    """One that does not."""
    assert (finished.order.target and finished.made.files) is not None
    return (
        Checked(check="first", passed=True, detail="good"),
        Checked(check="sampled-error", passed=False, detail="0.3 in blk.0", value=0.3, limit=0.1),
    )


async def test_a_file_of_the_users_becomes_a_variant(weights: Path, tmp_path: Path) -> None:
    """Where it came from is beside it and in the manifest; the catalogue knows it at once."""
    async with shop(tmp_path) as one:
        result = await one.made(weights, "q4_0")
        assert (result.variant, result.origin) == ("q4_0-local", str(weights))
        assert [check.check for check in result.checks] == ["looked-at", "size-ratio"]
        manifest = one.manifest("tiny-bf16", "q4_0-local")
        assert manifest is not None
        assert (manifest.source, manifest.origin) == ("quantized", str(weights))
        file = manifest.file(one.store.root)
        assert file == one.store.root / "made/tiny-bf16/q4_0-local/tiny-bf16-Q4_0.gguf"
        assert digest(file) == manifest.sha256
        assert {each.name for each in file.parent.iterdir()} == {
            file.name,
            "provenance.json",
            "tensors.json",
        }
        assert not one.working("tiny-bf16", "q4_0-local").parent.exists()
        profile = one.library.resolve("tiny-bf16:q4_0-local")
        assert (profile.family, profile.display_name) == ("local", "tiny-BF16")
        located = one.store.locate(profile)
        assert located.path == file
        # Another one of the same file stands beside it, under the same model.
        await one.made(weights, "Q8_0", variant="best")
        assert [each.id for each in one.library.resolve("tiny-bf16").variants] == [
            "q4_0-local",
            "best",
        ]
        # And of a model that was made here another one is made from what it was made from.
        await one.made("tiny-bf16", "Q5_0")
        assert one.manifest("tiny-bf16", "q5_0-local") is not None
    async with shop(tmp_path) as next_one:
        assert len(next_one.library.resolve("tiny-bf16").variants) == 3
        one_more = next_one.begin(weights, "q4_0")
        assert (await next_one.end(one_more)).units == ()
        next_one.store.delete(next_one.library.resolve("tiny-bf16"))
        with pytest.raises(ModelNotFoundError):
            next_one.library.resolve("tiny-bf16")


async def test_a_made_variant_that_is_named_is_no_source(weights: Path, tmp_path: Path) -> None:
    """The user's own file is; another one than was named is not taken in silence."""
    async with shop(tmp_path) as one:
        await one.made(weights, "q4_0")
        for named in (("tiny-bf16:q4_0-local", ""), ("tiny-bf16", "q4_0-local")):
            with pytest.raises(InvalidRequestError, match="not made of tiny-bf16:q4_0-local"):
                one.begin(named[0], "Q8_0", source_variant=named[1])


async def test_namesakes_are_told_apart(weights: Path, tmp_path: Path) -> None:
    """A file called as a model of the catalogue, and two files of one name."""
    first, second = tmp_path / "a" / "tiny.gguf", tmp_path / "b" / "other.gguf"
    third = tmp_path / "c" / "other.gguf"
    for path in (first, second, third):
        path.parent.mkdir()
        path.symlink_to(weights)
    async with shop(tmp_path, model(bf16(10**7))) as one:
        await one.made(second, "Q8_0")
        names = []
        for path in (first, second, third, second):
            begun = one.begin(path, "Q4_0")
            await one.operations.cancel(begun.id)
            names.append(begun.model)
        assert names[1] == names[3] == "other"
        assert names[0].startswith("tiny-")
        assert names[2].startswith("other-")
        assert len(set(names)) == 3


async def test_the_source_is_fetched_and_kept(
    hub: HubServer, weights: Path, tmp_path: Path
) -> None:
    """Pulled into the user's hub cache, and named with its commit."""
    async with shop(tmp_path, model(q4(), bf16(10**7)), hub=hub.url) as one:
        result = await one.made("tiny", "Q8_0")
        assert result.origin == f"{REPOSITORY}@{COMMIT}"
        assert one.manifest("tiny", "bf16") is not None
        variants = one.library.resolve("tiny").variants
        assert [each.id for each in variants] == ["q4", "bf16", "q8_0-local"]
        assert variants[-1].sources == (QuantizedSource(variant="bf16"),)
        # It is on disk now, and the hub is asked for nothing.
        asked = len(hub.requests)
        await one.made("tiny:bf16", "Q4_0")
        assert len(hub.requests) == asked


async def test_a_source_that_was_fetched_for_it_can_go(
    hub: HubServer, weights: Path, tmp_path: Path
) -> None:
    """Nothing of it is left, not in the hub's cache either; the result is what it is otherwise."""
    async with shop(tmp_path, model(q4(), bf16(10**7)), hub=hub.url) as one:
        result = await one.made("tiny", "Q8_0", discard_source=True)
        assert result.origin == f"{REPOSITORY}@{COMMIT}"
        assert one.manifest("tiny", "bf16") is None
        left = [each for each in hub_cache_of(tmp_path).glob("models--*/**/*") if each.is_file()]
        assert left == []
        made = one.manifest("tiny", "q8_0-local")
        assert made is not None
    async with shop(tmp_path / "other") as other:
        await other.made(weights, "Q8_0")
        same = other.manifest("tiny-bf16", "q8_0-local")
        assert same is not None
        assert same.sha256 == made.sha256


@pytest.mark.slow
@pytest.mark.parametrize("discard", [False, True])
async def test_the_checkpoint_of_a_profile_is_fetched_and_converted(
    tmp_path: Path, *, discard: bool
) -> None:
    """Gemma 4 in safetensors of several files; it goes shard by shard if it is to."""
    # Torch: for this test alone.
    from tests.support.gemma4_checkpoints import FORMS, write_checkpoint  # noqa: PLC0415

    source = tmp_path / "checkpoint"
    write_checkpoint(source, next(iter(FORMS)))
    files = sorted(source.iterdir())
    checkpoint = Variant(
        id="bf16",
        quantization="BF16",
        engine="none",
        size_bytes=sum(each.stat().st_size for each in files),
        sources=(
            RepositorySource(repository=REPOSITORY, files=("*.safetensors", "*.json", "*.jinja")),
        ),
    )
    profile = model(q4(), checkpoint=checkpoint, licence="Apache-2.0")
    with HubServer() as hub:
        for each in files:
            hub.add(REPOSITORY, each.name, each.read_bytes())
        async with shop(tmp_path, profile, hub=hub.url) as one:
            result = await one.made("tiny", "Q8_0", discard_source=discard)
            assert result.origin == f"{REPOSITORY}@{COMMIT}"
            made = one.manifest("tiny", "q8_0-local")
            assert made is not None
            assert made.licence == "Apache-2.0"
            assert (one.manifest("tiny", "bf16") is None) == discard
            left = [
                each for each in hub_cache_of(tmp_path).glob("models--*/**/*") if each.is_file()
            ]
            assert bool(left) != discard
    async with shop(tmp_path / "other") as other:
        await other.made(source, "Q8_0")
        same = other.manifest("checkpoint", "q8_0-local")
        assert same is not None
        # All but the name, which a converter takes from where it finds the files.
        assert same.making is not None
        assert abs(same.stamp.size_bytes - made.stamp.size_bytes) < 1000


@pytest.mark.slow
async def test_a_source_of_the_users_never_goes(weights: Path, tmp_path: Path) -> None:
    """Whatever was asked for: not a file that is named by its path, nor one of a profile's."""
    own = tmp_path / "own.gguf"
    shutil.copy(weights, own)
    async with shop(tmp_path, model(bf16(10**7, LocalSource(path=own)))) as one:
        await one.made(own, "Q8_0", discard_source=True)
        await one.made("tiny", "Q8_0", discard_source=True)
    assert digest(own) == digest(weights)


async def test_room_is_looked_for_before_the_source_is_fetched(
    hub: HubServer, tmp_path: Path
) -> None:
    """For both together; not a byte is asked for."""
    huge = 1 << 60
    async with shop(tmp_path, model(q4(), bf16(huge)), hub=hub.url) as one:
        asked = len(hub.requests)
        with pytest.raises(DiskFullError) as caught:
            await one.made("tiny", "Q8_0")
        assert int(caught.value.metadata["needed_bytes"]) > huge
        assert len(hub.requests) == asked
        assert one.manifest("tiny", "q8_0-local") is None


async def test_what_does_not_pass_is_not_there(weights: Path, tmp_path: Path) -> None:
    """The error names the check with its numbers; nothing is left of the work."""
    async with shop(tmp_path, check=unsound) as one:
        with pytest.raises(ContentMismatchError) as caught:
            await one.made(weights, "Q8_0")
        assert "did not pass the check sampled-error" in caught.value.message
        assert caught.value.why == "0.3 in blk.0"
        assert (caught.value.metadata["value"], caught.value.metadata["limit"]) == ("0.3", "0.1")
        assert one.manifest("tiny-bf16", "q8_0-local") is None
        assert not one.working("tiny-bf16", "q8_0-local").exists()
        assert not (one.store.root / "made").exists()


async def test_what_is_complete_is_only_put_in_its_place(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that dies between the last check and the manifest costs no second quantization."""
    async with shop(tmp_path) as one:
        with monkeypatch.context() as patch:
            patch.setattr(one.store, "record", _dies)
            with pytest.raises(GemdError):
                await one.made(weights, "Q8_0")
        assert one.manifest("tiny-bf16", "q8_0-local") is None
        one.seen.clear()
        await one.made(weights, "Q8_0")
        assert one.manifest("tiny-bf16", "q8_0-local") is not None
        phases = {snapshot.progress.phase for snapshot in one.seen}
        assert "quantizing" not in phases


@pytest.mark.slow
async def test_it_is_made_again_if_asked_to(weights: Path, tmp_path: Path) -> None:
    """With force, though it is there; the old one is there until the new one is."""
    async with shop(tmp_path) as one:
        await one.made(weights, "Q8_0")
        first = one.manifest("tiny-bf16", "q8_0-local")
        await one.made(weights, "Q8_0", force=True)
        second = one.manifest("tiny-bf16", "q8_0-local")
        assert first is not None
        assert second is not None
        assert first.sha256 == second.sha256
        assert first.stamp.inode != second.stamp.inode


async def test_a_source_that_is_gone_is_named(weights: Path, tmp_path: Path) -> None:
    """When it is asked for, and when it goes before the work begins."""
    path = tmp_path / "gone.gguf"
    async with shop(tmp_path) as one:
        with pytest.raises(ModelNotFoundError, match="no file or directory has that name"):
            one.begin(path, "Q8_0")
        path.symlink_to(weights)
        begun = one.begin(path, "Q8_0")
        path.unlink()
        error = (await one.end(begun)).error
        assert isinstance(error, ModelNotFoundError)
        assert str(path) in error.message


@pytest.mark.parametrize(
    "name, kind, fields, why",
    [
        ("tiny", "Q9_9", {}, "gemd makes F32"),
        ("tiny", "NVFP4", {}, "that takes a BF16 DiffusionGemma checkpoint"),
        ("tiny", "Q8_0", {"source_variant": "q5"}, "it has q4, bf16"),
        ("tiny", "Q8_0", {"source_variant": "q4"}, "its weights are Q4_0 already"),
        ("tiny:q4", "Q8_0", {}, "its weights are Q4_0 already"),
        ("tiny", "Q8_0", {"variant": "Q8"}, "ids consist of"),
        ("tiny", "Q8_0", {"variant": "q4"}, "it is pulled from"),
        ("tiny", "Q8_0", {"quantize_dense": True}, "only NVFP4 does"),
        ("tiny", "Q8_0", {"importance_matrix": "i.gguf"}, "an absolute path"),
        ("tiny", "", {}, "gemd makes F32"),
        ("", "Q8_0", {}, "it is empty"),
        ("/x.gguf", "Q8_0", {"source_variant": "bf16"}, "a path has no variants"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    tmp_path: Path, name: str, kind: str, fields: dict[str, Any], why: str
) -> None:
    """With what would, before there is an operation."""
    async with shop(tmp_path, model(q4(), bf16(10**7))) as one:
        with pytest.raises(InvalidRequestError) as caught:
            one.begin(name, kind, **fields)
        assert why in str(caught.value)
        assert one.operations.list() == []


def _dies(_: Manifest) -> None:
    raise ModelNotFoundError("the power failed")
