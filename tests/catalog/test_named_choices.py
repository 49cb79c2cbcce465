"""Names that stand for one of several models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.catalog import Catalog, LocalSource, NamedChoice, Profile, Variant
from gemd.catalog.files import read_entry, read_profile
from gemd.errors import ConfigError, InvalidRequestError, ModelNotFoundError
from tests.catalog.written import refused, written
from tests.support.models import PROFILES

if TYPE_CHECKING:
    from pathlib import Path

BIG_OR_SMALL = NamedChoice(
    id="gemma", display_name="Gemma", choice=("big", "small"), why="It depends."
)


def _profile(model: str, folder: Path) -> Profile:
    variant = Variant(
        id="q4",
        quantization="Q4_0",
        file_name="m.gguf",
        size_bytes=1,
        sources=(LocalSource(path=folder / "m.gguf"),),
    )
    return Profile(id=model, display_name=model, family="test", variants=(variant,))


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Three models, and a choice among two of them."""
    profiles = [_profile(model, tmp_path) for model in ("big", "small", "other")]
    return Catalog(profiles, [BIG_OR_SMALL])


def test_a_choice_means_its_first_until_it_is_settled(catalog: Catalog) -> None:
    """What a plan settles holds until the next one."""
    assert catalog.resolve("gemma").id == "big"
    catalog.settle("gemma", "small")
    assert catalog.resolve("gemma").id == "small"
    catalog.settle("gemma", "big")
    assert catalog.resolve("gemma").id == "big"


def test_a_choice_is_no_profile(catalog: Catalog) -> None:
    """It is listed by itself, and its models by theirs."""
    assert [profile.id for profile in catalog.profiles] == ["big", "other", "small"]
    assert catalog.choices == (BIG_OR_SMALL,)
    assert catalog.choice("gemma") is BIG_OR_SMALL
    assert catalog.choice("big") is None
    assert catalog.choice("nonsense") is None


def test_a_choice_is_settled_on_its_own_models_only(catalog: Catalog) -> None:
    """Another model would not be what the name promises."""
    with pytest.raises(InvalidRequestError, match="cannot mean other"):
        catalog.settle("gemma", "other")
    with pytest.raises(ModelNotFoundError, match="no model 'big'") as caught:
        catalog.settle("big", "small")
    assert caught.value.metadata["model"] == "big"
    assert catalog.resolve("gemma").id == "big"


def test_a_choice_is_among_the_nearest_names(catalog: Catalog) -> None:
    """Whoever misspells it is led to it."""
    with pytest.raises(ModelNotFoundError) as caught:
        catalog.resolve("gema")
    assert caught.value.advice[0] == "use gemma"


def test_a_choice_of_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """At the start, with the nearest name."""
    with pytest.raises(ConfigError, match="names big, which has no profile") as caught:
        Catalog([_profile("bigger", tmp_path)], [BIG_OR_SMALL])
    assert caught.value.metadata["nearest"] == "bigger"


def test_a_choice_among_choices_is_refused(tmp_path: Path) -> None:
    """Also if it was a model until the user's folder replaced that; both ways out are named."""
    text = 'id = "gemma4-31b"\ndisplay_name = "X"\nchoice = ["gemma4-12b"]\nwhy = "I say so."\n'
    (tmp_path / "gemma4-31b.toml").write_text(text)
    with pytest.raises(ConfigError, match="gemma4-31b, which is a choice itself") as caught:
        Catalog.load(PROFILES, tmp_path)
    assert caught.value.advice == (
        "name models in gemma4-27b.toml",
        "give the choice gemma4-31b another id",
    )


def test_the_shipped_choice_is_among_all_of_gemma_4() -> None:
    """Best first; what it says names the published sizes."""
    catalog = Catalog.load(PROFILES)
    choice = catalog.choice("gemma4-27b")
    assert choice is not None
    profiles = [catalog.resolve(model) for model in choice.choice]
    ranks = [profile.quality for profile in profiles]
    assert ranks == sorted(ranks, reverse=True)
    assert {profile.id for profile in profiles} == {
        profile.id
        for profile in catalog.profiles
        if profile.family == "gemma4" and "strong" in profile.roles
    }
    assert catalog.resolve("gemma4-27b").id == "gemma4-31b"


def test_the_user_may_replace_a_choice_by_a_model(tmp_path: Path) -> None:
    """And a model by a choice: the last word is that of the user's folder."""
    text = (PROFILES / "smollm2-135m.toml").read_text()
    (tmp_path / "gemma4-27b.toml").write_text(
        text.replace('id = "smollm2-135m"', 'id = "gemma4-27b"')
    )
    (tmp_path / "mine.toml").write_text(
        'id = "mine"\ndisplay_name = "Mine"\nchoice = ["smollm2-135m"]\nwhy = "I say so."\n'
    )
    catalog = Catalog.load(PROFILES, tmp_path)
    assert catalog.choice("gemma4-27b") is None
    assert catalog.resolve("gemma4-27b").display_name == "SmolLM2 135M Instruct"
    assert catalog.resolve("mine").id == "smollm2-135m"


CHOICE = """
id = "tiny"
display_name = "Tiny"
choice = ["a", "b"]
why = "Both are tiny."
"""


def test_a_choice_is_typed(tmp_path: Path) -> None:
    """A file with a choice is none with a model."""
    choice = read_entry(written(tmp_path, CHOICE))
    assert choice == NamedChoice(
        id="tiny", display_name="Tiny", choice=("a", "b"), why="Both are tiny."
    )
    with pytest.raises(ConfigError, match="a model is wanted"):
        read_profile(tmp_path / "tiny.toml")


def test_a_misspelt_choice_is_led_to_the_right_key(tmp_path: Path) -> None:
    """Although the file is then taken for a profile."""
    error = refused(tmp_path, CHOICE.replace("choice =", "choise ="))
    assert error.metadata["nearest"] == "choice"


@pytest.mark.parametrize(
    "old, new, key",
    [
        ('["a", "b"]', "[]", "choice"),
        ('["a", "b"]', '["a", "a"]', "choice"),
        ('["a", "b"]', '["../a"]', "choice[0]"),
        ('why = "Both are tiny."', "", "why"),
        ('why = "Both are tiny."', 'why = "x"\nbecause = "y"', "because"),
        ('id = "tiny"', 'id = "other"', "id"),
    ],
)
def test_a_wrong_choice_names_its_key(tmp_path: Path, old: str, new: str, key: str) -> None:
    """As for a profile."""
    assert refused(tmp_path, CHOICE.replace(old, new)).metadata["key"] == key
