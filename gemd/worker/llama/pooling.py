"""How the vectors of a text's tokens become one: as asked, or as the model was made for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.errors import UnsupportedInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd import wire

_UNSAID: Final = frozenset({"", "0"})
"""No number, or llama.cpp's for «not pooled»: a model that writes texts, mostly."""

_KINDS: Final[Mapping[str, wire.Pooling]] = {"1": "mean", "3": "last"}
"""llama.cpp's numbers (`enum llama_pooling_type`) of what is done here."""

_OTHERS: Final[Mapping[str, str]] = {"2": "the first token's vector", "4": "a ranking head"}
"""Of what is not: a causal model's first token has read nothing but itself, and a ranking is no
vector of a text."""


def pooling_of(asked: wire.Pooling | None, made_for: str) -> wire.Pooling:
    """The pooling of one request.

    Args:
        asked: By the request; None leaves it to the model.
        made_for: What the file says, llama.cpp's number as text; empty if it says nothing.

    Returns:
        What was asked for; else what the model was made for, and the mean where that is not known.

    Raises:
        UnsupportedInputError: The model was made for another kind, and none was asked for.

    """
    if asked is not None:
        return asked
    if made_for in _UNSAID:
        return "mean"
    if made_for in _KINDS:
        return _KINDS[made_for]
    kind = _OTHERS.get(made_for, f"kind {made_for} of llama.cpp")
    raise UnsupportedInputError(
        "pooling has to be named with this model: mean or last",
        why=f"it was made for a pooling that gemd does not do: {kind}",
        metadata={"field": "pooling", "made_for": made_for},
    )
