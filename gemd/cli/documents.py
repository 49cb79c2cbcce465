"""Proto messages as the JSON documents that `--json` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message as Proto

    from gemd.client.decisions import Decision
    from gemd.client.leases import Lease
    from gemd.client.operations import Operation
    from gemd.client.resources import Device, Model
    from gemd.client.yielded import YieldedMemory


def document(message: Proto) -> dict[str, Any]:
    """A message under its proto field names, with every 64-bit integer as a number.

    Fields without presence are always there, so that readers need no defaults of their own.
    """
    from google.protobuf.json_format import MessageToDict

    content: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    _unquote(message, content)
    return content


def listing(
    name: str,
    resources: Sequence[Model | Device | Operation | Decision | Lease | YieldedMemory],
) -> dict[str, Any]:
    """Resources in a list under one name, as in the response of the list call."""
    return {name: [document(resource.raw) for resource in resources]}


def _unquote(message: Any, content: dict[str, Any]) -> None:
    """Turn the strings that proto3 JSON writes 64-bit integers as into numbers, in place."""
    for field in message.DESCRIPTOR.fields:
        value = content.get(field.name)
        if value is None:
            continue
        if field.type == field.TYPE_MESSAGE:
            _unquote_nested(field, getattr(message, field.name), value)
        elif field.cpp_type in {field.CPPTYPE_INT64, field.CPPTYPE_UINT64}:
            content[field.name] = (
                [int(one) for one in value] if isinstance(value, list) else int(value)
            )


def _unquote_nested(field: Any, inner: Any, value: Any) -> None:
    if field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        if entry.type == entry.TYPE_MESSAGE:
            for key in inner:
                _unquote(inner[key], value[str(key)])
    elif isinstance(value, list):
        for one, shown in zip(inner, value, strict=True):
            _unquote(one, shown)
    elif isinstance(value, dict):
        # Durations and times are strings by design and have nothing to unquote.
        _unquote(inner, value)
