"""The shape of a JSON document: its keys and types, without what they say."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any, Final

from tests.support.filled import KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

ANY: Final = "*"
"""Stands for each key of a map, whose keys are data."""
NOTHING: Final = "nothing"
"""The shape of what an empty list or map holds: it agrees with every other one."""


def shape(value: Any, *, maps: Iterable[str] = (), name: str = "") -> Any:
    """A document's shape: objects by key, lists by the one shape of their elements.

    Args:
        value: The document.
        maps: Keys whose objects are maps, besides those of messages that were filled for a test.
        name: The key that it stands under.

    Raises:
        ValueError: The elements of a list, or the values of a map, cannot be one shape.

    """
    if isinstance(value, dict):
        inner = {key: shape(each, maps=maps, name=key) for key, each in sorted(value.items())}
        if name in maps or (len(inner) == 1 and next(iter(inner)).startswith(KEY)):
            return {ANY: _merged(inner.values())}
        return inner
    if isinstance(value, list):
        return [_merged(shape(each, maps=maps, name=name) for each in value)]
    if value is None:
        return "null"
    for kind, called in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")):
        if isinstance(value, kind):
            return called
    raise TypeError(f"no JSON: {value!r}")


def _merged(shapes: Iterable[Any]) -> Any:
    """One shape that all of them are; keys that some lack end with a question mark."""
    merged: Any = None
    for each in shapes:
        merged = each if merged is None else _both(merged, each)
    return NOTHING if merged is None else merged


def _both(one: Any, other: Any) -> Any:
    if one == other:
        return one
    if isinstance(one, str) and isinstance(other, str):
        return " | ".join(sorted({*one.split(" | "), *other.split(" | ")}))
    if isinstance(one, list) and isinstance(other, list):
        if NOTHING in {str(one[0]), str(other[0])}:
            return one if other[0] == NOTHING else other
        return [_both(one[0], other[0])]
    if isinstance(one, dict) and isinstance(other, dict):
        return _both_objects(one, other)
    raise ValueError(f"no one shape: {one} and {other}")


def _both_objects(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in sorted({each.removesuffix("?") for each in (*one, *other)}):
        ours, theirs = (part.get(key, part.get(f"{key}?")) for part in (one, other))
        if ours is None or theirs is None or f"{key}?" in {*one, *other}:
            shown = ours if theirs is None else theirs if ours is None else _both(ours, theirs)
            found[f"{key}?"] = shown
        else:
            found[key] = _both(ours, theirs)
    return found


def settled(found: Any, known: Any) -> Any:
    """A shape with what is known of elsewhere in place of what is empty here."""
    if found == NOTHING and known is not None:
        return known
    if isinstance(found, list) and isinstance(known, list):
        return [settled(found[0], known[0])]
    if isinstance(found, dict) and isinstance(known, dict):
        return {key: settled(each, known.get(key)) for key, each in found.items()}
    return found


def written(found: Any) -> str:
    """A shape as it lies in a file, a key a line."""
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def difference(before: str, now: str, *, name: str) -> str:
    """What has changed, as a diff; empty if nothing has."""
    lines = difflib.unified_diff(
        before.splitlines(), now.splitlines(), f"{name} (committed)", f"{name} (now)", lineterm=""
    )
    return "\n".join(lines)
