"""Ids of GPUs: one numbering for the sources of all vendors."""

from __future__ import annotations


class GpuIds:
    """Hands out ``gpu0``, ``gpu1``, … in the order in which GPUs are first seen."""

    def __init__(self) -> None:
        self._given = 0

    def new(self) -> str:
        """The next one; it is never given again."""
        number = self._given
        self._given += 1
        return f"gpu{number}"
