"""Models that are named by the path of a directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gemd.catalog import BLOCK_DIFFUSION, Catalog, LocalSource, Variant
from gemd.catalog.checkpoints import is_complete, weights_bytes
from gemd.catalog.files import read_profile
from gemd.errors import InvalidRequestError, ModelNotFoundError
from tests.catalog.written import written

TINY = Path(__file__).parents[1] / "fixtures" / "tiny-diffusion-gemma"
WEIGHTS = 3_240_488
"""Bytes of its one file of weights."""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may spoil."""
    return Path(shutil.copytree(TINY, tmp_path / "My Model"))


def test_a_directory_with_a_checkpoint_is_a_model(checkpoint: Path) -> None:
    """Used where it is; its size is that of its weights, its context that of its config.json."""
    catalog = Catalog([])
    profile = catalog.resolve(f"{checkpoint}/")
    assert (profile.id, profile.display_name) == ("local/my-model", "My Model")
    assert profile.context_tokens == 4096
    [variant] = profile.variants
    assert (variant.engine, variant.quantization) == ("diffusion", "BF16")
    assert variant.sources == (LocalSource(path=checkpoint),)
    assert (variant.size_bytes, variant.file_name) == (WEIGHTS, "")
    assert (variant.several_files, variant.as_found) == (True, True)
    assert variant.needs == BLOCK_DIFFUSION
    assert catalog.resolve("local/my-model") == profile
    assert catalog.resolve(str(checkpoint)) is catalog.resolve(str(checkpoint))


def test_a_checkpoint_that_was_replaced_is_looked_at_again(checkpoint: Path) -> None:
    """And one that is gone is known by its path: whoever unloads it names it as before."""
    catalog = Catalog([])
    before = catalog.resolve(str(checkpoint))
    with (checkpoint / "model.safetensors").open("ab") as file:
        file.write(b"more")
    after = catalog.resolve(str(checkpoint))
    assert after.variants[0].size_bytes == before.variants[0].size_bytes + 4
    shutil.rmtree(checkpoint)
    assert catalog.resolve(str(checkpoint)) == after


def test_a_snapshot_in_a_cache_is_called_by_its_repository(tmp_path: Path) -> None:
    """The directory itself is called by a commit; its files are links, and count with theirs."""
    commit = "0123456789" * 4
    snapshot = tmp_path / "models--some--Tiny-Diffusion" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in TINY.iterdir():
        (snapshot / file.name).symlink_to(file)
    profile = Catalog([]).resolve(str(snapshot))
    assert (profile.id, profile.display_name) == ("local/tiny-diffusion", "Tiny-Diffusion")
    assert profile.variants[0].size_bytes == WEIGHTS


def _weights_gone(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def _two_without_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "b.safetensors").write_bytes(b"x")


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _gguf(folder: Path) -> None:
    _no_config(folder)
    (folder / "some.gguf").touch()


def _other_architecture(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


def _odd_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    "spoil, says",
    [
        (_weights_gone, "it has a config.json and no *.safetensors files"),
        (_pickles, "its weights are pytorch_model.bin"),
        (_empty, "are empty, or links to files that are gone"),
        (_two_without_index, "it has a.safetensors, b.safetensors and no model.safetensors.index"),
        (_no_config, "without a config.json"),
        (_gguf, "it is a directory with some.gguf"),
        (_other_architecture, "of a model of the type llama"),
        (_odd_config, "is no JSON table"),
    ],
)
def test_a_directory_of_something_else_is_refused_with_what_was_found(
    checkpoint: Path, spoil: object, says: str
) -> None:
    """So that its owner knows what to do."""
    assert callable(spoil)
    spoil(checkpoint)
    with pytest.raises(InvalidRequestError) as caught:
        Catalog([]).resolve(str(checkpoint))
    assert says in caught.value.why
    assert str(checkpoint) in caught.value.message


def test_a_gguf_file_in_a_directory_is_named_with_the_command_that_runs_it(
    checkpoint: Path,
) -> None:
    """With its path quoted as a shell needs it."""
    _gguf(checkpoint)
    with pytest.raises(InvalidRequestError) as caught:
        Catalog([]).resolve(str(checkpoint))
    assert caught.value.advice[0] == f"gemctl run --model '{checkpoint}/some.gguf' \"Hello\""


def test_a_path_without_anything_is_not_found(tmp_path: Path) -> None:
    """Neither a file nor a directory."""
    with pytest.raises(ModelNotFoundError, match="there is no model file and no checkpoint"):
        Catalog([]).resolve(str(tmp_path / "gone"))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_of_a_checkpoint_is_led_to_its_directory(checkpoint: Path, name: str) -> None:
    """With the command that runs it, and not told about NULs."""
    with pytest.raises(InvalidRequestError) as caught:
        Catalog([]).resolve(str(checkpoint / name))
    assert caught.value.why == (
        "a model file ends in .gguf, and a checkpoint is named by its directory"
    )
    assert caught.value.advice[0] == f"gemctl run --model '{checkpoint}' \"Hello\""


@pytest.mark.parametrize(
    "names, complete",
    [
        (("model.safetensors",), True),
        (
            (
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ),
            True,
        ),
        (("model-00001-of-00002.safetensors", "model.safetensors.index.json"), False),
        (("model-00001-of-00001.safetensors",), False),
        (("model.safetensors.index.json",), False),
        ((), False),
    ],
)
def test_names_tell_whether_a_checkpoint_is_whole(
    tmp_path: Path, names: tuple[str, ...], *, complete: bool
) -> None:
    """Shards count themselves; nothing is read, because a list looks at all models."""
    for name in (*names, "config.json"):
        (tmp_path / name).write_bytes(b"x")
    assert is_complete(tmp_path) is complete
    (tmp_path / "config.json").unlink()
    assert not is_complete(tmp_path)
    assert weights_bytes(tmp_path) == sum(name.endswith(".safetensors") for name in names)
    assert weights_bytes(tmp_path / "nowhere") == 0


PROFILE = """
id = "tiny"
display_name = "Tiny"
family = "test"

[[variants]]
id = "own"
quantization = "BF16"
engine = "diffusion"
size_bytes = 3_240_488

[[variants.sources]]
kind = "local"
path = "/models/tiny"
"""


def test_a_profile_of_the_users_may_name_a_directory(tmp_path: Path) -> None:
    """It needs neither figures nor a file's name; what the engine requires is required."""
    [variant] = read_profile(written(tmp_path, PROFILE)).variants
    assert (variant.several_files, variant.as_found) == (True, True)
    assert variant.needs == BLOCK_DIFFUSION
    also = (
        PROFILE
        + '[[variants.sources]]\nkind = "hub-repository"\nrepository = "a/b"\nfiles = ["*"]\n'
    )
    [variant] = read_profile(written(tmp_path, also)).variants
    assert (variant.several_files, variant.as_found) == (True, False)


def test_what_a_variant_requires_itself_counts_before_what_its_engine_does() -> None:
    """A checkpoint for newer GPUs only says so; of llama.cpp nothing is required."""
    newer = PROFILE_VARIANT | {"requires": {"compute_capability": "12.0"}}
    assert Variant.model_validate(newer).needs.capability == (12, 0)
    assert Variant.model_validate(PROFILE_VARIANT).needs.capability == (8, 0)


PROFILE_VARIANT = {
    "id": "own",
    "quantization": "BF16",
    "engine": "diffusion",
    "size_bytes": 1,
    "sources": [{"kind": "local", "path": "/models/tiny"}],
}
