"""Which paths a device can go, and switching between them."""

from __future__ import annotations

import pytest
import torch

from gemd.errors import EngineMissingError
from gemd.worker.diffusion.compute import available_paths, use_path
from gemd.worker.diffusion.compute.paths import NAMES, below_least, packed_modules
from tests.support.packed_layers import experts_of, linear_of

CPU = torch.device("cpu")


def decoder() -> torch.nn.Module:
    """Two packed modules and one that is not."""
    generator = torch.Generator().manual_seed(0)
    return torch.nn.ModuleList(
        [experts_of(generator), torch.nn.Linear(16, 16), linear_of(generator)]
    )


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have the interpreter on."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def test_a_processor_has_two_paths_and_a_reason_against_the_third() -> None:
    """All are named, in the same order everywhere."""
    paths = available_paths(CPU)

    assert tuple(path.name for path in paths) == NAMES
    assert [path.name for path in paths if not path.obstacle] == ["reference", "dequantize"]
    assert "interpreter" in paths[2].obstacle or "not installed" in paths[2].obstacle


def test_without_triton_the_path_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build of torch without CUDA brings none along."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    assert available_paths(torch.device("cuda"))[2].obstacle == "Triton is not installed"


def test_other_gpus_are_told_what_the_kernels_are_for() -> None:
    """On a Mac, say."""
    pytest.importorskip("triton")

    assert "NVIDIA" in available_paths(torch.device("mps"))[2].obstacle


def test_a_gpu_below_ampere_is_told_its_number() -> None:
    """An RTX 2080 has 7.5, an A100 8.0, an RTX 5090 12.0."""
    assert "7.5" in below_least((7, 5))
    assert "8.0" in below_least((7, 5))
    assert not below_least((8, 0))
    assert not below_least((12, 0))


def test_switching_reaches_every_packed_module() -> None:
    """And leaves the others alone."""
    model = decoder()

    for name in ("dequantize", "reference"):
        use_path(model, name)

        assert [module.arithmetic.name for module in packed_modules(model)] == [name, name]


def test_a_path_that_cannot_run_is_refused_and_nothing_changes() -> None:
    """With the reason."""
    model = decoder()
    use_path(model, "dequantize")

    with pytest.raises(EngineMissingError) as caught:
        use_path(model, "triton")

    assert caught.value.why == available_paths(CPU)[2].obstacle
    assert {module.arithmetic.name for module in packed_modules(model)} == {"dequantize"}


def test_a_model_without_packed_weights_stays_as_it_is() -> None:
    """A bf16 checkpoint has none, whatever the path."""
    use_path(torch.nn.Linear(16, 16), "triton")
