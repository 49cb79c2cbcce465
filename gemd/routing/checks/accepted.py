"""How much of a draft the strong model can go on from.

Typical acceptance (Medusa, arXiv 2401.10774, section 3.3.1): a token passes if the model gives it
at least ``min(eps, delta * exp(-H))``, where H is the entropy of its distribution there. Where the
model is open many words will do, and the bar is low; where it is sure only its own will.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.routing.checks.text import sentence_ends

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd import wire

EPSILON: Final = 0.09
DELTA: Final = 0.3
"""The paper has the square root of epsilon."""

_FOLLOWERS: Final = 4
"""Accepted tokens that must follow a forgiven one."""
_LAYOUT: Final = frozenset(" \t\n,;:.!?\"'“”‘’«»*_`#")
_FENCE: Final = re.compile(r"^ {0,12}(?:`{3,}|~{3,})", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The part of a draft that may stay, from its beginning.

    Attributes:
        tokens: How many of its tokens that are.
        text: Their text.
        share: Of all tokens of the draft, 0..1.
        first_rejected: The first token that the model would not have written; None if it would
            have written all of them.

    """

    tokens: int
    text: str
    share: float
    first_rejected: int | None


def passes(token: wire.TokenLogprob, *, epsilon: float = EPSILON, delta: float = DELTA) -> bool:
    """Whether the model might have written it there: its first choice, or likely enough."""
    if token.rank == 0:
        return True
    if math.isnan(token.logprob) or math.isnan(token.entropy):
        return False
    return math.exp(min(0.0, token.logprob)) >= min(epsilon, delta * math.exp(-token.entropy))


def accepted_prefix(
    tokens: Sequence[wire.TokenLogprob], *, epsilon: float = EPSILON, delta: float = DELTA
) -> Accepted:
    """The accepted beginning of a draft, cut back to the end of a sentence or a line.

    One miss is forgiven where it is layout (spaces, quotation marks, a comma), not between digits,
    and the next four tokens pass: after it the two agree again. A miss in a word or a number never
    is. The model writes on consistently from a wrong figure, and passing there proves nothing.

    A cut lies between tokens, at complete characters; inside a code block only at a line's end.
    Nothing is cut off a draft that was accepted to its end.

    Args:
        tokens: The draft's, scored behind its prompt, without control tokens.
        epsilon: The hard bar.
        delta: What the bar is multiplied by where the model is sure.

    """
    passed = [passes(each, epsilon=epsilon, delta=delta) for each in tokens]
    rejected = None
    forgiven = False
    for index, good in enumerate(passed):
        if good:
            continue
        if forgiven or not _forgivable(tokens, passed, index):
            rejected = index
            break
        forgiven = True
    run = len(tokens) if rejected is None else rejected
    kept = run if rejected is None else _boundary(tokens, run)
    text = b"".join(each.piece for each in tokens[:kept]).decode("utf-8", errors="ignore")
    share = kept / len(tokens) if tokens else 0.0
    return Accepted(kept, text, share, rejected)


def _forgivable(tokens: Sequence[wire.TokenLogprob], passed: Sequence[bool], index: int) -> bool:
    piece = tokens[index].piece.decode("utf-8", errors="replace")
    after = passed[index + 1 : index + 1 + _FOLLOWERS]
    if not piece or not set(piece) <= _LAYOUT or len(after) < _FOLLOWERS or not all(after):
        return False
    before = tokens[index - 1].piece[-1:] if index else b""
    return not (before.isdigit() and tokens[index + 1].piece[:1].isdigit())


def _boundary(tokens: Sequence[wire.TokenLogprob], run: int) -> int:
    """The greatest number of tokens up to `run` behind which a sentence or a line ends."""
    whole = b"".join(each.piece for each in tokens[: run + 1])
    # Offsets of bytes, so that a cut inside a character is seen.
    text = whole.decode("utf-8", errors="ignore")
    ends = {len(text[:end].encode()) for end in sentence_ends(text)}
    lines = {match.end() for match in re.finditer(rb"\n", whole)}
    fences = [len(text[: match.start()].encode()) for match in _FENCE.finditer(text)]
    at = sum(len(each.piece) for each in tokens[:run])
    for count in range(run, 0, -1):
        fenced = sum(fence < at for fence in fences) % 2 == 1
        if at in lines or (at in ends and not fenced):
            return count
        at -= len(tokens[count - 1].piece)
    return 0
