from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gemd.errors import (
    GemdError,
    InvalidRequestError,
    ModelNotFoundError,
    NotImplementedYetError,
    UnsupportedInputError,
)
from gemd.routing.request import Mode, Request, Tier
from gemd.routing.route import EMBEDDED, Candidate, Default, route
from gemd.wire import Prompt

TEXT = Prompt(text="x")
ROLES = {"small": ("default",), "large": ("strong",), "quick": ("fast",)}


def resolve(name: str) -> Candidate:
    """A catalogue of three."""
    if name not in ROLES:
        raise ModelNotFoundError(f"no {name}")
    return SimpleNamespace(id=name, roles=ROLES[name])


def decide(default: str = "small", **fields: Any) -> Any:
    """The route of a request with these fields."""
    request = Request(**({"prompt": TEXT} | fields))
    fallback = Default(resolve(default), "DEFAULT_MODEL", f"{default} is the default")
    return route(request, resolve=resolve, default=lambda: fallback)


def test_a_named_model_answers() -> None:
    """The client's word decides; tiers follow from the profile's roles."""
    found = decide(model="large")
    assert (found.model, found.tier, found.reason) == ("large", Tier.STRONG, "MODEL_NAMED")
    assert decide(model="quick").tier is Tier.FAST
    assert decide(model="small").tier is Tier.NONE


def test_without_a_wish_the_default_answers() -> None:
    """In every mode but exact, and the explanation says why modes make no difference."""
    for mode in (Mode.FAST, Mode.BALANCED, Mode.BEST):
        found = decide(mode=mode)
        assert (found.model, found.reason) == ("small", "DEFAULT_MODEL")
        assert "one tier only" in found.explanation


def test_a_default_says_why_it_is_one() -> None:
    """The embedded model is answered with for the time being; modes are no matter then."""
    for reason, modes in ((EMBEDDED, False), ("PLANNED_MODEL", True)):
        chosen = Default(resolve("small"), reason, "it is here")
        found = route(Request(prompt=TEXT), resolve=resolve, default=lambda: chosen)  # noqa: B023 -- called at once
        assert (found.model, found.reason) == ("small", reason)
        assert found.explanation.startswith("no model was named: it is here")
        assert ("one tier only" in found.explanation) is modes


def test_the_strong_tier_is_the_default_model() -> None:
    """There is only one tier to ask for."""
    assert decide(default="large", tier=Tier.STRONG).reason == "TIER_ASKED"


@pytest.mark.parametrize(
    "fields,kind,field",
    [
        ({"has_spans": True}, UnsupportedInputError, "spans"),
        ({"watch_canvas": True}, UnsupportedInputError, "watch_canvas"),
        ({"mode": Mode.EXACT}, NotImplementedYetError, "mode"),
        ({"mode": Mode.EXACT, "model": "large"}, NotImplementedYetError, "mode"),
        ({"tier": Tier.FAST}, NotImplementedYetError, "tier"),
        ({"candidates": 2}, NotImplementedYetError, "candidates"),
        ({"best_of": 2}, NotImplementedYetError, "best_of"),
        ({"prompt": Prompt(tokens=(1,))}, InvalidRequestError, "model"),
    ],
)
def test_what_is_not_there_is_refused(
    fields: dict[str, Any], kind: type[GemdError], field: str
) -> None:
    """Nothing is silently ignored; the error names the field and a reason."""
    with pytest.raises(kind) as caught:
        decide(**fields)
    assert caught.value.metadata["field"] == field
    assert caught.value.why


def test_an_unknown_model_is_said_to_be_unknown() -> None:
    """Routing passes the catalogue's error on."""
    with pytest.raises(ModelNotFoundError):
        decide(model="nobody")
