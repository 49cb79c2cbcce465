"""Who answers where a wish or a setting settles it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gemd.errors import (
    GemdError,
    InvalidRequestError,
    ModelNotFoundError,
    UnsupportedInputError,
)
from gemd.routing.request import Mode, Request, Tier
from gemd.routing.route import EMBEDDED, Candidate, Default, Pair, route
from gemd.wire import Prompt, Span

TEXT = Prompt(text="x")
ROLES = {"small": ("default",), "large": ("strong",), "quick": ("fast",), "better": ("fast",)}
ENGINES = {
    "small": ("llama",),
    "large": ("llama",),
    "quick": ("diffusion", "diffusion"),
    "better": ("diffusion",),
}
QUALITY = {"small": 2, "large": 40, "quick": 20, "better": 30}
SPANS = (Span(text="a "), Span(free=True))


def resolve(name: str) -> Candidate:
    """A catalogue of four."""
    if name not in ROLES:
        raise ModelNotFoundError(f"no {name}")
    variants = [SimpleNamespace(engine=engine) for engine in ENGINES[name]]
    return SimpleNamespace(id=name, quality=QUALITY[name], roles=ROLES[name], variants=variants)


def settled(
    default: str = "small",
    on_disk: tuple[str, ...] = (),
    pair: Pair | None = None,
    reason: str = "PLANNED_MODEL",
    **fields: Any,
) -> Any:
    """The route of a request with these fields, where these fast models are on disk."""
    request = Request(**({"prompt": TEXT} | fields))
    fallback = Default(resolve(default), reason, f"{default} is the default")
    tiers = pair or Pair(off_reason="NOT_PLANNED", off="no fast model suits this machine")
    return route(
        request,
        resolve=resolve,
        default=lambda: fallback,
        fast=lambda: [resolve(name) for name in on_disk],
        pair=lambda: tiers,
    )


def both(checker: str | None = "large") -> Pair:
    """Two tiers."""
    return Pair(
        fast=resolve("quick"),
        strong=resolve("large"),
        checker=None if checker is None else resolve(checker),
    )


def test_a_named_model_answers() -> None:
    """The client's word decides, whatever pair there is; tiers follow from the profile's roles."""
    found = settled(model="large", pair=both())
    assert (found.model, found.tier, found.reason) == ("large", Tier.STRONG, "MODEL_NAMED")
    assert settled(model="quick").tier is Tier.FAST
    assert settled(model="small").tier is Tier.NONE


def test_without_a_pair_the_default_answers_and_says_why_nothing_is_drafted() -> None:
    """In every mode; its own answer is exact in any case."""
    for mode in Mode:
        found = settled(mode=mode)
        assert (found.model, found.reason) == ("small", "PLANNED_MODEL")
        assert "nothing is drafted: no fast model suits this machine" in found.explanation


def test_the_embedded_model_says_only_what_would_do_better() -> None:
    """It answers for want of a model, so tiers are no matter."""
    found = settled(reason=EMBEDDED)
    assert found.reason == EMBEDDED
    assert found.explanation == "no model was named: small is the default"


def test_two_tiers_are_weighed() -> None:
    """Nothing settles it then, in any mode."""
    assert [settled(pair=both(), mode=mode) for mode in Mode] == [None] * len(Mode)


def test_a_default_of_the_settings_answers_everything() -> None:
    """Who names a default model wants that one, whatever pair there is."""
    found = settled(pair=both(), reason="DEFAULT_MODEL")
    assert (found.model, found.reason) == ("small", "DEFAULT_MODEL")


def test_the_fast_tier_answers_alone_where_no_strong_model_is_on_disk() -> None:
    """It is better than the embedded model."""
    found = settled(pair=Pair(fast=resolve("quick")))
    assert (found.model, found.tier, found.reason) == ("quick", Tier.FAST, "ONLY_TIER")


def test_a_tier_is_answered_by_its_model_of_the_pair() -> None:
    """And without a pair by the default, or by the best fast model on disk."""
    fast = settled(tier=Tier.FAST, pair=both(), on_disk=("quick", "better"))
    strong = settled(tier=Tier.STRONG, pair=both())
    assert (fast.model, strong.model) == ("quick", "large")
    assert {fast.reason, strong.reason} == {"TIER_ASKED"}
    assert settled(tier=Tier.FAST, on_disk=("quick", "better")).model == "better"
    assert settled(default="large", tier=Tier.STRONG).model == "large"


def test_exact_is_of_the_strong_tier() -> None:
    """A strong model that is asked for by name or tier is weighed, because a draft may help it."""
    assert settled(mode=Mode.EXACT, model="large", pair=both()) is None
    assert settled(mode=Mode.EXACT, tier=Tier.STRONG, pair=both()) is None
    assert settled(mode=Mode.EXACT, model="small", pair=both()).reason == "MODEL_NAMED"
    with pytest.raises(InvalidRequestError) as caught:
        settled(mode=Mode.EXACT, tier=Tier.FAST, pair=both())
    assert caught.value.metadata["field"] == "mode"


@pytest.mark.parametrize("wish", [{"spans": SPANS}, {"best_of": 2}, {"watch_canvas": True}])
def test_exact_does_not_go_with_what_the_fast_tier_alone_does(wish: dict[str, Any]) -> None:
    """Else the answer would be another model's than the one that was asked for."""
    with pytest.raises(InvalidRequestError) as caught:
        settled(mode=Mode.EXACT, pair=both(), **wish)
    assert caught.value.metadata["field"] == "mode"


def test_exact_is_not_answered_by_a_fast_tier_that_is_alone() -> None:
    """It is left to `decide`, which refuses it and says what to pull."""
    assert settled(mode=Mode.EXACT, pair=Pair(fast=resolve("quick"))) is None


def test_where_nothing_is_to_be_written_nothing_is_drafted() -> None:
    """The strong model reads the prompt, and has it in its cache."""
    found = settled(pair=both(), sampling={"max_tokens": 0})
    assert (found.model, found.reason) == ("large", "NOTHING_TO_WRITE")


@pytest.mark.parametrize(
    "wish,field",
    [
        ({"spans": SPANS}, "spans"),
        ({"watch_canvas": True}, "watch_canvas"),
        ({"candidates": 2}, "candidates"),
        ({"best_of": 2}, "best_of"),
    ],
)
def test_what_needs_a_canvas_goes_to_the_fast_model(wish: dict[str, Any], field: str) -> None:
    """Where there is none, or another model was named, it is refused with the field's name."""
    found = settled(pair=both(), **wish)
    assert (found.model, found.reason) == ("quick", "CANVAS_ASKED")
    for target in ({}, {"model": "large"}, {"tier": Tier.STRONG}):
        with pytest.raises(UnsupportedInputError) as caught:
            settled(on_disk=("quick",), **wish, **target)
        assert caught.value.metadata["field"] == field
        assert caught.value.advice == ("gemctl run --model quick …",)
    assert settled(model="quick", **wish).model == "quick"


@pytest.mark.parametrize(
    "fields,kind,field",
    [
        ({"prompt": Prompt(tokens=(1,))}, InvalidRequestError, "model"),
        ({"tier": Tier.FAST}, ModelNotFoundError, "tier"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    fields: dict[str, Any], kind: type[GemdError], field: str
) -> None:
    """With the field that asks for it."""
    with pytest.raises(kind) as caught:
        settled(**fields)
    assert caught.value.metadata["field"] == field
