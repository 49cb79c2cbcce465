"""What was made here: variants out of manifests, names, and how a result gets its place."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.catalog.values import ID_PATTERN
from gemd.errors import InvalidRequestError
from gemd.store import Checked, Making, Manifest
from gemd.store.accepting import accept, manifest_of, seal, sealed
from gemd.store.kept import Entry
from gemd.store.made import (
    Workplace,
    file_name,
    made_models,
    model_id,
    variant_id,
)
from gemd.store.manifest import Stamp, listing_sha256
from gemd.store.provenance import Provenance, Recipe, ResultFile, SourceFile, SourceNote

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
SHA = "a" * 64


def manifest(variant: str = "q4_0-local", **changes: Any) -> Manifest:
    """Of a variant that was made from a file."""
    values: dict[str, Any] = {
        "model": "f16",
        "variant": variant,
        "path": f"made/f16/{variant}/f16-Q4_0.gguf",
        "sha256": SHA,
        "stamp": Stamp(size_bytes=100, mtime_ns=1, inode=1),
        "source": "quantized",
        "origin": "/home/me/f16.gguf",
        "created": NOON,
        "making": Making(
            quantization="Q4_0", engine="llama", source="/home/me/f16.gguf", display_name="f16"
        ),
    }
    return Manifest(**(values | changes))


def test_variants_come_out_of_manifests_in_their_order() -> None:
    """What was not made here is passed over; the context is the longest that one knows."""
    late = manifest("q8_0-local", created=NOON + timedelta(hours=1))
    pulled = manifest("q4", source="hub", making=None)
    diffusing = manifest(
        "nvfp4-local",
        model="d",
        path="made/d/nvfp4-local",
        making=Making(quantization="NVFP4", engine="diffusion", source="bf16", context_tokens=4096),
    )
    found = made_models([late, pulled, diffusing, manifest()])
    assert {name: [each.id for each in one.variants] for name, one in found.items()} == {
        "f16": ["q4_0-local", "q8_0-local"],
        "d": ["nvfp4-local"],
    }
    [first, _] = found["f16"].variants
    assert (first.file_name, first.size_bytes, first.made_here) == ("f16-Q4_0.gguf", 100, True)
    assert manifest().is_about(first)
    [directory] = found["d"].variants
    assert directory.several_files
    assert directory.requires.vendors == ("nvidia",)
    assert found["d"].context_tokens == 4096
    assert made_models([pulled]) == {}


@given(st.text(min_size=1), st.sets(st.text(alphabet="abc-.", min_size=1, max_size=3)))
def test_any_file_gets_an_id_that_nobody_else_has(stem: str, taken: set[str]) -> None:
    """The same one each time; another file of that name gets another one."""
    path, other = Path("/a/x.gguf"), Path("/b/x.gguf")
    first = model_id(path, stem, taken, {})
    assert first not in taken
    Workplace(Path("/store"), first, variant_id("Q4_K_M"))
    assert model_id(path, stem, taken, {first: str(path)}) == first
    assert model_id(other, stem, taken, {first: str(path)}) != first


@given(st.from_regex(ID_PATTERN, fullmatch=True).filter(lambda text: len(text) <= 100))
def test_file_names_are_such(model: str) -> None:
    """Of any model."""
    made = manifest(path=f"made/x/{file_name(model, 'Q4_K_M')}")
    assert made_models([made])["f16"].variants[0].file_name == file_name(model, "Q4_K_M")


@pytest.mark.parametrize("name", ["..", "a/b", "", "A", ".x"])
def test_no_name_leads_out_of_the_store(name: str) -> None:
    """Of a model or a variant."""
    with pytest.raises(InvalidRequestError):
        Workplace(Path("/store"), name, "v")
    with pytest.raises(InvalidRequestError):
        Workplace(Path("/store"), "m", name)


NOTE = SourceNote(
    source="/home/me/f16.gguf",
    path="/home/me/f16.gguf",
    origin="/home/me/f16.gguf",
    files=(SourceFile(name="f16.gguf", size_bytes=9, mtime_ns=1, sha256=SHA),),
)


def provenance(contents: dict[str, bytes], **changes: Any) -> Provenance:
    """Of a result with these files."""
    import hashlib  # noqa: PLC0415 - here only

    values: dict[str, Any] = {
        "model": "m",
        "variant": "v",
        "making": Making(quantization="Q4_0", engine="llama", source="bf16"),
        "recipe": Recipe(quantization="Q4_0"),
        "source": NOTE,
        "plan": {"Q4_0": 1},
        "versions": {"gemd": "0"},
        "files": tuple(
            ResultFile(name=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
            for name, data in contents.items()
        ),
        "checks": (Checked(check="sizes", passed=True, detail="all"),),
        "created": NOON,
    }
    return Provenance(**(values | changes))


def worked(place: Workplace, contents: dict[str, bytes]) -> None:
    """What a quantizer leaves."""
    place.files.mkdir(parents=True)
    for name, data in {**contents, "journal.jsonl": b"{}\n", "tensors.json": b"[]"}.items():
        (place.files / name).write_bytes(data)
    place.source_note.write_text("{}")


def _unhurried() -> None:
    """Nobody wants it to stop."""


class PowerFailedError(Exception):
    """Everything stops here."""


@pytest.mark.parametrize("engine", ["llama", "diffusion"])
def test_a_result_gets_its_place(tmp_path: Path, engine: str) -> None:
    """One file, or a directory with all of them as parts; nothing is left of the work."""
    contents = {"a.gguf": b"first"}
    if engine == "diffusion":
        contents = {"a.safetensors": b"first", "config.json": b"{}"}
    place = Workplace(tmp_path, "m", "v")
    worked(place, contents)
    about = provenance(
        contents,
        making=Making.model_validate({"quantization": "X", "engine": engine, "source": "bf16"}),
    )
    seal(place, about)
    assert sealed(place, None, _unhurried) == about
    written: list[Manifest] = []
    made = accept(place, about, written.append)
    assert written == [made]
    assert Entry.of(made, tmp_path).intact
    assert {each.name for each in place.made.iterdir()} == {
        *contents,
        "provenance.json",
        "tensors.json",
    }
    assert not (tmp_path / "work" / "m").exists()
    if engine == "diffusion":
        assert made.sha256 == listing_sha256({each.name: each.sha256 for each in made.parts})
        assert made.file(tmp_path) == place.made
        assert made.is_directory
    else:
        assert made.file(tmp_path) == place.made / "a.gguf"


@pytest.mark.parametrize("steps", range(8))
def test_a_power_failure_at_any_step_is_mended(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is the old one or all of the new one; doing it again ends with the new one."""
    place = Workplace(tmp_path, "m", "v")
    old, new = {"a.gguf": b"old"}, {"a.gguf": b"new one"}
    worked(place, old)
    seal(place, provenance(old))
    accept(place, provenance(old), lambda _: None)
    worked(place, new)
    about = provenance(new, created=NOON + timedelta(days=1))
    seal(place, about)
    count = 0

    def step(call: Any) -> Any:
        def stepping(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count > steps:
                raise PowerFailedError
            return call(*arguments, **named)

        return stepping

    with monkeypatch.context() as patch, contextlib.suppress(PowerFailedError):
        for name in ("rename", "rmdir", "unlink", "mkdir"):
            patch.setattr(f"os.{name}", step(getattr(__import__("os"), name)))
        accept(place, about, step(lambda _: None))
    found = sealed(place, None, _unhurried)
    assert found == about
    made = accept(place, found, lambda _: None)
    assert made.file(tmp_path).read_bytes() == b"new one"
    assert not (tmp_path / "work" / "m").exists()


def test_what_is_not_complete_is_not_sealed(tmp_path: Path) -> None:
    """Without provenance, with a damaged one, or with a file of another size."""
    place = Workplace(tmp_path, "m", "v")
    assert sealed(place, None, _unhurried) is None
    worked(place, {"a.gguf": b"first"})
    assert sealed(place, None, _unhurried) is None
    (place.files / "provenance.json").write_text("{}")
    assert sealed(place, None, _unhurried) is None
    seal(place, provenance({"a.gguf": b"first"}))
    assert sealed(place, None, _unhurried) is not None
    (place.files / "a.gguf").write_bytes(b"longer than first")
    assert sealed(place, None, _unhurried) is None


def test_what_lies_in_its_place_is_not_taken_unread(tmp_path: Path) -> None:
    """Without a manifest only with the right bytes; with its own, unless that finds it wanting."""
    place = Workplace(tmp_path, "m", "v")
    worked(place, {"a.gguf": b"first"})
    about = provenance({"a.gguf": b"first"})
    seal(place, about)
    made = accept(place, about, lambda _: None)
    file = made.file(tmp_path)
    assert sealed(place, None, _unhurried) == about
    assert sealed(place, Entry.of(made, tmp_path), _unhurried) == about
    rejected = made.model_copy(update={"rejection": "scales: NaN"})
    assert sealed(place, Entry.of(rejected, tmp_path), _unhurried) is None
    file.write_bytes(b"other")
    assert sealed(place, None, _unhurried) is None
    assert sealed(place, Entry.of(made, tmp_path), _unhurried) is None


def test_a_result_is_that_of_its_recipe_and_source() -> None:
    """Another type, another source, or a source with other bytes is another result."""
    made = provenance({"a.gguf": b"x"})
    recipe = Recipe(quantization="Q4_0")
    assert made.is_of(recipe, NOTE)
    assert not made.is_of(Recipe(quantization="Q8_0"), NOTE)
    assert not made.is_of(Recipe(quantization="Q4_0", importance_sha256=SHA), NOTE)
    assert not made.is_of(recipe, NOTE.model_copy(update={"source": "/other.gguf"}))
    changed = NOTE.files[0].model_copy(update={"sha256": "b" * 64})
    assert not made.is_of(recipe, NOTE.model_copy(update={"files": (changed,)}))
    touched = NOTE.files[0].model_copy(update={"mtime_ns": 2})
    assert made.is_of(recipe, NOTE.model_copy(update={"files": (touched,)}))


def test_a_manifest_names_files_inside_the_store(tmp_path: Path) -> None:
    """Relative, so that a store can be moved."""
    place = Workplace(tmp_path, "m", "v")
    place.made.mkdir(parents=True)
    (place.made / "a.gguf").write_bytes(b"x")
    made = manifest_of(place, provenance({"a.gguf": b"x"}))
    assert PurePosixPath(made.path) == PurePosixPath("made/m/v/a.gguf")
