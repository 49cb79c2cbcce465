"""Who answers a request that names no model: the plan's if it is on disk, else the embedded one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.catalog import Catalog, LocalSource, Profile, Variant
from gemd.config import Settings
from gemd.errors import ModelNotFoundError
from gemd.routing.route import EMBEDDED
from gemd.rpc.default_model import DefaultModel
from gemd.rpc.library import Library
from gemd.store import Store
from tests.support.clock import Clock

if TYPE_CHECKING:
    from pathlib import Path


def profile(name: str, file: Path, *, roles: tuple[str, ...] = ()) -> Profile:
    """A model in a file of the user's."""
    variant = Variant(
        id="file",
        quantization="Q4_0",
        file_name=f"{name}.gguf",
        size_bytes=3 * 2**30,
        sources=(LocalSource(path=file),),
    )
    return Profile.model_validate(
        {"id": name, "display_name": name, "family": "t", "roles": roles, "variants": [variant]}
    )


def decider(
    folder: Path, *profiles: Profile, setting: str = "auto", planned: str | None = "large"
) -> tuple[DefaultModel, Clock]:
    """One over these profiles."""
    clock = Clock()
    library = Library(
        catalog=Catalog(profiles),
        store=Store(folder / "store"),
        settings=Settings(),
        threads=1,
        environ={},
    )
    return (
        DefaultModel(
            setting, "GEMD_DEFAULT_MODEL", library=library, planned=lambda: planned, clock=clock
        ),
        clock,
    )


def test_the_planned_model_answers_once_it_is_on_disk(tmp_path: Path) -> None:
    """Until then the embedded one, which says what would do better and how to get it."""
    file = tmp_path / "large.gguf"
    embedded = profile("small", tmp_path / "small.gguf", roles=("default",))
    choose, clock = decider(tmp_path, embedded, profile("large", file, roles=("strong",)))
    found = choose.choose()
    assert (found.candidate.id, found.reason) == ("small", EMBEDDED)
    assert "gemctl pull large (3.0 GiB)" in found.explanation
    file.write_bytes(b"GGUF")
    # A look at the disk counts for a while: requests come more often than files.
    assert choose.choose().reason == EMBEDDED
    clock.now += 2.0
    found = choose.choose()
    assert (found.candidate.id, found.reason) == ("large", "PLANNED_MODEL")


def test_the_embedded_model_answers_where_nothing_larger_fits(tmp_path: Path) -> None:
    """And says so."""
    embedded = profile("small", tmp_path / "small.gguf", roles=("default",))
    found = decider(tmp_path, embedded, planned=None)[0].choose()
    assert (found.candidate.id, found.reason) == ("small", EMBEDDED)
    assert "nothing larger fits" in found.explanation


def test_a_catalogue_without_an_embedded_model_gives_the_planned_one(tmp_path: Path) -> None:
    """On disk or not: the load says what to pull. Without that there is nobody."""
    large = profile("large", tmp_path / "large.gguf", roles=("strong",))
    assert decider(tmp_path, large)[0].choose().candidate.id == "large"
    with pytest.raises(ModelNotFoundError) as caught:
        decider(tmp_path, large, planned=None)[0].choose()
    assert "gemctl plan" in caught.value.advice


def test_a_setting_decides_and_is_blamed(tmp_path: Path) -> None:
    """The model that it names, or an error that names the setting."""
    large = profile("large", tmp_path / "large.gguf")
    found = decider(tmp_path, large, setting="large", planned=None)[0].choose()
    assert (found.candidate.id, found.reason) == ("large", "DEFAULT_MODEL")
    with pytest.raises(ModelNotFoundError) as caught:
        decider(tmp_path, large, setting="nobody")[0].choose()
    assert "GEMD_DEFAULT_MODEL sets default_model" in caught.value.why
    assert caught.value.metadata["origin"] == "GEMD_DEFAULT_MODEL"
