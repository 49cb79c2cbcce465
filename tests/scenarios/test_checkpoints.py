"""Checkpoints of several files, by path and out of the hub client's cache, in a real daemon."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon_process import Home, home, serving
from tests.support.gemctl import Inside
from tests.support.hub_server import COMMIT, HubServer

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "diffusiongemma-26b-a4b"
REPOSITORY = "nvidia/diffusiongemma-26B-A4B-it-NVFP4"
TINY = Path(__file__).parents[1] / "fixtures" / "tiny-diffusion-gemma"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    """A hub with nothing but the tiny model in place of the released one, at the branch `tiny`."""
    with HubServer() as server:
        files = {file.name: file.read_bytes() for file in TINY.iterdir()}
        server.add_all(REPOSITORY, files, revision="tiny")
        yield server


@pytest.fixture(scope="module")
def user(hub: HubServer) -> Iterator[Home]:
    """A user whose daemon serves, and whose hub client keeps what it fetches in ``hub``."""
    with (
        home() as made,
        serving(made, HF_HUB_CACHE=str(made.path / "hub"), GEMD_HUB_ENDPOINT=hub.url),
    ):
        yield made


@pytest.fixture
def gemctl(user: Home) -> Inside:
    """Their command line."""
    return Inside(user.environ(GEMD_AUTOSTART="0"))


@pytest.fixture
def fetched(user: Home) -> Iterator[Path]:
    """The tiny model in place of the released one, as ``hf download`` leaves it."""
    folder = user.path / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    place = folder / "snapshots" / COMMIT
    place.mkdir(parents=True)
    for file in TINY.iterdir():
        (place / file.name).symlink_to(file)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    yield place
    shutil.rmtree(folder)


def test_a_model_of_several_files_that_is_not_here_names_the_pull(gemctl: Inside) -> None:
    """Which needs a yes, and a load the plan, which says whether it would run here at all."""
    for command in (("run", "--model", MODEL, "Hi"), ("load", MODEL)):
        done = gemctl(*command)
        assert done.returncode != 0
        assert f"  try: gemctl pull {MODEL}\n" in done.stderr
        assert ("needs a yes" in done.stderr) == (command[0] == "run")
        assert (f"gemctl plan {MODEL}\n" in done.stderr) == (command[0] == "load")


def test_what_the_hub_client_has_fetched_is_on_disk(gemctl: Inside, fetched: Path) -> None:
    """Listed with its size and place, not pulled again, and never removed by gemd."""
    models = json.loads(gemctl("list", "--json").stdout)["models"]
    [found] = [one for one in models if one["id"] == MODEL]
    assert (found["state"], found["variant"]) == ("STATE_ON_DISK", "nvfp4-nvidia")
    variant = next(one for one in found["variants"] if one["id"] == "nvfp4-nvidia")
    assert int(variant["disk_bytes"]) == int(found["size_bytes"]) == 3_240_488
    assert (variant["source"], variant["origin"]) == ("local", str(fetched))
    assert int(variant.get("exclusive_bytes", 0)) == 0
    pulled = gemctl("pull", MODEL)
    assert (pulled.returncode, "is on disk already" in pulled.stderr) == (0, True)
    removed = gemctl("rm", "--yes", MODEL)
    assert removed.returncode != 0
    assert f"  try: hf cache rm model/{REPOSITORY}\n" in removed.stderr
    assert (fetched / "model.safetensors").exists()


def test_a_checkpoint_is_pulled_and_removed(gemctl: Inside, user: Home, hub: HubServer) -> None:
    """All of its files, into the hub client's cache; a removal takes what the pull put there."""
    missing = gemctl("pull", MODEL)
    assert missing.returncode != 0
    assert "404 RevisionNotFound" in missing.stderr
    pulled = gemctl("pull", MODEL, "--revision", "tiny", "--json")
    assert pulled.returncode == 0, pulled.stderr
    assert len(hub.asked("GET", "/resolve/")) == len(list(TINY.glob("*.[js]*")))
    place = user.path / "hub" / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots" / COMMIT
    assert (place / "model.safetensors").read_bytes() == (TINY / "model.safetensors").read_bytes()
    models = json.loads(gemctl("list", "--json").stdout)["models"]
    [found] = [one for one in models if one["id"] == MODEL]
    variant = next(one for one in found["variants"] if one["id"] == "nvfp4-nvidia")
    assert (found["state"], variant["origin"]) == ("STATE_ON_DISK", f"{REPOSITORY}@{COMMIT}")
    removed = gemctl("rm", "--yes", MODEL)
    assert removed.returncode == 0, removed.stderr
    assert not place.parents[1].exists()


def test_a_directory_of_something_else_is_refused(gemctl: Inside, tmp_path: Path) -> None:
    """As a usage error, with what was found there."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    done = gemctl("run", "--model", str(tmp_path), "Hi")
    assert (done.returncode, done.stdout) == (2, "")
    assert "of a model of the type llama" in done.stderr


def test_a_damaged_checkpoint_is_refused_before_a_worker_is_started(
    gemctl: Inside, tmp_path: Path
) -> None:
    """BAD_MODEL_FILE, with the byte at which its file ends."""
    own = Path(shutil.copytree(TINY, tmp_path / "own"))
    with (own / "model.safetensors").open("r+b") as file:
        file.truncate(1_000_000)
    done = gemctl("load", str(own))
    assert done.returncode == 6
    assert "it is truncated, or holds something else" in done.stderr
    removed = gemctl("rm", "--yes", str(own))
    assert removed.returncode != 0
    assert f"gemd does not delete {own}" in removed.stderr


@pytest.mark.slow
def test_a_fetched_model_answers_by_its_name_in_the_catalogue(
    gemctl: Inside, fetched: Path
) -> None:
    """Where it is, through links, on the processor of a machine without a GPU, which is said."""
    done = gemctl("run", "--model", MODEL, "What is the capital of France?")
    assert (done.returncode, done.stdout) == (0, "The capital of France is Paris.\n"), done.stderr
    assert "reference path" in gemctl("why").stdout
    assert fetched.is_dir()
    assert gemctl("unload", MODEL).returncode == 0
