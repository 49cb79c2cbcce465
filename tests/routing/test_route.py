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
from gemd.wire import Prompt, Span

TEXT = Prompt(text="x")
ROLES = {"small": ("default",), "large": ("strong",), "quick": ("fast",)}
ENGINES = {"small": ("llama",), "large": ("llama",), "quick": ("diffusion", "diffusion")}
SPANS = (Span(text="a "), Span(free=True))


def resolve(name: str) -> Candidate:
    """A catalogue of three."""
    if name not in ROLES:
        raise ModelNotFoundError(f"no {name}")
    variants = [SimpleNamespace(engine=engine) for engine in ENGINES[name]]
    return SimpleNamespace(id=name, roles=ROLES[name], variants=variants)


def decide(default: str = "small", on_disk: tuple[str, ...] = (), **fields: Any) -> Any:
    """The route of a request with these fields, where these fast models are on disk."""
    request = Request(**({"prompt": TEXT} | fields))
    fallback = Default(resolve(default), "DEFAULT_MODEL", f"{default} is the default")
    return route(
        request,
        resolve=resolve,
        default=lambda: fallback,
        fast=lambda: [resolve(name) for name in on_disk],
    )


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
        assert "does not choose between tiers" in found.explanation


def test_a_default_says_why_it_is_one() -> None:
    """The embedded model is answered with for the time being; modes are no matter then."""
    for reason, modes in ((EMBEDDED, False), ("PLANNED_MODEL", True)):
        chosen = Default(resolve("small"), reason, "it is here")
        found = route(Request(prompt=TEXT), resolve=resolve, default=lambda: chosen, fast=list)  # noqa: B023 -- called at once
        assert (found.model, found.reason) == ("small", reason)
        assert found.explanation.startswith("no model was named: it is here")
        assert ("does not choose between tiers" in found.explanation) is modes


def test_the_strong_tier_is_the_default_model() -> None:
    """There is only one tier to ask for."""
    assert decide(default="large", tier=Tier.STRONG).reason == "TIER_ASKED"


@pytest.mark.parametrize(
    "fields,kind,field",
    [
        ({"spans": SPANS}, UnsupportedInputError, "spans"),
        ({"watch_canvas": True}, UnsupportedInputError, "watch_canvas"),
        ({"candidates": 2}, UnsupportedInputError, "candidates"),
        ({"spans": SPANS, "model": "large"}, UnsupportedInputError, "spans"),
        ({"watch_canvas": True, "model": "large"}, UnsupportedInputError, "watch_canvas"),
        ({"candidates": 64, "model": "large"}, UnsupportedInputError, "candidates"),
        ({"mode": Mode.EXACT}, NotImplementedYetError, "mode"),
        ({"mode": Mode.EXACT, "model": "large"}, NotImplementedYetError, "mode"),
        ({"tier": Tier.FAST}, ModelNotFoundError, "tier"),
        ({"tier": Tier.FAST, "on_disk": ("quick", "large")}, NotImplementedYetError, "tier"),
        ({"best_of": 2}, NotImplementedYetError, "best_of"),
        ({"best_of": 2, "model": "quick"}, NotImplementedYetError, "best_of"),
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


@pytest.mark.parametrize(
    "wish", [{"spans": SPANS}, {"watch_canvas": True}, {"candidates": 64}, {"thinking": True}]
)
def test_a_block_diffusion_model_takes_all_of_it(wish: dict[str, Any]) -> None:
    """Named, as the default, or as the fast tier."""
    assert decide(model="quick", **wish).model == "quick"
    assert decide(default="quick", **wish).model == "quick"
    assert decide(tier=Tier.FAST, on_disk=("quick",), **wish).model == "quick"


def test_thinking_is_for_every_model() -> None:
    """Whoever cannot reason ignores the wish, whether it is a yes or a no."""
    for thinking in (True, False):
        assert decide(model="large", thinking=thinking).model == "large"


def test_the_fast_tier_is_the_one_model_that_is_there() -> None:
    """One is no choice, so that it is taken; several wait for a version that chooses."""
    found = decide(tier=Tier.FAST, on_disk=("quick",))
    assert (found.model, found.tier, found.reason) == ("quick", Tier.FAST, "TIER_ASKED")
    with pytest.raises(ModelNotFoundError, match="no model of the fast tier is on disk"):
        decide(tier=Tier.FAST)
    with pytest.raises(NotImplementedYetError, match="there is quick, large"):
        decide(tier=Tier.FAST, on_disk=("quick", "large"))


def test_a_refused_wish_says_who_could() -> None:
    """What the model runs on, whether anybody named it, and the command with one that can."""
    with pytest.raises(UnsupportedInputError) as caught:
        decide(watch_canvas=True)
    assert caught.value.message == "small does not support watch_canvas"
    assert "no model was named, and small runs on llama" in caught.value.why
    assert caught.value.advice == ("gemctl list",)
    with pytest.raises(UnsupportedInputError) as caught:
        decide(model="large", spans=SPANS, on_disk=("quick",))
    assert "no model was named" not in caught.value.why
    assert caught.value.advice == ("gemctl run --model quick …",)
    assert caught.value.metadata == {"field": "spans", "model": "large", "engine": "llama"}


def test_a_model_of_both_kinds_is_not_refused_too_early() -> None:
    """Which of its variants runs is known to its worker, which has the last word."""
    both = [SimpleNamespace(engine="llama"), SimpleNamespace(engine="diffusion")]
    mixed = SimpleNamespace(id="mixed", roles=(), variants=both)
    request = Request(prompt=TEXT, model="mixed", watch_canvas=True)
    fallback = Default(mixed, "DEFAULT_MODEL", "it is here")
    found = route(request, resolve=lambda _: mixed, default=lambda: fallback, fast=list)
    assert found.model == "mixed"
