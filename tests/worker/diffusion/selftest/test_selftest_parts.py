"""What the self-test finds of paths that compute rightly, and of ones that do not."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gemd.errors import BudgetExceededError
from gemd.worker.diffusion.checkpoint import load_checkpoint
from gemd.worker.diffusion.compute import paths, use_path
from gemd.worker.diffusion.compute.check import TOKENS
from gemd.worker.diffusion.compute.unpacked import UNPACKED, Unpacked
from gemd.worker.diffusion.selftest import measuring
from gemd.worker.diffusion.selftest.measuring import STEP_BOUND, TINY, Desk, path_reports
from gemd.worker.diffusion.selftest.parts import Parts
from tests.support.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.worker.diffusion.compute.packed import PackedExperts

CPU = torch.device("cpu")
ALL = frozenset({"software", "device", "checkpoint", "reference", "dequantize", "triton"})


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Broken(Unpacked):
    """A path whose experts go wrong; `change` gets what is right."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.change = change

    def experts(
        self,
        module: PackedExperts,
        hidden: torch.Tensor,
        top_k_index: torch.Tensor,
        top_k_weights: torch.Tensor,
    ) -> torch.Tensor:
        """See `Arithmetic`."""
        return self.change(super().experts(module, hidden, top_k_index, top_k_weights))


def told(*parts: str, device: str | None = "cpu") -> list[dict[str, Any]]:
    """The lines of these parts."""
    output = io.StringIO()
    Parts(ALL - set(parts), output).make(device)
    return [json.loads(line) for line in output.getvalue().splitlines()]


def known(part: str, **options: Any) -> dict[str, Any]:
    """All that is told of a part; the last line is the end."""
    *lines, end = told(part, **options)
    assert end == {"part": "end", "state": "done"}
    assert {line["part"] for line in lines} == {part}
    assert [line["state"] for line in lines][:: len(lines) - 1] == ["begun", "done"]
    found: dict[str, Any] = {}
    for line in lines:
        found |= line
    return found


def with_path(monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor], Any]) -> None:
    """Put a broken path in the place of `dequantize`."""
    monkeypatch.setattr(paths, "UNPACKED", Broken(change))


def test_software_and_device_are_described() -> None:
    """Versions of all that computes, and where."""
    software = known("software")
    assert software["torch"] == torch.__version__
    assert software["transformers"]
    assert software["file"] == torch.__file__
    device = known("device")
    assert device["kind"] == "cpu"
    assert device["name"].startswith("the processor (")


def test_a_sound_path_has_all_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers, a step, the answers one by one and four at a time, and the time."""
    some = dict(list(measuring.answers().items())[:5])
    monkeypatch.setattr(measuring, "answers", lambda: some)
    found = known("dequantize")
    assert found["layer_error"] <= found["layer_bound"]
    # What bfloat16 itself costs; nothing computes here as the processor does in float32.
    assert 0.0005 < found["step_error"] < STEP_BOUND / 3
    assert (found["questions"], found["right"], found["wrong"]) == (5, 5, {})
    assert (found["together"], found["same_together"]) == (4, 5)
    assert found["step_ms"] > 0
    assert "problem" not in found


def test_wrong_numbers_end_it_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a layer; and a number that is none is told as nothing, which JSON can hold."""
    with_path(monkeypatch, lambda right: right * 1.1)
    found = known("dequantize")
    assert found["layer_error"] == pytest.approx(0.1, rel=0.1)
    assert "step_error" not in found
    with_path(monkeypatch, lambda right: right * float("nan"))
    found = known("dequantize")
    assert "layer_error" in found
    assert found["layer_error"] is None


def test_a_step_shows_what_single_layers_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that goes wrong with as many tokens as a canvas has, and is right otherwise."""
    with_path(monkeypatch, lambda right: right if len(right) == TOKENS else right.flip(0))
    found = known("dequantize")
    assert found["layer_error"] <= found["layer_bound"]
    assert found["step_error"] > 2 * STEP_BOUND
    assert "questions" not in found


def test_a_wrong_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its question; the others are counted."""
    question = "Say goodbye."
    expected = {"Hello": "Good evening.", question: measuring.answers()[question]}
    monkeypatch.setattr(measuring, "answers", lambda: expected)
    found = known("dequantize")
    assert (found["questions"], found["right"]) == (2, 1)
    assert found["wrong"] == {"Hello": "Hello! How can I help you today?"}
    assert found["same_together"] == 2


def test_a_failure_leaves_the_other_paths_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it fails with is told in one line; the next path has its part."""

    def fail(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("ptxas fatal\nmore of it")

    with_path(monkeypatch, fail)
    lines = told("dequantize", "triton")
    assert [(line["part"], line["state"]) for line in lines] == [
        ("dequantize", "begun"),
        ("dequantize", "known"),
        ("dequantize", "done"),
        ("triton", "begun"),
        ("triton", "done"),
        ("end", "done"),
    ]
    assert lines[1]["problem"] == "RuntimeError: ptxas fatal"
    assert not lines[1]["out_of_memory"]
    assert "interpreter" in lines[3]["obstacle"]


def test_want_of_memory_is_told_from_other_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a layer, and in a request that the engine fails."""

    def fail(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("Tried to allocate 20 MiB")

    with Desk("dequantize", CPU, clock=Clock()) as desk:
        for module in paths.packed_modules(desk._engine._loaded.checkpoint.decoder):
            module.arithmetic = Broken(fail)
        with pytest.raises(BudgetExceededError, match="no memory"):
            desk.ask("Hello")
    with_path(monkeypatch, fail)
    found = known("dequantize")
    assert found["out_of_memory"]
    assert "20 MiB" in found["problem"]


def test_the_middle_step_counts() -> None:
    """Milliseconds by the clock that is handed in, of steps that read no prompt."""
    clock = Clock()
    with Desk("reference", CPU, clock=clock) as desk:
        step = desk._engine.step

        def slow() -> bool:
            clock.now += 0.25
            return step()

        desk._engine.step = slow  # type: ignore[method-assign]
        assert desk.ask("Hello")["Hello"].startswith("Hello!")
        assert desk.step_ms() == 250


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is tried without them."""
    for name in [each for each in sys.modules if each.startswith("gemd.worker.diffusion.selftest")]:
        if name.endswith("measuring"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("gemd.worker.diffusion.selftest.measuring", None, raising=False)
    monkeypatch.delattr("gemd.worker.diffusion.selftest.measuring")
    monkeypatch.setitem(sys.modules, "torch", None)
    lines = told("software", "device", "checkpoint", "reference")
    assert [line["part"] for line in lines] == ["software", "software", "end"]
    assert lines[1]["missing"] == "torch"
    assert lines[1]["problem"].startswith("ModuleNotFoundError")


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_gpu_that_torch_does_not_see_is_a_problem() -> None:
    """It is not silently the processor that is tried."""
    *lines, end = told("device", "checkpoint", "reference", device="cuda")
    assert end["part"] == "end"
    assert [line["part"] for line in lines] == ["device", "device"]
    assert lines[1]["problem"].startswith("the model is to lie on a GPU")
    assert "gemctl engine install --engine diffusion" in lines[1]["advice"]


def test_a_damaged_model_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """The paths are not tried then."""
    monkeypatch.setattr(measuring, "TINY", tmp_path)
    lines = told("checkpoint", "reference")
    assert [line["part"] for line in lines] == ["checkpoint", "checkpoint", "end"]
    assert str(tmp_path) in lines[1]["problem"]


@pytest.mark.gpu
@pytest.mark.parametrize("name", paths.NAMES)
def test_every_path_of_a_gpu_is_sound(name: str) -> None:
    """In a process that has done other things before."""
    found: dict[str, Any] = {}
    for piece in path_reports(name, torch.device("cuda:0"), clock=Clock()):
        found |= piece
    assert found["layer_error"] <= found["layer_bound"]
    assert found["step_error"] <= STEP_BOUND
    assert found["right"] == found["same_together"] == 16


def test_the_fixture_of_these_tests_is_right() -> None:
    """Unbroken, the path that they break computes as the reference does."""
    checkpoint = load_checkpoint(TINY, device=CPU)
    use_path(checkpoint.decoder, "dequantize")
    assert {module.arithmetic for module in paths.packed_modules(checkpoint.decoder)} == {UNPACKED}
    error = measuring.relative_error(measuring.logits(checkpoint), measuring.reference_logits())
    assert error <= STEP_BOUND / 3
