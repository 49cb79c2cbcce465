"""Profiles from TOML: what is accepted, and how errors help."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.catalog import HubSource, LocalSource, PackageSource
from gemd.catalog.files import read_profile
from gemd.errors import ConfigError
from tests.catalog.written import SHA, refused, written

if TYPE_CHECKING:
    from pathlib import Path

GOOD = f"""
id = "tiny"
display_name = "Tiny"
family = "test"

[[variants]]
id = "q4"
quantization = "Q4_0"
file_name = "tiny.gguf"
size_bytes = 30
sha256 = "{SHA}"

[[variants.sources]]
kind = "hub"
repository = "a/b"
file = "tiny.gguf"

[[variants.sources]]
kind = "python-package"

[[variants.sources.parts]]
package = "tiny"
version = "1.0"
wheel = "tiny-1.0-py3-none-any.whl"
wheel_sha256 = "{SHA}"
wheel_size_bytes = 20
member = "tiny/tiny.gguf"
member_sha256 = "{SHA}"
member_size_bytes = 30
"""


def test_a_good_profile_is_typed(tmp_path: Path) -> None:
    """Every part of the file has its type, and what it leaves out its default."""
    profile = read_profile(written(tmp_path, GOOD))
    [variant] = profile.variants
    assert isinstance(variant.sources[0], HubSource)
    assert variant.sources[0].origin == "a/b@main"
    assert isinstance(variant.sources[1], PackageSource)
    assert variant.sources[1].origin == "tiny==1.0"
    assert variant.engine == "llama"
    assert profile.variant("q4") is variant
    assert profile.variant("q8") is None
    assert profile.modalities == ("text",)


@pytest.mark.parametrize(
    "wrong, right, key",
    [
        ("display_nam", "display_name", "display_nam"),
        ("size_byte", "size_bytes", "variants[0].size_byte"),
        ("repositry", "repository", "variants[0].sources[0].repositry"),
        ("wheel_sha", "wheel_sha256", "variants[0].sources[1].parts[0].wheel_sha"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, wrong: str, right: str, key: str) -> None:
    """On every level, with file and path of the key."""
    error = refused(tmp_path, GOOD.replace(f"{right} =", f"{wrong} = 1\n{right} =", 1))
    assert error.metadata["nearest"] == right
    assert error.metadata["key"] == key
    assert str(tmp_path / "tiny.toml") in error.message
    assert error.advice == (f"rename {wrong} to {right} in {tmp_path / 'tiny.toml'}",)


def test_an_unknown_default_names_the_nearest(tmp_path: Path) -> None:
    """The sampling defaults are checked like everything else."""
    error = refused(tmp_path, GOOD.replace("[[variants]]", "[defaults]\ntemp = 1\n[[variants]]"))
    assert error.metadata["nearest"] == "temperature"


def test_a_default_limit_is_at_least_one_token(tmp_path: Path) -> None:
    """0 would read every prompt and answer none."""
    limit = GOOD.replace("[[variants]]", "[defaults]\nmax_tokens = 0\n[[variants]]", 1)
    assert refused(tmp_path, limit).metadata["key"] == "defaults.max_tokens"


@pytest.mark.parametrize(
    "old, new, key",
    [
        (f'sha256 = "{SHA}"', 'sha256 = "short"', "variants[0].sha256"),
        ("size_bytes = 30", "size_bytes = -1", "variants[0].size_bytes"),
        ('id = "q4"', 'id = "../q4"', "variants[0].id"),
        ('file_name = "tiny.gguf"', 'file_name = "a/b.gguf"', "variants[0].file_name"),
        ('kind = "hub"', 'kind = "cloud"', "variants[0].sources[0]"),
        ('repository = "a/b"', 'repository = "a/../b"', "variants[0].sources[0].repository"),
        ('family = "test"', "family = 7", "family"),
        ('family = "test"', "", "family"),
        ('id = "tiny"', 'id = "Tiny"', "id"),
        ('id = "tiny"', 'id = "other"', "id"),
        ("member_size_bytes = 30", "member_size_bytes = 31", "variants[0]"),
    ],
)
def test_a_wrong_value_names_its_key(tmp_path: Path, old: str, new: str, key: str) -> None:
    """File and key are in the error, as text and as metadata."""
    error = refused(tmp_path, GOOD.replace(old, new, 1))
    assert error.metadata["key"] == key
    assert error.metadata["file"] == str(tmp_path / "tiny.toml")
    assert error.why


@pytest.mark.parametrize(
    "text",
    ["= nonsense", "\udcff", "a = " + "[" * 10_000, "a = " + "9" * 5000],
    ids=["toml", "utf-8", "deep", "digits"],
)
def test_what_is_no_toml_is_told(tmp_path: Path, text: str) -> None:
    """The reader's own words say where."""
    file = tmp_path / "tiny.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_profile(file)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """A profile is a page of text."""
    with pytest.raises(ConfigError, match="larger than"):
        read_profile(written(tmp_path, "#" * ((1 << 20) + 1)))


HUB = """
[[variants.sources]]
kind = "hub"
repository = "a/b"
file = "tiny.gguf"
"""
HEAD = GOOD[: GOOD.index("[[variants.sources]]")]
UNHASHED = HEAD.replace(f'sha256 = "{SHA}"\n', "")
LOCAL = '[[variants.sources]]\nkind = "local"\npath = "{}"\n'


def test_bytes_of_packages_need_a_hash(tmp_path: Path) -> None:
    """Also if the hub is another source."""
    error = refused(tmp_path, GOOD.replace(f'sha256 = "{SHA}"\n', "", 1))
    assert "sha256 is required" in error.why


def test_a_local_file_may_go_without_a_hash(tmp_path: Path) -> None:
    """Its path has to be absolute, and no other kind of source may stand beside it."""
    profile = read_profile(written(tmp_path, UNHASHED + LOCAL.format("/models/tiny.gguf")))
    [variant] = profile.variants
    assert isinstance(variant.sources[0], LocalSource)
    assert variant.as_found
    assert not variant.announced
    error = refused(tmp_path, UNHASHED + LOCAL.format("models/tiny.gguf"))
    assert "absolute" in error.why
    error = refused(tmp_path, UNHASHED + LOCAL.format("/models/tiny.gguf") + HUB)
    assert "sha256 is required" in error.why


def test_a_file_of_the_hub_may_go_without_a_hash(tmp_path: Path) -> None:
    """Then it is the hub that announces one."""
    [variant] = read_profile(written(tmp_path, UNHASHED + HUB)).variants
    assert variant.announced
    assert not variant.as_found
    [pinned] = read_profile(written(tmp_path, HEAD + HUB)).variants
    assert not pinned.announced


def test_variants_have_different_ids(tmp_path: Path) -> None:
    """Two of one id could not be told apart."""
    half = GOOD[GOOD.index("[[variants]]") :]
    assert "repeat" in refused(tmp_path, GOOD + half).why
