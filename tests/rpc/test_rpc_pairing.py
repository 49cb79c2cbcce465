"""Which models are the two tiers: settings, the disk and what is warm."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from gemd.catalog import Catalog
from gemd.config import Settings
from gemd.errors import ModelNotFoundError
from gemd.residency.states import Residence, State
from gemd.routing.speeds import Speeds
from gemd.rpc.library import Library
from gemd.rpc.pairing import Pairing, Wishes
from gemd.store import Store
from tests.support.app import profile
from tests.support.clock import Clock

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.routing.route import Pair

ORIGINS = {"fast_model": "GEMD_FAST_MODEL", "strong_model": "GEMD_STRONG_MODEL"}


def pairing(
    folder: Path,
    *,
    warm: tuple[str, ...] = (),
    clock: Clock | None = None,
    planned: str = "",
    **wishes: str,
) -> Pairing:
    """One of a catalogue with two tiers and two verifiers, with this planned fast model if any."""
    file = folder / "model.gguf"
    file.write_bytes(b"GGUF")
    away = folder / "away.gguf"
    away.write_bytes(b"GGUF")
    profiles = [
        profile(file, name="quick", roles=("fast",), quality=50),
        profile(file, name="large", roles=("strong",), quality=80),
        profile(file, name="small", roles=("verifier",), quality=5),
        profile(file, name="medium", roles=("verifier",), quality=9),
        profile(away, name="away", roles=("fast",), quality=60),
    ]
    away.unlink()
    library = Library(
        catalog=Catalog(profiles),
        store=Store(folder / "store"),
        settings=Settings(),
        threads=1,
        environ={},
    )

    def residence(model: str) -> Residence:
        return Residence(model, State.READY if model in warm else State.COLD)

    manager: Any = SimpleNamespace(
        time=clock or Clock(), residence=residence, gpus=(), pressures=list
    )

    def plan_of(role: str) -> Any:
        if role != "fast":
            return None
        candidate = SimpleNamespace(profile=library.resolve(planned))
        return SimpleNamespace(placed=SimpleNamespace(candidate=candidate))

    plan: Any = SimpleNamespace(of=plan_of) if planned else None
    chosen = {"fast": "quick", "strong": "large", "checker": "auto"} | wishes
    return Pairing(
        Wishes(**chosen, origins=ORIGINS),
        library=library,
        planned=lambda: plan,
        manager=manager,
        speeds=lambda: Speeds(lambda _: ""),
        on_battery=lambda: None,
    )


def names(pair: Pair) -> tuple[str, ...]:
    """Who drafts, who is strong, who checks."""
    return tuple("" if each is None else each.id for each in (pair.fast, pair.strong, pair.checker))


def test_the_settings_name_the_pair(tmp_path: Path) -> None:
    """The strong model checks, as long as no other is named."""
    assert names(pairing(tmp_path).pair()) == ("quick", "large", "large")
    assert names(pairing(tmp_path, checker="small").pair()) == ("quick", "large", "small")
    assert names(pairing(tmp_path, checker="none").pair()) == ("quick", "large", "")


def test_a_warm_verifier_checks_while_the_strong_model_is_cold(tmp_path: Path) -> None:
    """Of several the best one; the strong model as soon as it is warm."""
    assert pairing(tmp_path, warm=("small", "medium")).pair().checker.id == "medium"  # type: ignore[union-attr]
    assert pairing(tmp_path, warm=("medium", "large")).pair().checker.id == "large"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "fast,code", [("none", "SWITCHED_OFF"), ("large", "SAME_MODEL"), ("away", "NOT_ON_DISK")]
)
def test_why_nothing_is_drafted(tmp_path: Path, fast: str, code: str) -> None:
    """A model that drafts for itself would only lose time; one that is not there cannot."""
    pair = pairing(tmp_path, fast=fast).pair()
    assert (pair.fast, pair.checker, pair.off_reason) == (None, None, code)
    assert pair.off


def test_a_planned_drafter_that_a_setting_calls_strong_does_not_draft(tmp_path: Path) -> None:
    """Whoever made it both: it would draft for itself, and check its own drafts."""
    found = pairing(tmp_path, planned="quick", fast="auto", strong="quick").pair()
    assert (names(found), found.off_reason) == (("", "quick", ""), "SAME_MODEL")
    assert names(pairing(tmp_path, planned="quick", fast="auto").pair())[0] == "quick"


def test_no_model_checks_its_own_drafts(tmp_path: Path) -> None:
    """It finds them likely in any case."""
    assert names(pairing(tmp_path, checker="quick").pair()) == ("quick", "large", "")


def test_a_setting_that_names_nobody_is_blamed(tmp_path: Path) -> None:
    """The client named no model, and has to be told who did."""
    with pytest.raises(ModelNotFoundError) as caught:
        pairing(tmp_path, strong="nobody").pair()
    assert "GEMD_STRONG_MODEL sets strong_model" in caught.value.why
    assert caught.value.metadata["origin"] == "GEMD_STRONG_MODEL"


def test_a_look_counts_for_a_while(tmp_path: Path) -> None:
    """Requests come more often than files."""
    clock = Clock()
    here = pairing(tmp_path, clock=clock)
    assert here.pair().fast is not None
    (tmp_path / "model.gguf").unlink()
    assert here.pair().fast is not None
    clock.now += 2.0
    assert here.pair().off_reason == "NOT_ON_DISK"
