"""Names and the models they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.catalog import Catalog, LocalSource
from gemd.catalog.local import safe_id
from gemd.errors import ConfigError, InvalidRequestError, ModelNotFoundError
from gemd.store.layout import checked_id
from tests.support.models import PROFILES

if TYPE_CHECKING:
    from pathlib import Path


def test_ids_are_resolved() -> None:
    """The shipped catalogue has the default."""
    catalog = Catalog.load(PROFILES)
    assert catalog.resolve("smollm2-135m").display_name == "SmolLM2 135M Instruct"
    ids = [profile.id for profile in catalog.profiles]
    assert ids == sorted(ids)
    assert "gemma4-26b-a4b" in ids


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    """A typing error and wrong capitals lead to the right name."""
    for name in ("smolm2", "SmolLM2-135M"):
        with pytest.raises(ModelNotFoundError) as caught:
            Catalog.load(PROFILES).resolve(name)
        assert caught.value.advice[0] == "use smollm2-135m"
        assert caught.value.metadata["model"] == name


def test_the_users_profile_replaces_the_shipped_one(tmp_path: Path) -> None:
    """Whole, by its id; others of the user's come on top; no folder is no error."""
    text = (PROFILES / "smollm2-135m.toml").read_text()
    mine = text.replace("SmolLM2 135M Instruct", "Mine")
    (tmp_path / "smollm2-135m.toml").write_text(mine)
    (tmp_path / "extra.toml").write_text(mine.replace('id = "smollm2-135m"', 'id = "extra"'))
    catalog = Catalog.load(PROFILES, tmp_path)
    assert catalog.resolve("smollm2-135m").display_name == "Mine"
    shipped = Catalog.load(PROFILES, tmp_path / "none")
    assert len(catalog.profiles) == len(shipped.profiles) + 1


def test_a_bad_profile_of_the_user_stops_the_start(tmp_path: Path) -> None:
    """It is not passed over: the user believes that it counts."""
    (tmp_path / "x.toml").write_text("id = 'x'")
    with pytest.raises(ConfigError):
        Catalog.load(PROFILES, tmp_path)


def test_hidden_files_are_no_profiles(tmp_path: Path) -> None:
    """Editors and file systems leave such beside the user's own."""
    (tmp_path / "._x.toml").write_bytes(b"\x00\x05\x16\x07\xff")
    (tmp_path / ".#x.toml").symlink_to("me@here.123")
    assert len(Catalog.load(PROFILES, tmp_path).profiles) == len(Catalog.load(PROFILES).profiles)


def test_a_path_is_a_model(tmp_path: Path) -> None:
    """An absolute path to a .gguf file; afterwards its id is a name too."""
    file = tmp_path / "My Model (v2).GGUF"
    file.write_bytes(b"GGUF")
    catalog = Catalog([])
    profile = catalog.resolve(str(file))
    assert profile.id == "local/my-model-v2"
    assert profile.display_name == "My Model (v2).GGUF"
    assert profile.variants[0].sources == (LocalSource(path=file),)
    assert catalog.resolve("local/my-model-v2") == profile
    assert catalog.profiles == (profile,)


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Their ids differ and stay the same; neither answers for the other."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.gguf").write_bytes(b"GGUF")
    catalog = Catalog([])
    first = catalog.resolve(str(tmp_path / "a" / "m.gguf"))
    second = catalog.resolve(str(tmp_path / "b" / "m.gguf"))
    assert first.id == "local/m"
    assert second.id.startswith("local/m-")
    assert catalog.resolve(str(tmp_path / "b" / ".." / "b" / "m.gguf")) == second
    assert len(catalog.profiles) == 2


def test_a_link_keeps_its_own_name(tmp_path: Path) -> None:
    """A cache of links to hashes is usable: the link's name counts."""
    (tmp_path / "blob").write_bytes(b"GGUF")
    (tmp_path / "telling.gguf").symlink_to("blob")
    assert Catalog([]).resolve(str(tmp_path / "telling.gguf")).id == "local/telling"


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    """With the command that shows what there is instead."""
    with pytest.raises(ModelNotFoundError) as caught:
        Catalog([]).resolve(str(tmp_path / "gone.gguf"))
    assert caught.value.advice == (f"ls -l {tmp_path}",)


def test_a_file_that_is_gone_is_known_by_its_path(tmp_path: Path) -> None:
    """Its worker may be warm still, and whoever wants to unload it names it as before."""
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    catalog = Catalog([])
    named = catalog.resolve(str(file))
    file.unlink()
    assert catalog.resolve(str(tmp_path / "x" / ".." / "m.gguf")) == named
    file.mkdir()
    assert catalog.resolve(str(file)) == named
    file.rmdir()
    file.write_bytes(b"GGUF and more")
    assert catalog.resolve(str(file)).variants[0].size_bytes == 13


def test_what_is_no_model_file_is_refused(tmp_path: Path) -> None:
    """Another suffix, a folder, an empty file."""
    (tmp_path / "x.bin").write_bytes(b"x")
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "empty.gguf").touch()
    for name in ("x.bin", "folder.gguf", "empty.gguf", "n\0ul.gguf"):
        with pytest.raises(InvalidRequestError):
            Catalog([]).resolve(str(tmp_path / name))


def test_a_name_too_long_for_a_file_is_not_found(tmp_path: Path) -> None:
    """The system's own words say why."""
    with pytest.raises(ModelNotFoundError, match="too long"):
        Catalog([]).resolve(str(tmp_path / f"{'x' * 300}.gguf"))


def test_a_relative_path_is_told_to_be_absolute(tmp_path: Path) -> None:
    """The daemon has another working directory than its client."""
    with pytest.raises(ModelNotFoundError) as caught:
        Catalog([]).resolve("models/x.gguf")
    assert any("absolute path" in advice for advice in caught.value.advice)


@given(st.text())
def test_every_name_becomes_a_safe_id(text: str) -> None:
    """Whatever the file is called."""
    assert checked_id(safe_id(text))
