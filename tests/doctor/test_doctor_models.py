"""Profiles, and the files of models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gemd.doctor import Errand, Result
from gemd.doctor.catalogue import examine_catalogue
from gemd.doctor.disk_space import examine_disk_space
from gemd.doctor.models import examine_models
from gemd.store import Store, Transport
from gemd.store.layout import Layout
from gemd.store.threads import Stopped
from tests.support.doctoring import made, surroundings, write
from tests.support.hub_server import HubServer
from tests.support.stores import FILE, QUICK, REPOSITORY, content, hub_profile

if TYPE_CHECKING:
    from gemd.doctor import Surroundings

TINY = Path(__file__).parents[1] / "fixtures" / "tiny-diffusion-gemma"
DATA = content(300_000)
PROFILE = """
id = "mine"
display_name = "Mine"
family = "test"
[[variants]]
id = "file"
quantization = "none"
file_name = "mine.gguf"
size_bytes = 8
[[variants.sources]]
kind = "local"
path = "/mine.gguf"
"""


@pytest.fixture
async def pulled(tmp_path: Path) -> tuple[Surroundings, Path]:
    """A home with one model that was pulled, and its file."""
    around = surroundings(tmp_path)
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        transport = Transport(hub_endpoint=hub.url, retries=QUICK, environ=around.environ)
        store = Store(around.paths.store_dir, transport=transport)
        found = await store.pull(hub_profile(DATA))
    return around, found.path


def test_nothing_was_pulled_yet(tmp_path: Path) -> None:
    """That is no failure, and nothing is made."""
    found = made(examine_models, surroundings(tmp_path))
    assert found.result is Result.OK
    assert found.detail.startswith("none was pulled yet into")
    assert list(tmp_path.iterdir()) == []


async def test_what_was_pulled_is_listed(pulled: tuple[Surroundings, Path]) -> None:
    """By size and time, or by every byte; and it is not missing any more."""
    around, _ = pulled
    found = made(examine_models, around)
    assert (found.result, found.fixes) == (Result.OK, ())
    assert found.detail == "1 model, 293 KiB, by size and time: tiny"
    assert "every byte read" in made(examine_models, around, thorough=True).detail
    assert made(examine_disk_space, around).result is Result.OK


def test_the_planned_model_has_to_fit(tmp_path: Path) -> None:
    """What the daemon would pull for this machine is what room is looked for."""
    profile = PROFILE.replace("size_bytes = 8", f"size_bytes = {2**49}")
    around = surroundings(tmp_path, planned=lambda: "mine")
    write(around.user_profiles / "mine.toml", profile)
    found = made(examine_disk_space, around)
    assert found.result is Result.WARNING
    assert found.detail.startswith("the model mine (512 TiB) does not fit")
    assert made(examine_disk_space, surroundings(tmp_path)).result is Result.OK


async def test_a_file_that_changed_is_found(pulled: tuple[Surroundings, Path]) -> None:
    """Gone, cut, touched, or of another content, which only reading tells."""
    around, file = pulled
    again = ("gemctl pull tiny --variant q4 --force",)
    os.utime(file, (1, 1))
    found = made(examine_models, around)
    assert (found.result, found.fixes) == (
        Result.WARNING,
        ("gemctl doctor models --thorough",),
    )
    assert made(examine_models, around, thorough=True).result is Result.OK
    file.chmod(0o600)
    file.write_bytes(DATA[:-1] + b"?")
    found = made(examine_models, around, thorough=True)
    assert (found.result, found.fixes) == (Result.FAILED, again)
    assert "was pulled with" in found.detail
    file.write_bytes(DATA[:-1])
    found = made(examine_models, around)
    assert (found.result, found.fixes) == (Result.FAILED, again)
    assert "has 299999 bytes and was pulled with 300000" in found.detail
    file.unlink()
    found = made(examine_models, around, thorough=True)
    assert (found.result, found.fixes) == (Result.FAILED, again)
    assert "is gone" in found.detail


async def test_a_damaged_note_is_found(pulled: tuple[Surroundings, Path]) -> None:
    """The model would be pulled again without a word; unfinished downloads are counted."""
    around, _ = pulled
    layout = Layout(around.paths.store_dir)
    write(layout.part("0" * 64), "x" * 5000)
    write(layout.manifest("other", "q4"), "{")
    found = made(examine_models, around)
    assert (found.result, found.fixes) == (
        Result.FAILED,
        ("gemctl pull other --variant q4 --force",),
    )
    assert "is damaged" in found.detail
    assert "1 unfinished download (8.0 KiB)" in found.detail


def test_notes_that_cannot_be_read_are_no_empty_store(tmp_path: Path) -> None:
    """As after a pull with sudo; a file in the folder's place fails for the administrator too."""
    around = surroundings(tmp_path)
    write(Layout(around.paths.store_dir).manifests)
    found = made(examine_models, around)
    assert found.result is Result.FAILED
    assert "cannot be read" in found.detail
    assert found.fixes == (f"ls -la {around.paths.store_dir}",)


def test_profiles_that_cannot_be_read_are_missed(tmp_path: Path) -> None:
    """The catalogue passes over them, and so would who looks for them in a plan."""
    around = surroundings(tmp_path)
    write(around.user_profiles)
    found = made(examine_catalogue, around)
    assert (found.result, found.fixes) == (Result.FAILED, (f"ls -ld {around.user_profiles}",))
    assert "cannot be read: Not a directory" in found.detail


async def test_reading_stops_when_nobody_waits(pulled: tuple[Surroundings, Path]) -> None:
    """A file of gigabytes is not read to its end for a caller that is gone."""
    around, _ = pulled
    errand = Errand(thorough=True)
    errand.stop.set()
    with pytest.raises(Stopped):
        examine_models(around, errand)


def test_the_catalogue_is_read_as_the_daemon_reads_it(tmp_path: Path) -> None:
    """The user's own profiles are told apart from those that come with gemd."""
    around = surroundings(tmp_path)
    found = made(examine_catalogue, around)
    assert found.result is Result.OK
    assert found.detail.endswith("default auto")
    write(around.user_profiles / "mine.toml", PROFILE)
    assert "1 of the user's: mine" in made(examine_catalogue, around).detail
    write(around.user_profiles / "other.json")
    found = made(examine_catalogue, around)
    assert found.result is Result.WARNING
    assert found.fixes == (f"ls -l {around.user_profiles / 'other.json'}",)
    write(around.user_profiles / "mine.toml", PROFILE.replace("family", "famly"))
    found = made(examine_catalogue, around)
    assert found.result is Result.FAILED
    assert "nearest: family" in found.detail
    assert any("rename famly to family" in fix for fix in found.fixes)


def test_a_default_model_that_is_none_is_a_warning(tmp_path: Path) -> None:
    """With the names that are near."""
    around = surroundings(tmp_path, environ={"GEMD_DEFAULT_MODEL": "smollm2-136m"})
    found = made(examine_catalogue, around)
    assert found.result is Result.WARNING
    assert "use smollm2-135m" in found.fixes


@pytest.mark.parametrize("key", ["fast_model", "strong_model", "checker_model"])
def test_a_model_of_the_tiers_that_is_none_is_a_warning(tmp_path: Path, key: str) -> None:
    """Named by its setting, as that of a request without a name is."""
    around = surroundings(tmp_path, environ={f"GEMD_{key.upper()}": "smollm2-136m"})
    found = made(examine_catalogue, around)
    assert found.result is Result.WARNING
    assert found.detail.startswith(f"{key}: there is no model 'smollm2-136m'")
    assert {"use smollm2-135m", "gemctl config show --origin"} <= set(found.fixes)


def test_nobody_may_draft_and_check(tmp_path: Path) -> None:
    """That is a choice, and no model's name; nobody to answer is none."""
    nobody = {"GEMD_FAST_MODEL": "none", "GEMD_CHECKER_MODEL": "none"}
    assert made(examine_catalogue, surroundings(tmp_path, environ=nobody)).result is Result.OK
    strong = surroundings(tmp_path, environ={"GEMD_STRONG_MODEL": "none"})
    assert made(examine_catalogue, strong).result is Result.WARNING


def test_models_of_the_settings_have_to_be_fit_for_their_part(tmp_path: Path) -> None:
    """On disk; the two tiers two models; and the checker one that can score."""
    named = {"GEMD_FAST_MODEL": str(TINY), "GEMD_CHECKER_MODEL": str(TINY)}
    found = made(examine_catalogue, surroundings(tmp_path, environ=named))
    assert "checker_model: local/tiny-diffusion-gemma cannot score a draft" in found.detail
    named = {"GEMD_FAST_MODEL": str(TINY), "GEMD_STRONG_MODEL": str(TINY)}
    found = made(examine_catalogue, surroundings(tmp_path, environ=named))
    assert "fast_model and strong_model are both local/tiny-diffusion-gemma" in found.detail
    assert "not on disk" not in found.detail
    named = {"GEMD_STRONG_MODEL": "gemma4-12b"}
    found = made(examine_catalogue, surroundings(tmp_path, environ=named))
    assert "strong_model: the weights of gemma4-12b are not on disk" in found.detail
    assert "gemctl pull gemma4-12b" in found.fixes
