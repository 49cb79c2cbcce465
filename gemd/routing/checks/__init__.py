"""What a draft's text tells of its quality; no model is asked, and nothing is done.

`faults` finds what is wrong, `closed` compares final answers, `accepted` says how much of a draft
may stay, `ranking` which of several is the best. DESIGN.md beside this file has the figures.
"""

from __future__ import annotations

from gemd.routing.checks.accepted import Accepted, accepted_prefix
from gemd.routing.checks.closed import Agreement, agreement, closed_answer, enough
from gemd.routing.checks.fault import CODES, Fault
from gemd.routing.checks.faults import find_faults
from gemd.routing.checks.ranking import Contender, Ranked, rank

__all__ = [
    "CODES",
    "Accepted",
    "Agreement",
    "Contender",
    "Fault",
    "Ranked",
    "accepted_prefix",
    "agreement",
    "closed_answer",
    "enough",
    "find_faults",
    "rank",
]
