"""The sequences of the KV cache: who uses them, and what they keep for whom.

Everything here leaves llama.cpp's cells and our record of them in agreement; what is
best is decided in `prefix`, and what has no room goes to the prompt cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.errors import EngineStartFailedError
from gemd.worker.llama.prefix import WORTH_COPYING, CachedSequence, Placement, place
from gemd.worker.llama.prompt_cache import PromptCache, SavedSequence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gemd.worker.llama.binding import Context, Model
    from gemd.worker.llama.tasks import Task


@dataclass(eq=False)
class KVSequence:
    """One sequence of the KV cache.

    Attributes:
        index: llama.cpp's sequence id.
        tokens: Evaluated tokens, positions 0..n-1.
        task: Who uses it; None while it only keeps what a prompt may continue.
        last_used: When its last request ended, clock reading in seconds.

    """

    index: int
    tokens: list[int] = field(default_factory=list)
    task: Task | None = None
    last_used: float = 0.0


class Sequences:
    """All sequences of one context.

    Args:
        model: Says how far back a sequence may be cut.
        context: Holds the cells.
        count: How many there are.
        prompt_cache: Takes what is idle.

    """

    def __init__(
        self, model: Model, context: Context, *, count: int, prompt_cache: PromptCache
    ) -> None:
        self._model = model
        self._context = context
        self._prompt_cache = prompt_cache
        self._all = [KVSequence(index) for index in range(count)]

    def __iter__(self) -> Iterator[KVSequence]:
        return iter(self._all)

    def running(self) -> list[tuple[KVSequence, Task]]:
        """Those that are used, with their users."""
        return [(s, s.task) for s in self._all if s.task is not None]

    def any_running(self) -> bool:
        """Whether one is used."""
        return any(s.task is not None for s in self._all)

    def cached_tokens(self) -> int:
        """Evaluated tokens in all of them; shared ones count for each."""
        return sum(len(s.tokens) for s in self._all)

    def place(self, prompt: Sequence[int]) -> Placement | None:
        """The best place for a prompt; None while all are in use."""
        saved = [
            CachedSequence(i, s.tokens, False, s.last_used, s.first_position)
            for i, s in enumerate(self._prompt_cache)
        ]
        return place(prompt, [self._seen(s) for s in self._all], self._can_keep, saved)

    def shared_tokens(self, placement: Placement) -> int:
        """Tokens at this place whose cells are held by a running sequence already."""
        if placement.source is None or placement.saved:
            return 0
        return placement.keep if self._all[placement.source].task is not None else 0

    def prepare(self, placement: Placement) -> KVSequence:
        """Put the kept tokens in place, and save whatever else is idle.

        Returns:
            The target; it holds the placement's `keep` tokens, or none where the cells
            for them could not be had.

        """
        saved = list(self._prompt_cache)
        target = self._all[placement.target]
        source = None
        if placement.source is not None and not placement.saved:
            source = self._all[placement.source]
        for sequence in self._all:
            if sequence.task is None and sequence is not source:
                self.save(sequence)
        if source is target and len(target.tokens) - placement.keep >= WORTH_COPYING:
            # The prompt leaves this history early, and there was no other place for it.
            self._copy_out(target)
        self.cut(target, placement.keep if source is target else 0)
        if placement.source is not None and placement.saved:
            self._restore(target, saved[placement.source], placement.keep)
        elif source is not None and source is not target:
            self._context.copy(source.index, target.index, placement.keep)
            target.tokens = source.tokens[: placement.keep]
            if source.task is None:
                self.save(source)
        return target

    def resize(self, context_tokens: int, *, prompt_cache_bytes: int) -> None:
        """Make the KV cache anew, and save what is in it as far as it can be brought back.

        No sequence may be in use.

        Raises:
            EngineStartFailedError: There is no memory for it. Both caches have the size
                they had; what the prompt cache could not keep is gone.
            EngineCrashedError: There is no KV cache any more.

        """
        assert not self.any_running()
        limit_before = self._prompt_cache.limit_bytes
        longest = context_tokens if self._stays_readable(context_tokens) else 0
        self._prompt_cache.forget_longer(longest)
        self._prompt_cache.limit_bytes = prompt_cache_bytes
        for sequence in self._all:
            if len(sequence.tokens) <= longest:
                self.save(sequence)
            sequence.tokens.clear()
        try:
            self._context.resize(context_tokens)
        except EngineStartFailedError:
            self._prompt_cache.limit_bytes = limit_before
            raise

    def _stays_readable(self, context_tokens: int) -> bool:
        """Whether cells of this context mean the same in one of another size."""
        switch = self._model.rope_switch_tokens
        return not switch or (self._context.tokens > switch) == (context_tokens > switch)

    def save(self, sequence: KVSequence) -> None:
        """Move a sequence's cells into the prompt cache, if it takes them."""
        if sequence.tokens and self._copy_out(sequence):
            self.cut(sequence, 0)

    def _copy_out(self, sequence: KVSequence) -> bool:
        """Put a copy into the prompt cache if it is worth one; False if it has no room."""
        if not self._prompt_cache.takes(self._context.state_bytes(sequence.index)):
            return False
        if len(sequence.tokens) >= WORTH_COPYING:
            self._prompt_cache.put(
                SavedSequence(
                    list(sequence.tokens),
                    self._context.save(sequence.index),
                    self._context.first_position(sequence.index),
                    sequence.last_used,
                )
            )
        return True

    def free_oldest_idle(self) -> bool:
        """Free the cells of the longest unused one; False if none is idle."""
        idle = [s for s in self._all if s.task is None and s.tokens]
        if not idle:
            return False
        oldest = min(idle, key=lambda s: s.last_used)
        self.save(oldest)
        self.cut(oldest, 0)
        return True

    def rewind(self, sequence: KVSequence, keep: int) -> None:
        """Cut a running sequence back to its first `keep` tokens, or to none if it cannot be."""
        if keep and not self._can_keep(self._seen(sequence), keep):
            keep = 0
        self.cut(sequence, keep)

    def cut(self, sequence: KVSequence, keep: int) -> None:
        """Keep the first `keep` positions, or none where the memory cannot do that."""
        if len(sequence.tokens) > keep and not self._context.cut(sequence.index, keep):
            self._context.cut(sequence.index, 0)
            keep = 0
        del sequence.tokens[keep:]

    def _restore(self, target: KVSequence, saved: SavedSequence, keep: int) -> None:
        """Bring a saved sequence back, as far as the prompt begins like it."""
        held = sum(len(task.tokens) for _, task in self.running())
        if held + len(saved.tokens) > self._context.tokens:
            return
        if not self._context.restore(target.index, saved.state):
            return
        target.tokens = list(saved.tokens)
        if len(saved.tokens) - keep < WORTH_COPYING:
            # The prompt goes on from it; a history that it leaves early stays for its own.
            self._prompt_cache.remove(saved)
        self.cut(target, keep)

    def _seen(self, sequence: KVSequence) -> CachedSequence:
        return CachedSequence(
            sequence.index,
            sequence.tokens,
            sequence.task is not None,
            sequence.last_used,
            self._context.first_position(sequence.index),
        )

    def _can_keep(self, cached: CachedSequence, keep: int) -> bool:
        """Whether the first `keep` positions can still be attended to.

        A layer with a sliding window overwrites cells that have left it. llama.cpp
        agrees to a cut whose window reaches into them and decodes on in silence, with
        wrong answers; so look at the oldest position that every layer still holds.
        """
        if self._model.has_state:
            return keep == len(cached.tokens)
        return 0 <= cached.first_position <= max(0, keep - self._model.sliding_window)
