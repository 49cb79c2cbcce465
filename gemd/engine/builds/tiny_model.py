"""A model of 760 KB whose answers are known beforehand, to try a build of llama.cpp with.

A «llama» of one layer, 384 tokens and as many dimensions, in Q4_0 like the models of every
day. The weights are ones and zeros, which Q4_0 holds exactly:

- a token's embedding, and its row of the output, is one of the unit vectors;
- queries and keys are zero, so that a token attends equally to all before it, and values
  are passed on as they are: the most frequent token of the context wins;
- the feed-forward part takes the winner to its successor, `successor`.

So an answer is right only if embeddings, norms, attention, the KV cache with all earlier
tokens, the feed-forward part and the output all were: for the whole prompt in one batch, and
then token by token.
"""

from __future__ import annotations

import collections
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIZE: Final = 384
"""Tokens, dimensions, and width of the feed-forward part."""
_HEADS: Final = 6
_FIRST: Final = 259
"""The tokens before it are control tokens and bytes, which every SentencePiece vocabulary has."""
_BLOCK: Final = 32
_ALIGNMENT: Final = 32
_F32, _Q4_0 = 0, 2
_UINT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _INT32 = 4, 6, 7, 8, 9, 5
_SHARPNESS: Final = 8.0
"""Of the feed-forward part's gate: the winner is far ahead of the second."""

_OTHERS: Final = tuple(range(260, 276))
PROMPTS: Final[tuple[tuple[int, ...], ...]] = (
    # Long enough for the kernels of whole batches.
    (*(300 for _ in range(24)), *_OTHERS),
    (262, 290, 290),
    (310,),
)
STEPS: Final = 3
"""Tokens that are asked for after each prompt."""


def successor(token: int) -> int:
    """The token that follows a context in which `token` is the most frequent."""
    count = SIZE - _FIRST
    return _FIRST + (token - _FIRST + 41) % count


def expected(prompt: Sequence[int], steps: int = STEPS) -> list[int]:
    """What the model continues a prompt with, greedily."""
    context = list(prompt)
    for _ in range(steps):
        counts = collections.Counter(context)
        # The last token once more, for the stream that passes the attention by; weighed by the
        # norm before the attention, the others by the length of the context.
        weights = {token: SIZE**0.5 * count / len(context) for token, count in counts.items()}
        weights[context[-1]] += 1
        context.append(successor(max(weights, key=lambda token: weights[token])))
    return context[len(prompt) :]


def tiny_model() -> bytes:
    """The whole GGUF file."""
    unit = _matrix(lambda row: (row, 1.0))
    tensors: dict[str, tuple[int, bytes]] = {
        "token_embd.weight": (_Q4_0, unit),
        "output.weight": (_Q4_0, unit),
        "output_norm.weight": (_F32, _ones()),
        "blk.0.attn_norm.weight": (_F32, _ones()),
        "blk.0.attn_q.weight": (_Q4_0, _matrix(lambda row: (row, 0.0))),
        "blk.0.attn_k.weight": (_Q4_0, _matrix(lambda row: (row, 0.0))),
        "blk.0.attn_v.weight": (_Q4_0, unit),
        "blk.0.attn_output.weight": (_Q4_0, unit),
        "blk.0.ffn_norm.weight": (_F32, _ones()),
        "blk.0.ffn_gate.weight": (_Q4_0, _matrix(lambda row: (row, _SHARPNESS))),
        "blk.0.ffn_up.weight": (_Q4_0, unit),
        "blk.0.ffn_down.weight": (_Q4_0, _matrix(lambda row: (_predecessor(row), 1.0))),
    }
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(_metadata()))]
    head += [_string(key) + value for key, value in _metadata().items()]
    offset = 0
    for name, (kind, content) in tensors.items():
        shape = (SIZE,) if kind == _F32 else (SIZE, SIZE)
        head.append(_string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
        head.append(struct.pack("<IQ", kind, offset))
        offset += _padded(len(content))
    header = b"".join(head)
    body = b"".join(content.ljust(_padded(len(content)), b"\0") for _, content in tensors.values())
    return header.ljust(_padded(len(header)), b"\0") + body


def _predecessor(token: int) -> int:
    if token < _FIRST:
        return token
    return next(one for one in range(_FIRST, SIZE) if successor(one) == token)


def _metadata() -> dict[str, bytes]:
    written = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *written, *(f"t{n}" for n in range(_FIRST, SIZE))]
    kinds = [2, 3, 3, *(6 for _ in written), *(1 for _ in range(_FIRST, SIZE))]
    return {
        "general.architecture": _text("llama"),
        "general.name": _text("gemd's trial model"),
        "llama.context_length": _whole(512),
        "llama.embedding_length": _whole(SIZE),
        "llama.block_count": _whole(1),
        "llama.feed_forward_length": _whole(SIZE),
        "llama.attention.head_count": _whole(_HEADS),
        "llama.rope.dimension_count": _whole(SIZE // _HEADS),
        "llama.attention.layer_norm_rms_epsilon": struct.pack("<If", _FLOAT32, 1e-6),
        "tokenizer.ggml.model": _text("llama"),
        "tokenizer.ggml.tokens": _array(_STRING, [_string(token) for token in tokens]),
        "tokenizer.ggml.scores": _array(_FLOAT32, [struct.pack("<f", 0.0)] * SIZE),
        "tokenizer.ggml.token_type": _array(_INT32, [struct.pack("<i", kind) for kind in kinds]),
        "tokenizer.ggml.bos_token_id": _whole(1),
        "tokenizer.ggml.eos_token_id": _whole(2),
        "tokenizer.ggml.add_bos_token": struct.pack("<I?", _BOOL, False),
    }


def _matrix(place: Callable[[int], tuple[int, float]]) -> bytes:
    """A square matrix in Q4_0 with one value in each row.

    Args:
        place: By row, the column of its value and the value.

    """
    rows = []
    for row in range(SIZE):
        column, value = place(row)
        before, inside = divmod(column, _BLOCK)
        after = SIZE // _BLOCK - before - 1
        rows.append(_NOTHING * before + _block(inside, value) + _NOTHING * after)
    return b"".join(rows)


def _block(position: int, value: float) -> bytes:
    """32 weights, of which one is not zero: a scale in half precision, then 4 bits each.

    The low halves of the bytes are the first 16 weights, the high ones the others. 8 stands for
    zero, and 0, which the value is written as, for -8 times the scale.
    """
    codes = [8] * _BLOCK
    codes[position] = 0
    half = _BLOCK // 2
    packed = bytes(codes[n] | codes[n + half] << 4 for n in range(half))
    return struct.pack("<e", value / -8) + packed


_NOTHING = struct.pack("<e", 0.0) + bytes([0x88] * (_BLOCK // 2))
"""A block of zeros."""


def _ones() -> bytes:
    return struct.pack("<f", 1.0) * SIZE


def _string(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<Q", len(content)) + content


def _text(text: str) -> bytes:
    return struct.pack("<I", _STRING) + _string(text)


def _whole(number: int) -> bytes:
    return struct.pack("<II", _UINT32, number)


def _array(kind: int, items: Sequence[bytes]) -> bytes:
    return struct.pack("<IIQ", _ARRAY, kind, len(items)) + b"".join(items)


def _padded(size: int) -> int:
    return (size + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
