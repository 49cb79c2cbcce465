"""Idle times of single models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.config import load_settings
from gemd.config.idle_times import IdleTime, parse_idle_times, write_idle_times
from gemd.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=20)
seconds = st.none() | st.integers(0, 10**6).map(float)


@given(st.dictionaries(names, seconds))
def test_what_is_written_is_read(times: dict[str, float | None]) -> None:
    """As text and as a table."""
    given_ = tuple(IdleTime(model, each) for model, each in times.items())
    text = write_idle_times(given_)
    assert parse_idle_times(text) == given_
    assert parse_idle_times(dict(part.split("=") for part in text.split("; ") if part)) == given_


def test_a_table_of_the_file_and_a_variable_say_the_same(tmp_path: Path) -> None:
    """Under the models' names."""
    file = tmp_path / "config.toml"
    file.write_text('[keep_warm_models]\n"gemma3-270m" = "2h"\nother = "Forever"\n')
    found = load_settings(environ={}, file=file).settings.keep_warm_models
    assert found == (IdleTime("gemma3-270m", 7200.0), IdleTime("other", None))
    variable = {"GEMD_KEEP_WARM_MODELS": "gemma3-270m=2h;other=forever"}
    assert load_settings(environ=variable).settings.keep_warm_models == found


@pytest.mark.parametrize(
    "text,why",
    [
        ("gemma3-270m", "has to name a model and a duration"),
        ("=2h", "has to name a model and a duration"),
        ("m=soon", "has 'soon' for m"),
        ("m=1h; m=2h", "has the model m twice"),
    ],
)
def test_what_cannot_be_used_is_named(text: str, why: str) -> None:
    """With what was not understood."""
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={"GEMD_KEEP_WARM_MODELS": text})
    assert why in str(caught.value)


def test_a_list_is_no_table(tmp_path: Path) -> None:
    """The error shows what is."""
    file = tmp_path / "config.toml"
    file.write_text('keep_warm_models = ["m"]\n')
    with pytest.raises(ConfigError, match="table of models and durations"):
        load_settings(environ={}, file=file)
