"""Names of quantizations, and about how many bits of weights become with each. Pure."""

from __future__ import annotations

from typing import Final

UNQUANTIZED: Final = {"F32": 32.0, "BF16": 16.0, "F16": 16.0}
"""Bits of a weight in what others can be made from, by name; the first is the best."""

NVFP4: Final = "NVFP4"
"""Of block-diffusion checkpoints: NVIDIA's four bits with a scale for 16 weights."""

GGUF_BITS: Final = {
    "F32": 32.0,
    "F16": 16.0,
    "BF16": 16.0,
    "Q8_0": 8.6,
    "Q6_K": 7.3,
    "Q5_K_M": 6.4,
    "Q5_K_S": 6.3,
    "Q5_1": 6.4,
    "Q5_0": 6.2,
    "Q4_K_M": 6.0,
    "Q4_K_S": 5.9,
    "Q4_1": 5.8,
    "Q4_0": 5.8,
    "IQ4_NL": 5.8,
    "IQ4_XS": 5.7,
    "Q3_K_L": 5.3,
    "Q3_K_M": 5.1,
    "Q3_K_S": 4.9,
    "Q2_K": 4.4,
}
"""Bits of a weight in a GGUF file, by llama.cpp's name of the mixture: the most that dry runs of
its quantizer gave over all sizes of Gemma 4, whose embeddings get more bits than the rest and whose
odd widths fall back to larger types. Those below four bits are guesses by the difference."""

_NVFP4_SHARE: Final = 0.37
"""Of the bytes of a bf16 DiffusionGemma, with its experts alone in four bits: 18.82 of 51.65 GB."""


def quantization_named(text: str) -> str | None:
    """A quantization by its name in any case; None if gemd makes no such one."""
    name = text.strip().upper().replace("-", "_")
    return name if name in GGUF_BITS or name == NVFP4 else None


def known_quantizations() -> tuple[str, ...]:
    """All that can be asked for, most bits first."""
    return (*GGUF_BITS, NVFP4)


def predicted_bytes(source_bytes: int, source: str, quantization: str) -> int:
    """About how large a result is, rather too much than too little.

    The worker knows it to the byte from its plan, and checks again; this is for what has to be
    known before a source is fetched.

    Args:
        source_bytes: Size of all weights of the source.
        source: Its quantization, one of `UNQUANTIZED`.
        quantization: Of the result, one of `known_quantizations`.

    """
    if quantization == NVFP4:
        return int(source_bytes * _NVFP4_SHARE)
    bits = min(GGUF_BITS[quantization] / UNQUANTIZED.get(source, 16.0), 2.0)
    return int(source_bytes * bits)
