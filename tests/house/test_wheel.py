"""What is installed from the wheel is complete, and works away from this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hatchling.builders.sdist import SdistBuilder

import gemd
from gemd.catalog import Catalog
from tests.support.app import short_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
GEMCTL = "from gemd.cli import main; main()"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, laid out as an installer would."""
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    assert wheel.name == f"gemd-{gemd.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def home() -> Iterator[Path]:
    """A user who has only the wheel, in a directory short enough for a socket."""
    with short_directory() as made:
        (made / "run").mkdir(mode=0o700)
        yield made


def gemctl(unpacked: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The installed command."""
    return subprocess.run(
        [sys.executable, "-P", "-c", GEMCTL, *arguments],
        cwd=home,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "PYTHONPATH": str(unpacked),
            "PYTHONDONTWRITEBYTECODE": "1",
            "GEMD_OFFLINE": "true",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.mark.parametrize("name", ["profiles", "proto", "service"])
def test_the_travelling_directories_are_in_it(unpacked: Path, name: str) -> None:
    """Every file of the catalogue, the API and the service templates, byte for byte."""
    files = [path for path in (ROOT / name).rglob("*") if path.is_file()]
    files = [path for path in files if "__pycache__" not in path.parts]
    assert files
    for path in files:
        inside = unpacked / "gemd" / "_data" / path.relative_to(ROOT)
        assert inside.read_bytes() == path.read_bytes()


def test_it_holds_the_package_and_nothing_of_the_checkout(unpacked: Path) -> None:
    """All modules, the marker of its types, licence and commands; no tests, no caches."""
    assert {path.name for path in unpacked.iterdir()} == {
        "gemd",
        f"gemd-{gemd.__version__}.dist-info",
    }
    modules = {path.relative_to(ROOT) for path in (ROOT / "gemd").rglob("*.py*")}
    modules = {path for path in modules if path.suffix in {".py", ".pyi"}}
    assert modules
    assert {path for path in modules if not (unpacked / path).exists()} == set()
    assert (unpacked / "gemd" / "py.typed").exists()
    assert not [path for path in unpacked.rglob("*") if path.suffix == ".pyc"]
    (information,) = unpacked.glob("*.dist-info")
    assert (information / "licenses" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    commands = (information / "entry_points.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in commands if line] == [
        "[console_scripts]",
        "gemctl = gemd.cli:main",
        "gemd = gemd.daemon:main",
    ]


def test_the_tiny_model_travels(unpacked: Path) -> None:
    """In the wheel byte for byte, as the self-test reads it, and in the source distribution."""
    tiny = Path("gemd/worker/diffusion/tiny")
    files = {file.name: file.read_bytes() for file in (ROOT / tiny).iterdir()}
    assert {"model.safetensors", "config.json", "answers.json"} <= files.keys()
    assert {file.name: file.read_bytes() for file in (unpacked / tiny).iterdir()} == files
    # What a source distribution would have in it; writing one packs all tests, too.
    names = {Path(file.relative_path) for file in SdistBuilder(str(ROOT)).recurse_included_files()}
    assert {tiny / name for name in files} <= names


def test_the_installed_commands_work(unpacked: Path, home: Path) -> None:
    """`gemctl list` starts the wheel's own daemon, which finds the catalogue in the wheel."""
    try:
        listed = gemctl(unpacked, home, "list")
        assert listed.returncode == 0, listed.stderr
        for profile in Catalog.load(ROOT / "profiles" / "models").profiles:
            assert profile.id in listed.stdout
        log = home / ".local" / "state" / "gemd" / "gemd.log"
        assert str(ROOT) not in log.read_text(encoding="utf-8")
    finally:
        stopped = gemctl(unpacked, home, "stop")
    assert (stopped.returncode, stopped.stderr) == (0, "gemd has ended\n")
