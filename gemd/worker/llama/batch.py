"""The tokens of one decode."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
from llama_cpp import llama_cpp as c

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Batch:
    """Arrays for the tokens of one decode, which live as long as the batch.

    llama.cpp's own constructor allocates one small array per token; these are filled by
    slices.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._token = np.zeros(capacity, np.int32)
        self._position = np.zeros(capacity, np.int32)
        self._count = np.ones(capacity, np.int32)
        self._sequence = np.zeros(capacity, np.int32)
        self._wanted = np.zeros(capacity, np.int8)
        pointer = ctypes.POINTER(ctypes.c_int32)
        base = self._sequence.ctypes.data
        self._sequences = (pointer * capacity)(
            *(ctypes.cast(base + 4 * i, pointer) for i in range(capacity))
        )
        self._filled = 0
        # The same memory once more, for `add_one`.
        self._tokens_raw = (ctypes.c_int32 * capacity).from_address(self._token.ctypes.data)
        self._positions_raw = (ctypes.c_int32 * capacity).from_address(self._position.ctypes.data)
        self._sequences_raw = (ctypes.c_int32 * capacity).from_address(self._sequence.ctypes.data)
        self._wanted_raw = (ctypes.c_int8 * capacity).from_address(self._wanted.ctypes.data)
        self.raw = c.llama_batch(
            0,
            self._token.ctypes.data_as(pointer),
            None,
            self._position.ctypes.data_as(pointer),
            self._count.ctypes.data_as(pointer),
            ctypes.cast(self._sequences, ctypes.POINTER(pointer)),
            self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def __len__(self) -> int:
        return self._filled

    def clear(self) -> None:
        """Forget all tokens."""
        self._filled = self.raw.n_tokens = 0

    def add(
        self, sequence: int, position: int, tokens: Sequence[int], wanted: Iterable[int]
    ) -> int:
        """Append consecutive tokens of one sequence.

        Args:
            sequence: llama.cpp's sequence id.
            position: Of the first token.
            tokens: Token ids.
            wanted: Offsets into `tokens` whose logits are wanted.

        Returns:
            Index of the first one in the batch.

        """
        start, end = self._filled, self._filled + len(tokens)
        self._token[start:end] = tokens
        self._position[start:end] = np.arange(position, position + len(tokens))
        self._sequence[start:end] = sequence
        self._wanted[start:end] = 0
        for offset in wanted:
            self._wanted[start + offset] = 1
        self._filled = self.raw.n_tokens = end
        return start

    def add_one(self, sequence: int, position: int, token: int) -> int:
        """Append the next token of a running answer, whose logits are wanted.

        The hot loop's own way: single stores through ctypes cost a third of numpy's.
        """
        index = self._filled
        self._tokens_raw[index] = token
        self._positions_raw[index] = position
        self._sequences_raw[index] = sequence
        self._wanted_raw[index] = 1
        self._filled = self.raw.n_tokens = index + 1
        return index
