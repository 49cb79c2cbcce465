"""Processes that are killed and followed by others, and the memory that one takes."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import pytest

from gemd.worker.quantize.gguf.journal import JOURNAL
from tests.support.gemma4_files import write_header_only
from tests.support.gguf_orders import digest, order, parts_of, tensors
from tests.support.llama_quantizer import oracle
from tests.support.quantize_child import in_child, made_in_child
from tests.support.unquantized import DENSE, HALF_A_BILLION, write_model

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.wire.quantize import Order

MOST_ANONYMOUS_BYTES: Final = 200 * 10**6


def killed_and_gone_on_with(what: Order, chances: random.Random, *, times: int) -> int:
    """Kills at random calls, so many times, or until it ends; how often it was killed."""
    kills = 0
    for _ in range(times):
        if in_child(what, kill_at=chances.randrange(5, 45)) is not None:
            return kills
        kills += 1
    made_in_child(what)
    return kills


def test_killed_at_random_moments_the_file_is_the_same(
    models: dict[str, Path], target: Path, tmp_path: Path
) -> None:
    """Between and within writes, also when parts of the source are gone already."""
    chances = random.Random(8)
    first = parts_of(models["experts"], tmp_path / "source")
    kills = killed_and_gone_on_with(order(first, target, discard=True), chances, times=6)
    assert kills > 3
    oracle(models["experts"], target / "expected.gguf", "Q4_0")
    assert digest(target / "r.gguf") == digest(target / "expected.gguf")
    assert not [*first.parent.iterdir()]
    assert sorted(path.name for path in target.iterdir()) == sorted(
        ["expected.gguf", JOURNAL, "r.gguf"]
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_every_call_on_files_the_file_is_the_same(
    models: dict[str, Path], tmp_path: Path
) -> None:
    """Every single one but writes of weights, of which a few stand for all."""
    expected = tmp_path / "expected.gguf"
    oracle(models["experts"], expected, "Q4_0")

    def fresh(number: int) -> Order:
        folder, target = tmp_path / f"source{number}", tmp_path / f"target{number}"
        target.mkdir()
        return order(parts_of(models["experts"], folder), target, discard=True)

    said = in_child(fresh(0))
    assert said is not None
    names = enumerate(said["calls"], 1)
    moments = [number for number, name in names if name != "pwrite" or number % 20 == 0]
    assert len(moments) > 20
    for number in moments:
        what = fresh(number)
        assert in_child(what, kill_at=number) is None
        result = made_in_child(what)
        found = tmp_path / f"target{number}" / "r.gguf"
        assert result.files[0].sha256 == digest(found) == digest(expected), number
        assert not [*(tmp_path / f"source{number}").iterdir()], number
        assert sorted(path.name for path in found.parent.iterdir()) == [JOURNAL, "r.gguf"]
        found.unlink()


def test_memory_does_not_grow_with_a_tensor(target: Path) -> None:
    """One whose float32 form would take 0.3 GB, a hole, in a file with Gemma's many texts."""
    source = target / "m.gguf"
    texts = [f"word{number}" for number in range(777_000)]
    write_header_only(source, {**DENSE, "vocab_size": 150_000}, "large", vocabulary=texts)
    said = in_child(order(source, target, "Q8_0", threads=2))
    assert said is not None
    assert said["anonymous_bytes"] <= MOST_ANONYMOUS_BYTES


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("quantization", ["Q4_0", "Q4_K_M"])
def test_half_a_billion_parameters_tensor_for_tensor(target: Path, quantization: str) -> None:
    """A file of 1 GB, in 200 MB of memory, killed twice on the way."""
    source = write_model(target / "m.gguf", HALF_A_BILLION)
    what = order(source, target, quantization, threads=2)
    assert in_child(what, kill_at=60) is None
    assert in_child(what, kill_at=90) is None
    said = in_child(what)
    assert said is not None
    assert said["anonymous_bytes"] <= MOST_ANONYMOUS_BYTES
    oracle(source, target / "expected.gguf", quantization, threads=2)
    assert tensors(target / "r.gguf") == tensors(target / "expected.gguf")
    assert digest(target / "r.gguf") == digest(target / "expected.gguf")
    for path in target.iterdir():
        # pytest keeps what its last runs have left.
        path.unlink()
