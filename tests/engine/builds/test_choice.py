"""Which build a worker gets."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.catalog.choice import reasons
from gemd.engine.builds import BACKENDS, Build, best_backend, choose_build, install_command
from gemd.engine.builds.build import ENGINES
from gemd.errors import EngineMissingError

BUNDLED = Build(engine="llama", backend="cpu", version="0.3.36")


def own(backend: str, *, day: int = 1, broken: str = "") -> Build:
    """A build in the folder of engines."""
    return Build(
        engine="llama",
        backend=backend,
        version="0.3.36",
        path=Path(f"/engines/llama-{backend}-{day}"),
        created=dt.datetime(2026, 1, day, tzinfo=dt.UTC),
        installed="source",
        broken=broken,
    )


def test_an_installed_build_beats_the_bundled_one() -> None:
    """And a newer one an older one."""
    old, new = own("cpu", day=1), own("cpu", day=2)
    assert choose_build([BUNDLED], "cpu") == BUNDLED
    assert choose_build([BUNDLED, new, old], "cpu") == new


def test_auto_is_the_best_that_the_gpu_can_run() -> None:
    """Vulkan serves where CUDA is not installed; without a GPU it is the processor."""
    builds = [own("cuda"), own("vulkan"), BUNDLED]
    assert choose_build(builds, "auto", usable=("cuda", "vulkan")).backend == "cuda"
    assert choose_build(builds[1:], "auto", usable=("cuda", "vulkan")).backend == "vulkan"
    assert choose_build(builds, "auto").backend == "cpu"


def test_a_gpu_never_means_the_processor_in_silence() -> None:
    """With a GPU here and only a build for the processor, the command that helps is named."""
    with pytest.raises(EngineMissingError) as caught:
        choose_build([BUNDLED], "auto", usable=("cuda", "vulkan"))
    assert caught.value.message == "there is no llama engine for cuda"
    assert caught.value.why == "what is installed is for cpu"
    assert caught.value.advice[0] == "gemctl engine install --backend cuda"


def test_a_broken_build_is_passed_over_and_named() -> None:
    """Its reason is the reason of the error."""
    with pytest.raises(EngineMissingError) as caught:
        choose_build([own("cuda", broken="it is for cp312"), BUNDLED], "cuda")
    assert caught.value.why == "llama-cuda-1: it is for cp312"
    assert choose_build([own("cpu", broken="it is for cp312"), BUNDLED], "cpu") == BUNDLED


def test_the_processor_may_take_a_gpu_build_if_there_is_no_other() -> None:
    """Whoever compiled CUDA into gemd's environment still has a CPU engine."""
    compiled = Build(engine="llama", backend="cuda", version="0.3.36")
    assert choose_build([compiled], "cpu") == compiled
    with pytest.raises(EngineMissingError):
        choose_build([compiled], "vulkan")


def test_engines_are_kept_apart() -> None:
    """Torch is no llama.cpp."""
    torch = Build(engine="diffusion", backend="cuda", version="2.13.0", path=Path("/d"))
    assert choose_build([torch], "auto", usable=("cuda",), engine="diffusion") == torch
    with pytest.raises(EngineMissingError) as caught:
        choose_build([torch], "cuda")
    assert caught.value.why == "none is installed"


@given(
    st.lists(st.builds(own, st.sampled_from(BACKENDS), broken=st.sampled_from(["", "x"]))),
    st.sampled_from(["auto", *BACKENDS]),
    st.lists(st.sampled_from(BACKENDS[:-1]), unique=True),
)
def test_what_is_chosen_is_sound_and_was_wanted(
    builds: list[Build], wanted: str, usable: list[str]
) -> None:
    """Or there is none that could have been."""
    try:
        chosen = choose_build(builds, wanted, usable=usable)
    except EngineMissingError:
        able = {wanted} if wanted != "auto" else set(usable) or {"cpu"}
        if "cpu" in able:
            able = set(BACKENDS)
        assert not [one for one in builds if not one.broken and one.backend in able]
        return
    assert not chosen.broken
    if wanted not in {"auto", "cpu"}:
        assert chosen.backend == wanted
    if wanted == "auto" and usable:
        assert chosen.backend in usable


def test_the_best_backend_of_a_machine() -> None:
    """CUDA before all others; the diffusion engine knows only CUDA and the processor."""
    assert best_backend(()) == "cpu"
    assert best_backend(("vulkan", "cuda")) == "cuda"
    assert best_backend(("hip", "vulkan")) == "hip"
    assert best_backend(("metal",)) == "metal"
    assert best_backend(("hip", "vulkan"), "diffusion") == "cpu"
    assert install_command("diffusion", "cuda") == (
        "gemctl engine install --backend cuda --engine diffusion"
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_plan_advises_the_same_command(engine: str, backend: str) -> None:
    """Plans are made below engines, and have words of their own for it."""
    assert reasons.install_command(engine, backend) == install_command(engine, backend)
