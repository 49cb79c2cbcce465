"""`gemctl run` without a prompt on a terminal: a conversation."""

from __future__ import annotations

from gemd.cli.chat.loop import converse as converse
