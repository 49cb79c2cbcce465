"""Which builds there are, from real directories."""

from __future__ import annotations

import datetime as dt
import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gemd.engine.builds import Build, installed_builds
from gemd.engine.builds.build import PINNED, RECORD, python_tag, record_of
from gemd.engine.builds.shelf import backend_in, bundled


def shelved(engines: Path, name: str, **changes: object) -> Path:
    """Puts a build in the folder."""
    folder = engines / name
    (folder / "llama_cpp").mkdir(parents=True)
    (folder / "llama_cpp" / "__init__.py").touch()
    build = Build(
        engine="llama",
        backend="cuda",
        version=PINNED["llama"],
        python_tag=python_tag(),
        created=dt.datetime(2026, 5, 1, tzinfo=dt.UTC),
        installed="source",
    )
    record = record_of(replace(build, **changes))  # type: ignore[arg-type]
    (folder / RECORD).write_text(json.dumps(record))
    return folder


def only(engines: Path) -> Build:
    """The one build of the folder."""
    build, *bundled = installed_builds(engines)
    assert all(each.path is None for each in bundled)
    return build


def test_without_a_folder_there_is_the_bundled_one(tmp_path: Path) -> None:
    """It needs no record: libraries tell its backend, the distribution its version."""
    llama, torch = installed_builds(tmp_path / "none")
    assert torch.engine == "diffusion"
    assert (llama.name, llama.engine, llama.installed) == ("bundled", "llama", "bundled")
    assert (llama.version, llama.broken) == (PINNED["llama"], "")
    assert llama.path is None


def test_a_build_is_read_from_its_record(tmp_path: Path) -> None:
    """And stands before the bundled one."""
    folder = shelved(tmp_path, "llama-cuda-0.3.36-cp311")
    build = only(tmp_path)
    assert (build.backend, build.broken) == ("cuda", "")
    assert build.path == folder


def test_work_in_progress_is_no_build(tmp_path: Path) -> None:
    """Neither are leftovers, logs and files."""
    for name in (".work-llama-cuda", ".old-llama-cuda", "logs"):
        (tmp_path / name).mkdir()
    (tmp_path / "llama.txt").touch()
    assert {build.name for build in installed_builds(tmp_path)} == {"bundled"}


@pytest.mark.parametrize(
    "content,says",
    [
        (None, "engine.json cannot be used: "),
        (b"{", "engine.json cannot be used: "),
        (b"\xff", "engine.json cannot be used: "),
        (b"{}", "engine.json cannot be used: it has not the layout 1"),
        (b"[" * 100_000, "engine.json cannot be used: "),
    ],
)
def test_a_damaged_record_makes_a_broken_build(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    """It is listed with the reason, and its name says what it was for."""
    folder = shelved(tmp_path, "llama-cuda-0.3.36-cp311")
    if content is None:
        (folder / RECORD).unlink()
    else:
        (folder / RECORD).write_bytes(content)
    build = only(tmp_path)
    assert (build.engine, build.backend, build.version) == ("llama", "cuda", "0.3.36")
    assert build.broken.startswith(says)


def test_a_build_without_its_package_is_broken(tmp_path: Path) -> None:
    """Somebody cleaned up by hand."""
    folder = shelved(tmp_path, "llama-cuda-0.3.36-cp311")
    (folder / "llama_cpp" / "__init__.py").unlink()
    assert only(tmp_path).broken == "it holds no llama_cpp"


def test_a_home_that_moved_to_a_lesser_processor(tmp_path: Path) -> None:
    """A build for the old one would die of an illegal instruction."""
    shelved(tmp_path / "engines", "llama-cuda-x", cpu_flags=frozenset({"avx2", "avx512f"}))
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("processor : 0\nflags : sse2 avx2 fma\n\n")
    build, *_ = installed_builds(tmp_path / "engines", root=tmp_path)
    assert build.broken == "it was compiled for a processor with avx512f"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that has nothing but what a test puts into it."""
    for package in ("llama_cpp", "torch", "transformers"):
        # What another test has imported would be found without a look at the path.
        monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    return tmp_path


def put(environment: Path, package: str, version: str, *libraries: str) -> None:
    """A package with its metadata, which does nothing but fail to be imported."""
    (environment / package / "lib").mkdir(parents=True)
    (environment / package / "__init__.py").write_text("raise AssertionError('imported')")
    for library in libraries:
        (environment / package / "lib" / library).touch()
    about = environment / f"{package}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    importlib.invalidate_caches()


def test_torch_with_transformers_is_a_build_that_nobody_imports(environment: Path) -> None:
    """Its libraries tell what it computes on."""
    assert list(bundled()) == []
    put(environment, "torch", "2.13.0+cu130", "libtorch_cpu.so", "libtorch_cuda.so")
    [build] = bundled()
    assert (build.engine, build.backend, build.version) == ("diffusion", "cuda", "2.13.0+cu130")
    assert build.broken == "there is no transformers beside it"
    put(environment, "transformers", "5.24.0")
    [build] = bundled()
    assert (build.broken, build.path, build.installed) == ("", None, "bundled")


@pytest.mark.parametrize(
    "torch,transformers,broken",
    [
        ("2.11.0", "5.17.1", ""),
        ("3.0", "6.0", ""),
        ("2.10.1", "5.24.0", "torch has version 2.10.1, and gemd needs 2.11 or more"),
        ("2.13.0", "5.9.0", "transformers has version 5.9.0, and gemd needs 5.17 or more"),
        ("unheard-of", "5.24.0", "torch has version unheard-of, and gemd needs 2.11 or more"),
    ],
)
def test_torch_that_is_too_old_is_a_broken_build(
    environment: Path, torch: str, transformers: str, broken: str
) -> None:
    """Newer than what gemd itself installs is fine: the user chose it."""
    put(environment, "torch", torch, "libtorch_cpu.so")
    put(environment, "transformers", transformers)
    [build] = bundled()
    assert (build.backend, build.broken) == ("cpu", broken)


@pytest.mark.parametrize("library,backend", [("libtorch_hip.so", "hip"), ("x.dylib", "cpu")])
def test_torch_for_other_devices_is_told_apart(
    environment: Path, library: str, backend: str
) -> None:
    """It computes on the processor here, whatever it was built for."""
    put(environment, "torch", "2.13.0", library)
    put(environment, "transformers", "5.24.0")
    [build] = bundled()
    assert (build.backend, build.broken) == (backend, "")


def test_libraries_tell_the_backend(tmp_path: Path) -> None:
    """The best one of them."""
    for name in ("libggml-base.so", "libggml-cpu.so.0"):
        (tmp_path / name).touch()
    assert backend_in(tmp_path) == "cpu"
    (tmp_path / "libggml-vulkan.so").touch()
    assert backend_in(tmp_path) == "vulkan"
    (tmp_path / "libggml-cuda.so").touch()
    assert backend_in(tmp_path) == "cuda"
    assert backend_in(tmp_path / "none") == "cpu"


def test_looking_imports_no_engine(tmp_path: Path) -> None:
    """The daemon looks before every start of a worker, and must not hold llama.cpp."""
    program = (
        "import sys; from pathlib import Path; from gemd.engine.builds import installed_builds;"
        f"print(len(installed_builds(Path({str(tmp_path)!r}))));"
        "print([name for name in ('llama_cpp', 'torch', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "2\n[]\n"
