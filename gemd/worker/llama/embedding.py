"""Texts as vectors, from the last hidden states of a causal model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gemd import wire
from gemd.worker.llama.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gemd.worker.llama.tasks import Moment, Output


class Embedding(Task):
    """One vector per text, from the last hidden states."""

    needs_embeddings = True

    def __init__(
        self,
        request: wire.Embed,
        texts: Sequence[list[int]],
        *,
        pooling: wire.Pooling,
        deadline: float | None,
        arrived: float,
    ) -> None:
        super().__init__(request.request_id, deadline=deadline, arrived=arrived)
        self._pooling = pooling
        self._normalize = request.normalize
        self._open = list(texts)
        self._counts = tuple(len(text) for text in texts)
        self._vectors: list[tuple[float, ...]] = []
        self._sum: NDArray[np.float64] | None = None
        self._cut: int | None = None
        self.tokens = self._open[0]
        self.prompt_tokens = sum(self._counts)

    @property
    def prefix(self) -> list[int]:
        """Nothing: a cache holds keys and values, not hidden states."""
        return []

    def begin(self, cached: int, moment: Moment) -> None:
        """See `Task`; a request that was set aside reads its open text from the start."""
        super().begin(cached, moment)
        self._sum = None

    def wanted(self, start: int, stop: int) -> range:
        """Every position: llama.cpp puts all tokens of such a decode out anyway."""
        return range(start, stop)

    def take(self, outputs: Sequence[Output], moment: Moment) -> bool:
        """Add hidden states up; the last position completes a text."""
        for output in outputs:
            last = output.position == len(self.tokens) - 1
            if last or self._pooling == "mean":
                state = moment.context.embedding(output.batch_index).astype(np.float64)
                self._sum = state if self._sum is None else self._sum + state
            if last:
                assert self._sum is not None
                self._complete(self._sum)
                if not self._open:
                    moment.emit(
                        wire.Embeddings(
                            request_id=self.request_id,
                            vectors=tuple(self._vectors),
                            tokens=self._counts,
                        )
                    )
                    return True
        return False

    def _complete(self, total: NDArray[np.float64]) -> None:
        vector = total / (len(self.tokens) if self._pooling == "mean" else 1)
        if self._normalize:
            length = float(np.linalg.norm(vector))
            vector = vector / length if length else vector
        self._vectors.append(tuple(vector.tolist()))
        self._sum = None
        self._open.pop(0)
        if self._open:
            self.tokens = self._open[0]
            self._cut = 0

    def rewind(self) -> int | None:
        """Each text stands alone."""
        cut, self._cut = self._cut, None
        return cut
