"""What a prompt tells before a model has seen it: features, task, length, a prior. Pure."""

from gemd.routing.prompt.features import FEATURES, features_of
from gemd.routing.prompt.length import Length, expected_length
from gemd.routing.prompt.look import Look, look_at
from gemd.routing.prompt.prior import Prior, shipped_prior
from gemd.routing.prompt.task import Task, task_of
from gemd.routing.prompt.window import estimate_tokens, window

__all__ = [
    "FEATURES",
    "Length",
    "Look",
    "Prior",
    "Task",
    "estimate_tokens",
    "expected_length",
    "features_of",
    "look_at",
    "shipped_prior",
    "task_of",
    "window",
]
