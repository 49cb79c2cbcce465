"""A real worker computes with the engine build that its spec names."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from gemd import wire
from gemd.engine.builds.tiny_model import tiny_model
from gemd.engine.spec import WorkerSpec, worker_environment
from tests.support.engine_wheel import copy_engine
from tests.support.workers import running

MARK = "0.3.36+overlay"


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """An engine build: the files of this environment, whose version says that it is another one."""
    directory = tmp_path / "overlay"
    copy_engine(directory)
    (directory / "llama_cpp" / "__init__.py").write_text(
        f'from .llama_cpp import *\nfrom .llama import *\n__version__ = "{MARK}"\n'
    )
    return directory


@pytest.fixture
def spec(tmp_path: Path) -> WorkerSpec:
    """A llama worker with a tiny model."""
    model = tmp_path / "model.gguf"
    model.write_bytes(tiny_model())
    load = wire.Load(path=str(model), context_tokens=256, max_sequences=1, threads=1)
    return WorkerSpec(model="tiny", engine="llama", load=load, environ=os.environ)


async def test_a_worker_imports_the_build_of_its_spec(spec: WorkerSpec, overlay: Path) -> None:
    """And without one the engine of gemd's own environment, in the same daemon."""
    async with running(replace(spec, overlay=overlay)) as worker:
        assert worker.ready.engine_version == f"llama-cpp-python {MARK}"
    async with running(spec) as worker:
        assert worker.ready.engine_version == "llama-cpp-python 0.3.36"


def test_the_build_comes_before_the_checkout(tmp_path: Path) -> None:
    """And the libraries that it has brought along before the user's."""
    (tmp_path / "nvidia" / "cublas" / "lib").mkdir(parents=True)
    (tmp_path / "nvidia" / "cuda_runtime" / "lib").mkdir(parents=True)
    environment = worker_environment(
        {"LD_LIBRARY_PATH": "/user"}, checkout=Path("/src"), overlay=tmp_path
    )
    assert environment["PYTHONPATH"] == f"{tmp_path}:/src"
    assert environment["LD_LIBRARY_PATH"] == (
        f"{tmp_path}/nvidia/cublas/lib:{tmp_path}/nvidia/cuda_runtime/lib:/user"
    )
    plain = worker_environment({}, checkout=Path("/src"), overlay=tmp_path / "none")
    assert plain["PYTHONPATH"] == f"{tmp_path}/none:/src"
    assert "LD_LIBRARY_PATH" not in plain
