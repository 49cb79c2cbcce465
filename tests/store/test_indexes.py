"""Which package index counts: settings of pip and uv."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.store.indexes import PUBLIC, Indexes, find_indexes

if TYPE_CHECKING:
    from pathlib import Path


def _find(tmp_path: Path, **variables: str) -> Indexes:
    return find_indexes(
        {"HOME": str(tmp_path / "home"), **variables},
        prefix=tmp_path / "prefix",
        system=tmp_path / "etc",
    )


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_without_settings_it_is_the_public_one(tmp_path: Path) -> None:
    """A key that is not set anywhere is no error."""
    assert _find(tmp_path) == Indexes((PUBLIC,))


@pytest.mark.parametrize("name", ["PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_a_variable_names_the_index(tmp_path: Path, name: str) -> None:
    """Variables of pip and uv count, whatever slash they end in."""
    assert _find(tmp_path, **{name: "https://a.example/simple/"}).urls == (
        "https://a.example/simple",
    )


def test_a_named_uv_index_loses_its_name(tmp_path: Path) -> None:
    """As in `name=url`; a query with an equals sign is left alone."""
    assert _find(tmp_path, UV_DEFAULT_INDEX="corp=https://a.example/s").urls == (
        "https://a.example/s",
    )
    assert _find(tmp_path, PIP_INDEX_URL="https://a.example/s?k=v").urls == (
        "https://a.example/s?k=v",
    )


@pytest.mark.parametrize(
    "place",
    [
        "etc/pip.conf",
        "etc/xdg/pip/pip.conf",
        "home/.pip/pip.conf",
        "home/.config/pip/pip.conf",
        "home/Library/Application Support/pip/pip.conf",
        "prefix/pip.conf",
    ],
)
def test_pips_files_are_read(tmp_path: Path, place: str) -> None:
    """Wherever pip keeps them, with the certificates they name."""
    _write(tmp_path / place, "[global]\nindex-url = https://a.example/simple\ncert = /ca.pem\n")
    assert _find(tmp_path) == Indexes(("https://a.example/simple",), "/ca.pem")


def test_the_more_special_file_wins(tmp_path: Path) -> None:
    """Environment before machine, section of the command before the one for all."""
    _write(tmp_path / "etc/pip.conf", "[global]\nindex-url = https://machine.example/simple\n")
    _write(
        tmp_path / "prefix/pip.conf",
        "[download]\nindex-url = https://special.example/simple\n"
        "[global]\nindex-url = https://general.example/simple\n",
    )
    assert _find(tmp_path).urls == ("https://special.example/simple",)


def test_extra_indexes_follow_and_folders_are_left_to_pip(tmp_path: Path) -> None:
    """Only http(s) indexes can be asked; each once, the main one first."""
    _write(
        tmp_path / "home/.config/pip/pip.conf",
        "[global]\nextra-index-url =\n  file:///srv/wheels\n  https://b.example/simple\n"
        "  https://a.example/simple\n",
    )
    assert _find(tmp_path, PIP_INDEX_URL="https://a.example/simple").urls == (
        "https://a.example/simple",
        "https://b.example/simple",
    )


@pytest.mark.parametrize("url", ["file:///srv/simple", "https://me:p/w@a.example/simple", "x"])
@pytest.mark.parametrize("name", ["PIP_INDEX_URL", "UV_DEFAULT_INDEX"])
def test_an_index_that_we_cannot_ask_is_not_replaced(tmp_path: Path, name: str, url: str) -> None:
    """Who names an index does not want the public one, whatever kind theirs is."""
    assert _find(tmp_path, **{name: url}).urls == ()
    assert _find(tmp_path, **{name: url}, PIP_EXTRA_INDEX_URL="https://b.example/s").urls == (
        "https://b.example/s",
    )


@pytest.mark.parametrize("value", ["1", "true", "on", "Yes"])
def test_no_index_means_none(tmp_path: Path, value: str) -> None:
    """The ways of pip and uv to forbid all indexes, in variables and files."""
    urls = {"PIP_INDEX_URL": "https://a.example/s", "UV_INDEX": "https://b.example/s"}
    assert _find(tmp_path, PIP_NO_INDEX=value, **urls).urls == ()
    assert _find(tmp_path, UV_NO_INDEX=value, **urls).urls == ()
    _write(tmp_path / "prefix/pip.conf", f"[global]\nno-index = {value}\n")
    assert _find(tmp_path, **urls).urls == ()


@pytest.mark.parametrize("text", ["no-index = true\n", "[pip]\nno-index = true\n"])
def test_uvs_file_may_forbid_indexes(tmp_path: Path, text: str) -> None:
    """At the top and in its pip section."""
    _write(tmp_path / "home/.config/uv/uv.toml", text)
    assert _find(tmp_path).urls == ()


@pytest.mark.parametrize("value", ["0", "false", "off", "", "no"])
def test_no_index_can_be_switched_off(tmp_path: Path, value: str) -> None:
    """A variable overrules the file, as in pip."""
    _write(tmp_path / "prefix/pip.conf", f"[global]\nno_index = {value or 'false'}\n")
    assert _find(tmp_path, PIP_NO_INDEX=value).urls == (PUBLIC,)


def test_names_in_pips_files_may_have_underscores(tmp_path: Path) -> None:
    """As pip has it."""
    _write(tmp_path / "prefix/pip.conf", "[global]\nIndex_URL = https://a.example/simple\n")
    assert _find(tmp_path).urls == ("https://a.example/simple",)


def test_an_explicit_uv_index_is_for_packages_that_name_it(tmp_path: Path) -> None:
    """It is not asked for others; nor are files that the environment switches off."""
    file = tmp_path / "home/.config/uv/uv.toml"
    _write(file, '[[index]]\nurl = "https://a.example/simple"\nexplicit = true\n')
    assert _find(tmp_path).urls == (PUBLIC,)
    _write(file, 'index-url = "https://a.example/simple"\n')
    assert _find(tmp_path, UV_NO_CONFIG="1").urls == (PUBLIC,)


def test_pips_configuration_can_be_named_or_switched_off(tmp_path: Path) -> None:
    """PIP_CONFIG_FILE replaces the user's; /dev/null switches all files off, as in pip."""
    _write(tmp_path / "etc/pip.conf", "[global]\nindex-url = https://machine.example/simple\n")
    user = "[global]\nextra-index-url = https://user.example/simple\n"
    _write(tmp_path / "home/.config/pip/pip.conf", user)
    _write(tmp_path / "own.conf", "[global]\nindex-url = https://own.example/simple\n")
    own = _find(tmp_path, PIP_CONFIG_FILE=str(tmp_path / "own.conf"))
    assert own.urls == ("https://own.example/simple",)
    assert _find(tmp_path, PIP_CONFIG_FILE="/dev/null").urls == (PUBLIC,)


def test_uvs_file_is_read(tmp_path: Path) -> None:
    """A default index is the main one, others follow; the pip section counts too."""
    _write(
        tmp_path / "home/.config/uv/uv.toml",
        '[[index]]\nurl = "https://more.example/simple"\n'
        '[[index]]\nurl = "https://main.example/simple"\ndefault = true\n'
        '[pip]\nextra-index-url = ["https://third.example/simple"]\n',
    )
    assert _find(tmp_path).urls == (
        "https://main.example/simple",
        "https://more.example/simple",
        "https://third.example/simple",
    )


def test_pip_goes_before_uv(tmp_path: Path) -> None:
    """If both name a main index, pip's counts."""
    _write(tmp_path / "home/.config/uv/uv.toml", 'index-url = "https://uv.example/simple"\n')
    _write(tmp_path / "prefix/pip.conf", "[global]\nindex-url = https://pip.example/simple\n")
    assert _find(tmp_path).urls == ("https://pip.example/simple",)


@pytest.mark.parametrize("name", ["home/.config/uv/uv.toml", "prefix/pip.conf"])
@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe",
        b"no [ sense",
        b"index = 7\n",
        b'pip = 1\nindex = ["x"]\n',
        b"pip = " + b"9" * 5000,
        b"pip = " + b"[" * 10_000,
    ],
)
def test_damaged_files_are_passed_over(tmp_path: Path, name: str, text: bytes) -> None:
    """Settings of other programs never stop gemd."""
    _write(tmp_path / name, "")
    (tmp_path / name).write_bytes(text)
    assert _find(tmp_path).urls == (PUBLIC,)
