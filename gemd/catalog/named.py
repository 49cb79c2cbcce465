"""A name that stands for whichever of several models suits the machine."""

from __future__ import annotations

from pydantic import Field, field_validator

from gemd.catalog.values import Id, Value


class NamedChoice(Value):
    """A name of the catalogue that is no model but a choice among some.

    Which one it means is settled by the daemon's plan for the machine (`Catalog.settle`).
    """

    id: str
    """As `values.ID_PATTERN`."""
    display_name: str = Field(min_length=1)
    choice: tuple[Id, ...] = Field(min_length=1)
    """Ids of profiles; the first is meant until a plan settled on another."""
    why: str = Field(min_length=1)
    """In one sentence, why the name is a choice."""

    @field_validator("choice")
    @classmethod
    def _differ(cls, ids: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(ids)) != len(ids):
            raise ValueError(f"models repeat: {', '.join(ids)}")
        return ids
