"""The head in six launches for a canvas: two products and four kernels.

`head` needs hundreds, each of which costs a slow host more than the GPU; and it waits for copies.
This one reads what needs no filters and no bias, which is nearly everything, and can be recorded
in a CUDA graph: all that changes between steps is read from the device.
"""

from __future__ import annotations

from typing import Final

import torch
import triton

from gemd.worker.diffusion.compute import head_kernels as kernels

SLICE: Final = 4096
"""Tokens of a slice: one program's, held in registers."""
WARPS: Final = 4
DECIDING_WARPS: Final = 8
"""Sums of a slice in float64 take twice the registers."""
COLUMNS: Final = 1024
"""Of hidden states, at once."""


class FusedHead:
    """Reads hidden states in a handful of launches, recordable in a CUDA graph.

    Args:
        embedding: The tied table; shape (vocabulary, hidden), contiguous, of the model's type.
        scale: What embeddings are multiplied with; one element on the table's device.
        softcap: Logits are bent to stay within plus and minus this.
        canvas_tokens: The most positions of a canvas.
        room: Lent: what `Head` keeps logits in, of shape (canvas tokens, vocabulary) in float32
            and contiguous. With a model in 16 bits both of the large arrays here find their place
            in it; with one in float32 a second array of its size is made.

    """

    def __init__(
        self,
        embedding: torch.Tensor,
        scale: torch.Tensor,
        softcap: float,
        *,
        canvas_tokens: int,
        room: torch.Tensor,
    ) -> None:
        vocabulary, hidden = embedding.shape
        device, dtype = embedding.device, embedding.dtype
        assert room.shape == (canvas_tokens, vocabulary)
        assert room.dtype == torch.float32
        self._embedding, self._scale, self._softcap = embedding, scale, softcap
        if dtype == torch.float32:
            self._logits, self._chances = room, torch.empty_like(room)
        else:
            self._logits, self._chances = room.view(dtype).view(2, canvas_tokens, vocabulary)
        self._block = min(SLICE, triton.next_power_of_2(vocabulary))
        self._slices = triton.cdiv(vocabulary, self._block)
        self._mixture = torch.empty((canvas_tokens, hidden), device=device)
        places = canvas_tokens * self._slices
        self._partial = torch.empty(6 * places, device=device)
        self._likeliest = torch.empty(places, dtype=torch.int32, device=device)
        self._summary = torch.empty(2 * canvas_tokens, device=device)

    def read(
        self,
        hidden: torch.Tensor,
        temperatures: torch.Tensor,
        uniforms: torch.Tensor,
        fixed: torch.Tensor,
        tokens: torch.Tensor,
        soft: torch.Tensor,
        columns: torch.Tensor,
    ) -> None:
        """Read canvases, one after the other through the same room.

        Everything is on the table's device and contiguous; nothing waits for it. What a canvas
        gets does not depend on the others.

        Args:
            hidden: Of the model's type; shape (rows, canvas, hidden).
            temperatures: Of this step, above 0; shape (rows,), float32.
            uniforms: From 0 to below 1, what tokens are drawn with; shape (rows, canvas), float32.
            fixed: Positions that are given; shape (rows, canvas), bool or uint8.
            tokens: What stands on the canvases, read where it is fixed; shape (rows, canvas),
                int64.
            soft: Written: what conditions the next step; shape and type of `hidden`.
            columns: Written: likeliest token, drawn token, entropy at the temperature and at 1,
                in nats, probability of the likeliest token at 1, and that less the second's;
                shape (rows, 6, canvas), float32. Where the model computed no numbers, both
                entropies are none, and tokens are some of the vocabulary.

        """
        given = fixed.view(torch.uint8)
        with torch.inference_mode():
            for row in range(len(hidden)):
                self._canvas(row, hidden[row], temperatures, uniforms, columns)
                self._give(row, given, tokens, soft)

    def _canvas(
        self,
        row: int,
        hidden: torch.Tensor,
        temperatures: torch.Tensor,
        uniforms: torch.Tensor,
        columns: torch.Tensor,
    ) -> None:
        """Columns of a row, and the sum of embeddings by their chances."""
        canvas, vocabulary = len(hidden), len(self._embedding)
        logits, chances = self._logits[:canvas], self._chances[:canvas]
        torch.mm(hidden, self._embedding.T, out=logits)
        grid = (self._slices, canvas)
        kernels.survey[grid](
            logits,
            temperatures,
            self._partial,
            self._likeliest,
            row,
            self._softcap,
            vocabulary,
            block=self._block,
            num_warps=WARPS,
        )
        kernels.decide[(canvas,)](
            logits,
            temperatures,
            uniforms,
            self._partial,
            self._likeliest,
            self._summary,
            columns,
            row,
            self._softcap,
            vocabulary,
            self._slices,
            block=self._block,
            room=triton.next_power_of_2(self._slices),
            num_warps=DECIDING_WARPS,
        )
        kernels.weigh[grid](
            logits,
            temperatures,
            self._summary,
            chances,
            row,
            self._softcap,
            vocabulary,
            block=self._block,
            num_warps=WARPS,
        )
        self._mix(chances, self._mixture[:canvas])

    def _mix(self, chances: torch.Tensor, out: torch.Tensor) -> None:
        """A product whose sums stay in float32, over the whole vocabulary as they are."""
        if chances.device.type == "cuda" and chances.dtype != torch.float32:
            torch.mm(chances, self._embedding, out_dtype=torch.float32, out=out)
        else:
            # Torch has no such product for the CPU, where the interpreter runs.
            torch.mm(chances.float(), self._embedding.float(), out=out)

    def _give(
        self, row: int, fixed: torch.Tensor, tokens: torch.Tensor, soft: torch.Tensor
    ) -> None:
        """Soft embeddings of a row."""
        _, canvas, hidden = soft.shape
        block = min(COLUMNS, triton.next_power_of_2(hidden))
        kernels.blend[(triton.cdiv(hidden, block), canvas)](
            self._mixture,
            self._summary,
            self._embedding,
            self._scale,
            fixed,
            tokens,
            soft,
            row,
            hidden,
            block=block,
            num_warps=WARPS,
        )
