"""What quantizing costs the processor, beside llama.cpp's own quantizer on the same file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.wire.quantize import Order
from tests.bench import machine, rounds
from tests.bench.report import Check, Section, spread
from tests.bench.rounds import Samples
from tests.support.llama_quantizer import oracle
from tests.support.quantize_child import in_child
from tests.support.unquantized import HALF_A_BILLION, write_model

if TYPE_CHECKING:
    from tests.bench.setting import Setting
    from tests.support.gemma4_files import Value

SHAPE: Final[dict[str, Value]] = {
    **HALF_A_BILLION,
    "embedding_length": 512,
    "feed_forward_length": 1536,
    "vocab_size": 16384,
}
"""Some 50 million parameters."""
BOUNDS: Final = {"Q8_0": 0.5, "Q4_0": 0.55, "Q4_K_M": 0.8}
"""Of the speed of llama.cpp's quantizer, which neither hashes its result nor reads it back; where
kernels are cheap, that is most of the work."""
MOST_ANONYMOUS_MB: Final = 200
_MIB: Final = 1 << 20
_OURS, _THEIRS = "gemd", "llama_model_quantize"


async def measure(setting: Setting) -> Section:
    """BF16 read per processor second, one thread each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write_model(folder / "m.gguf", SHAPE)
        size = source.stat().st_size / _MIB
        section = Section(
            title="Quantizing to GGUF",
            how=f"A file in Gemma 4's shape, {size:.0f} MiB of random BF16 weights, one thread, "
            "each in a process of its own; processor seconds of everything but imports, hashing "
            "and reading back included. " + machine.describe(threads=1)[0] + ".",
            head=("mixture, contender", "MiB of BF16 per core-second", "min – max"),
        )
        memory = 0
        for quantization, bound in BOUNDS.items():
            ours, theirs = [], []
            for number in range(setting.rounds):
                target = folder / f"{quantization}-{number}"
                target.mkdir()
                order = Order(
                    source=str(source), target=str(target), name="r.gguf",
                    quantization=quantization,
                )  # fmt: skip
                said = in_child(order)
                assert said is not None
                memory = max(memory, said["anonymous_bytes"])
                ours.append(size / said["seconds"])
                expected = target / "expected.gguf"
                theirs.append(size / oracle(source, expected, quantization)["seconds"])
                assert expected.read_bytes() == (target / "r.gguf").read_bytes()
                for path in target.iterdir():
                    path.unlink()
            one, other = Samples(tuple(ours)), Samples(tuple(theirs))
            section.rows.append((f"{quantization}, {_OURS}", *spread(one)))
            section.rows.append((f"{quantization}, {_THEIRS}", *spread(other)))
            ratio = rounds.ratio(one, other).median
            claim = f"{quantization}: {_OURS} / {_THEIRS}"
            section.checks.append(Check(claim, ratio, bound, at_least=True))
        section.checks.append(
            Check("most anonymous memory", memory / 1e6, MOST_ANONYMOUS_MB, at_least=False,
                  unit=" MB", digits=0)
        )  # fmt: skip
    return section
