"""Which variant a pull fetches where nobody names one: the plan's, and the daemon says why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gemd.catalog import Catalog, Profile
from gemd.config import Settings
from gemd.engine.builds.build import Build
from gemd.errors import BadModelFileError
from gemd.residency.decisions import DecisionKind
from gemd.rpc.advisor import Advisor
from gemd.rpc.variant_choice import choose_variant
from gemd.v1 import (
    daemon_service_pb2,
    decision_pb2,
    operation_service_pb2,
    store_service_pb2,
)
from tests.rpc.test_rpc_advisor import advisor, sample
from tests.rpc.test_rpc_placing import card
from tests.support.app import GIB, Running, serving
from tests.support.models import PROFILES
from tests.support.sensing import FakeSensor, Memory

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog.choice import Plan
    from gemd.hardware import DeviceReading

SHIPPED = Catalog.load(PROFILES).resolve("gemma4-e4b")


def largest_first() -> Profile:
    """A user's own profile: 7.5 GiB are preferred to 5.0, and those to 4.8."""
    return SHIPPED.model_copy(
        update={"id": "own", "variants": SHIPPED.variants[::-1], "checkpoint": None}
    )


async def planned(
    folder: Path, profile: Profile, *cards: DeviceReading, ram_budget: str = "50%"
) -> Plan:
    """What of it suits a machine with these cards, whose models may have so much main memory."""
    builds = [Build("llama", "cpu", "0.3.36"), Build("llama", "cuda", "0.3.36")]
    settings = Settings.model_validate({"offline": True, "ram_budget": ram_budget})
    made = advisor(folder, sample(*cards), settings, builds, Catalog([profile]))
    plan = await made.suits(profile)
    assert plan is not None
    return plan


@pytest.mark.parametrize("budget,taken", [("24GiB", "q8_0"), ("8GiB", "q4_k_m")])
async def test_the_first_that_fits_is_fetched(tmp_path: Path, budget: str, taken: str) -> None:
    """Where there is no room for the preferred one it is another one, and the numbers say why."""
    profile = largest_first()
    plan = await planned(tmp_path, profile, ram_budget=budget)
    variant, decision = choose_variant(profile, plan, now=3.0)
    assert variant.id == taken == plan.models[0].placed.candidate.variant.id
    assert decision is not None
    assert (decision.kind, decision.model, decision.time) == (DecisionKind.VARIANT, "own", 3.0)
    assert decision.summary.startswith(f"{taken} of own is fetched: ")
    assert "first of its variants that fits" in decision.summary
    assert decision.reasons[0].metadata["variant"] == taken
    left = {each.subject: each.reason for each in decision.alternatives}
    assert set(left) == {"q8_0", "q4_k_m", "qat-q4_0"} - {taken}
    if taken != "q8_0":
        assert left["q8_0"].metadata["needed_bytes"]


async def test_where_none_fits_it_is_the_first(tmp_path: Path) -> None:
    """And said so: the store may be there for another machine."""
    plan = await planned(tmp_path, SHIPPED, ram_budget="1GiB")
    variant, decision = choose_variant(SHIPPED, plan, now=0.0)
    assert decision is not None
    assert (variant, decision.reasons[0].code) == (SHIPPED.variants[0], "NONE_FITS")
    assert {each.reason.code for each in decision.alternatives} == {"TOO_LARGE"}
    assert len(decision.alternatives) == len(SHIPPED.variants) - 1


async def test_what_nothing_tells_the_size_of_is_not_said_to_be_too_large(tmp_path: Path) -> None:
    """Its header may, once it is here."""
    profile = SHIPPED.model_copy(update={"architecture": {}})
    plan = await planned(tmp_path, profile)
    variant, decision = choose_variant(profile, plan, now=0.0)
    assert decision is not None
    assert (variant, decision.reasons[0].code) == (SHIPPED.variants[0], "SIZE_UNKNOWN")


def test_of_an_unseen_machine_nothing_is_claimed() -> None:
    """The profile's first is fetched."""
    variant, decision = choose_variant(SHIPPED, None, now=0.0)
    assert decision is not None
    assert (variant, decision.reasons[0].code) == (SHIPPED.variants[0], "MACHINE_UNKNOWN")
    assert decision.alternatives == ()


async def test_what_can_only_be_made_here_is_not_fetched(tmp_path: Path) -> None:
    """Although it stands first and would fit; with one other variant there is no choice."""
    shipped = Catalog.load(PROFILES).resolve("diffusiongemma-26b-a4b")
    made = next(each for each in shipped.variants if not each.pullable)
    others = tuple(each for each in shipped.variants if each.pullable)
    profile = shipped.model_copy(update={"variants": (made, *others)})
    plan = await planned(tmp_path, profile, card(80))
    variant, decision = choose_variant(profile, plan, now=0.0)
    assert (variant.id, decision is None) == (others[0].id, False)
    alone = shipped.model_copy(update={"variants": (made, others[0])})
    assert choose_variant(alone, plan, now=0.0) == (others[0], None)


async def test_instead_of_what_is_made_here_the_next_that_fits_is_fetched(tmp_path: Path) -> None:
    """The plan takes the one to be made; of 51 GB and 18 a card of 32 GiB has room for these."""
    shipped = Catalog.load(PROFILES).resolve("diffusiongemma-26b-a4b")
    by_id = {each.id: each for each in shipped.variants}
    variants = tuple(by_id[each] for each in ("nvfp4-local", "bf16", "nvfp4-redhat"))
    profile = shipped.model_copy(update={"variants": variants})
    plan = await planned(tmp_path, profile, card(32))
    assert [each.candidate.variant.id for each in plan.verdicts if each.chosen] == ["nvfp4-local"]
    variant, _ = choose_variant(profile, plan, now=0.0)
    assert variant.id == "nvfp4-redhat"


async def test_what_the_plan_takes_goes_before_what_fits_as_well(tmp_path: Path) -> None:
    """Whatever its reason: a pull and a plan must not differ."""
    plan = await planned(tmp_path, SHIPPED, card(24))
    last = SHIPPED.variants[-1]
    verdicts = tuple(
        replace(each, chosen=each.candidate.variant.id == last.id) for each in plan.verdicts
    )
    variant, _ = choose_variant(SHIPPED, replace(plan, verdicts=verdicts), now=0.0)
    assert variant is last


async def begun(running: Running, variant: str = "") -> str:
    """The variant of a pull that nobody can serve, once it has failed."""
    request = store_service_pb2.PullModelRequest(model="own", variant=variant)
    operation = (await running.store.PullModel(request)).operation
    watch = operation_service_pb2.WatchOperationRequest(name=operation.name)
    assert [one async for one in running.operations.WatchOperation(watch)]
    return operation.variant


async def test_a_pull_without_a_variant_fetches_the_one_that_suits() -> None:
    """And `Explain` tells why; a pull that names one decides nothing."""
    ask = daemon_service_pb2.ExplainRequest(kinds=[decision_pb2.Decision.KIND_VARIANT])
    async with serving(
        catalog=lambda _: [largest_first()],
        default_model="own",
        # What a browser holds at the moment says nothing about which file to keep.
        sensor=FakeSensor({"cpu": Memory(16 * GIB, others=13 * GIB)}),
        ram_budget="8GiB",
        offline=True,
    ) as running:
        assert await begun(running, "q8_0") == "q8_0"
        assert not (await running.daemon.Explain(ask)).decisions
        assert await begun(running) == "q4_k_m"
        [decision] = (await running.daemon.Explain(ask)).decisions
    assert decision.model == "models/own"
    assert decision.summary.startswith("q4_k_m of own is fetched: ")
    assert {each.subject for each in decision.alternatives} == {"q8_0", "qat-q4_0"}


async def test_what_keeps_a_plan_from_being_made_keeps_no_pull(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A damaged file may be what it mends."""

    async def damaged(*_: object) -> Plan | None:
        raise BadModelFileError("the header is damaged", metadata={"model": "own"})

    monkeypatch.setattr(Advisor, "suits", damaged)
    async with serving(
        catalog=lambda _: [largest_first()], default_model="own", offline=True
    ) as running:
        assert await begun(running) == largest_first().variants[0].id
