"""A model's hyperparameters, by the names that GGUF files give them.

With them the KV cache is known exactly before anything is downloaded (`gemd.footprint`). A key
that is not listed here would be read by nobody, so it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

_Count = Annotated[StrictInt, Field(ge=0, lt=1 << 63)]

Hyperparameter = (
    StrictBool | _Count | StrictFloat | StrictStr | tuple[StrictBool, ...] | tuple[_Count, ...]
)
"""A figure; or one per layer, first to last."""

GROUPS = ("experts", "attention", "dense", "embeddings", "vision", "other")
"""Parts of a diffusion model that a checkpoint may hold in element types of their own."""

HYPERPARAMETERS = frozenset(
    {
        "name",
        "block_count",
        "context_length",
        "embedding_length",
        "embedding_length_per_layer_input",
        "expert_count",
        "expert_feed_forward_length",
        "expert_used_count",
        "feed_forward_length",
        "final_logit_softcapping",
        "leading_dense_block_count",
        "vocab_size",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.key_length_swa",
        "attention.layer_norm_rms_epsilon",
        "attention.shared_kv_layers",
        "attention.sliding_window",
        "attention.sliding_window_pattern",
        "attention.value_length",
        "attention.value_length_swa",
        "rope.dimension_count",
        "rope.dimension_count_swa",
        "rope.freq_base",
        "rope.freq_base_swa",
        "rope.scaling.factor",
        "rope.scaling.type",
        # Of block diffusion only; no GGUF file has them.
        "canvas_length",
        *(f"parameters.{group}" for group in GROUPS),
    }
)
"""``name`` is GGUF's ``general.architecture``; the others lack that name's prefix.

``canvas_length`` is in tokens; ``parameters.…`` are counts of weights by group.
"""


def _told(value: object, check: ValidatorFunctionWrapHandler) -> Any:
    """One error instead of one for each kind of figure that the value is not."""
    try:
        return check(value)
    except ValidationError:
        why = (
            "is no figure: a number that is not negative, true, false, a text, "
            "or a list of whole numbers or of true and false"
        )
        if isinstance(value, Mapping):
            inner = next(iter(value), "…")
            why = f'is a table; a key with a dot in it has to be quoted: "….{inner}"'
        raise ValueError(why) from None


def _known(table: Mapping[str, Hyperparameter]) -> Mapping[str, Hyperparameter]:
    for key in table:
        if key not in HYPERPARAMETERS:
            raise PydanticCustomError(
                "unknown_key",
                "the key {key} is not known",
                {"key": key, "known": sorted(HYPERPARAMETERS)},
            )
    if table and not isinstance(table.get("name"), str):
        raise ValueError("name must say which architecture it is")
    return table


Architecture = Annotated[
    Mapping[str, Annotated[Hyperparameter, WrapValidator(_told)]], AfterValidator(_known)
]
"""A table of them; empty if nothing is known."""
