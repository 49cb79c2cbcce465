"""How likely a draft is not good enough, from evidence; and learning that."""

from gemd.routing.risk.calibration import Calibration, Fitted, auroc, fit
from gemd.routing.risk.judge import BUDGET, HARM, Judge
from gemd.routing.risk.kept import KeptStates, Key
from gemd.routing.risk.labels import Label, Labels, Memory, Source
from gemd.routing.risk.likelihood import Likelihood
from gemd.routing.risk.shadow import (
    SHARE,
    Question,
    combine,
    compare,
    is_drawn,
    log_odds,
    p_true,
    p_true_prompt,
    pairwise,
)
from gemd.routing.risk.signals import SIGNALS, VERSION, Evidence, draft_signals, signals_of
from gemd.routing.risk.verdicts import Basis, Judgement, Report, State, Verdict

__all__ = [
    "BUDGET",
    "HARM",
    "SHARE",
    "SIGNALS",
    "VERSION",
    "Basis",
    "Calibration",
    "Evidence",
    "Fitted",
    "Judge",
    "Judgement",
    "KeptStates",
    "Key",
    "Label",
    "Labels",
    "Likelihood",
    "Memory",
    "Question",
    "Report",
    "Source",
    "State",
    "Verdict",
    "auroc",
    "combine",
    "compare",
    "draft_signals",
    "fit",
    "is_drawn",
    "log_odds",
    "p_true",
    "p_true_prompt",
    "pairwise",
    "signals_of",
]
