"""Damages headers at random and reads them, in a process with little memory and little time.

``python -m tests.support.mutations COUNT SEED`` prints a JSON object of how many were read and how
many refused, or ends with a traceback over the first one that was neither.
"""

from __future__ import annotations

import json
import random
import re
import resource
import signal
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gemd.errors import BadModelFileError
from gemd.footprint import (
    Placement,
    gguf_header,
    gguf_shape,
    predict_gguf,
    safetensors_header,
    safetensors_index,
)
from tests.support.gguf_files import gguf_bytes
from tests.support.safetensors_files import Tensors, safetensors_bytes
from tests.support.sources import BytesSource

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY_BYTES: Final = 64 * 1000**2
"""What reading may allocate at most."""
SECONDS: Final = 1.0
"""Of processor time that one header may take."""

_ODD: Final = (
    0,
    1,
    2,
    7,
    8,
    9,
    255,
    2**16,
    2**24,
    2**31 - 1,
    2**32 - 1,
    2**40,
    2**63 - 1,
    2**64 - 1,
)
_TYPES: Final = (b"F4", b"F8_E4M3", b"BF16", b"F64", b"U9", b"", b'"', b"F6_E2M3")
_JSON: Final = (
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\\",
    b"\\u0000",
    b",",
    b":",
    b"-1",
    b"1e99",
    b"null",
)
_NUMBER: Final = re.compile(rb"[0-9]+")


def main() -> None:
    """Read so many damaged headers."""
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    draw = random.Random(seed)
    seeds = _seeds()
    # Once, so that caches of the interpreter are there before the limit is.
    for data, read in seeds:
        read(BytesSource(data))
    _limit_memory()
    signal.signal(signal.SIGVTALRM, _hang)
    results: Counter[str] = Counter()
    for _ in range(count):
        data, read = draw.choice(seeds)
        for _ in range(draw.choice((1, 1, 2, 4))):
            data = draw.choice(_MUTATIONS)(data, draw)
        results[_outcome(data, read, draw)] += 1
    sys.stdout.write(json.dumps(results) + "\n")


def _outcome(data: bytes, read: Callable[[Any], object], draw: random.Random) -> str:
    # Sometimes the file goes on, as far as anybody knows before it is read.
    size = draw.choice((len(data), len(data), len(data) + 10_000, 2**40))
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        read(BytesSource(data, size=size, filled=draw.random() < 0.5))
    except BadModelFileError as error:
        metadata = error.metadata
        if "offset" in metadata:
            assert 0 <= int(metadata["offset"]) <= size, metadata
            return "refused"
        # A whole header of a model that cannot be: the key is its place.
        assert metadata["key"], metadata
        return "unusable"
    except BaseException:
        sys.stderr.write(f"{data!r}\n")
        raise
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return "read"


def _hang(*_: object) -> None:
    raise TimeoutError(f"a header took more than {SECONDS:g} s")


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _read_gguf(source: BytesSource) -> None:
    """The header, and what follows from it."""
    shape = gguf_shape(gguf_header(source))
    predict_gguf(shape, context_tokens=4096, max_sequences=4, placement=Placement(99, 3, "q8_0"))


def _seeds() -> list[tuple[bytes, Callable[[Any], object]]]:
    metadata: dict[str, Any] = {
        "general.architecture": "gemma4",
        "general.alignment": 32,
        "gemma4.block_count": 3,
        "gemma4.embedding_length": 64,
        "gemma4.feed_forward_length": [64, 64, 128],
        "gemma4.attention.head_count": 4,
        "gemma4.attention.head_count_kv": [2, 2, 1],
        "gemma4.attention.sliding_window": 512,
        "gemma4.attention.sliding_window_pattern": [1, 1, 0],
        "gemma4.rope.freq_base": 10000.0,
        "gemma4.flag": True,
        "tokenizer.chat_template": "{{ messages }}" * 20,
        "tokenizer.ggml.tokens": [f"t{index}" for index in range(300)],
        "tokenizer.ggml.scores": [1] * 5000,
    }
    tensors = {"token_embd.weight": (64, 300), "output_norm.weight": (64,)}
    for layer in range(3):
        tensors |= {f"blk.{layer}.attn_q.weight": (64, 64), f"blk.{layer}.attn_norm.weight": (64,)}
    safe: Tensors = {
        f"model.layers.{layer}.experts.{expert}.{name}": entry
        for layer in range(2)
        for expert in range(3)
        for name, entry in (
            ("weight", ("U8", (4, 8))),
            ("weight_scale", ("F8_E4M3", (4, 1))),
            ("weight_scale_2", ("F32", ())),
            ("packed", ("F4", (4, 4))),
        )
    }
    places = {name: f"model-{index % 3}.safetensors" for index, name in enumerate(safe)}
    index = {"metadata": {"total_size": 1, "more": [1, [2, {"a": None}]]}, "weight_map": places}
    return [
        (gguf_bytes(metadata, tensors), _read_gguf),
        (safetensors_bytes(safe, {"format": "pt"}), safetensors_header),
        (json.dumps(index).encode(), safetensors_index),
    ]


def _truncated(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _flipped(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 3, 20))):
        if changed:
            changed[draw.randrange(min(len(changed), 6000))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _odd_count(data: bytes, draw: random.Random) -> bytes:
    """A count, length, type or offset that is something else."""
    width, form = draw.choice(((8, "<Q"), (8, "<Q"), (4, "<I")))
    at = draw.randrange(max(1, min(len(data), 6000)))
    number = draw.choice(_ODD) + draw.choice((0, 0, -1, 1))
    value = struct.pack(form, number % 2 ** (8 * width))
    return data[:at] + value + data[at + width :]


def _odd_number(data: bytes, draw: random.Random) -> bytes:
    """A size, offset or shape of a JSON header that is something else."""
    numbers = list(_NUMBER.finditer(data[:8000]))
    if not numbers:
        return data
    found = draw.choice(numbers)
    number = draw.choice((*_ODD, int(found[0][:18]) + 1, int(found[0][:18]) - 1, 10**25))
    return data[: found.start()] + str(number).encode() + data[found.end() :]


def _inserted(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(min(len(data), 6000) + 1)
    what = draw.choice((*_JSON, *_TYPES, draw.randbytes(8)))
    return data[:at] + what * draw.choice((1, 1, 1, 50, 5000)) + data[at:]


def _removed(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(min(len(data), 6000) + 1)
    return data[:at] + data[at + draw.choice((1, 4, 8, 100)) :]


def _repeated(data: bytes, draw: random.Random) -> bytes:
    """A piece that comes twice: keys, tensors and tables of one name."""
    at = draw.randrange(min(len(data), 6000) + 1)
    piece = data[at : at + draw.choice((8, 40, 80, 200))]
    return data[:at] + piece * 2 + data[at + len(piece) :]


def _swapped(data: bytes, draw: random.Random) -> bytes:
    """Two pieces that have changed places, such as the offsets of two tensors."""
    width = draw.choice((4, 8, 32))
    first, second = sorted(draw.randrange(min(len(data), 6000) + 1) for _ in range(2))
    if second < first + width or second + width > len(data):
        return data
    a, b = data[first : first + width], data[second : second + width]
    return data[:first] + b + data[first + width : second] + a + data[second + width :]


_MUTATIONS: Final = (
    _truncated,
    _flipped,
    _odd_count,
    _odd_number,
    _inserted,
    _removed,
    _repeated,
    _swapped,
)


if __name__ == "__main__":
    main()
