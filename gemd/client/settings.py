"""Defaults that the async and the sync client share."""

from __future__ import annotations

CLIENT_NAME = "gemd.client"

QUICK_SECONDS = 30.0
"""Deadline of calls that only look or note something."""

WORK_SECONDS = 600.0
"""Deadline of calls that answer once and may have to load a model first."""

EXPLAINED = 100
"""Decisions that are asked for unless a caller says how many."""
