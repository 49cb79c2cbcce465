"""A plan for this machine says what a load does: where the weights go, and what computes."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import pytest

from gemd.catalog import Catalog, HubSource, LocalSource, Profile, Variant
from gemd.catalog.choice import (
    Candidate,
    Engines,
    GgufSized,
    Limits,
    Question,
    Wishes,
    choose,
    memory_of,
)
from gemd.config import Settings
from gemd.engine.builds.build import Build
from gemd.errors import CpuConsentNeededError, InvalidRequestError
from gemd.footprint import gguf_shape, read_gguf_header
from gemd.footprint.shape import profile_shape
from gemd.hardware import RAM, Cpu, DeviceKind, Sample, inventory_of
from gemd.rpc.advisor import Advisor
from gemd.rpc.convert.plans import Ask
from gemd.rpc.engine_figures import EngineFigures
from gemd.rpc.headers import Headers
from gemd.rpc.library import Library
from gemd.rpc.placing import Placer
from gemd.rpc.planned_engines import SHIPPED
from gemd.store import Store, Transport
from gemd.store.look import Looks
from tests.rpc.test_rpc_placing import GIB, card
from tests.support.gemma4_files import architecture_of, write_header_only
from tests.support.hub_server import SparseHub
from tests.support.models import PROFILES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gemd.hardware import DeviceReading

CPU = Cpu("Test CPU", 8, frozenset())
CONTEXT = 8192


def sample(*cards: DeviceReading) -> Sample:
    """A machine with these cards and 64 GiB."""
    ram = card(
        64, RAM, kind=DeviceKind.CPU, vendor="other", backends=(), bandwidth_bytes_per_s=5 * 10**10
    )
    return Sample(0.0, 0.0, (*cards, ram))


def advisor(
    folder: Path,
    seen: Sample,
    settings: Settings,
    builds: Sequence[Build],
    catalog: Catalog,
    *,
    hub: str = "",
) -> Advisor:
    """One that sees this machine."""
    made = Advisor(
        library=Library(
            catalog=catalog,
            store=Store(folder / "store"),
            settings=settings,
            threads=1,
            environ={},
        ),
        settings=settings,
        cpu=CPU,
        profiles=folder,
        builds=lambda: builds,
        headers=Headers(Looks(folder / "headers", Transport(hub_endpoint=hub))),
        figures=EngineFigures({}, lambda: builds),
        factors=lambda *_: {},
    )

    async def look() -> Sample:
        return seen

    made.look_with(look)
    return made


@pytest.mark.parametrize("size_gib", [3, 6, 12, 24])
@pytest.mark.parametrize(
    "setting,installed",
    [
        ("auto", ("cpu", "cuda")),
        ("auto", ("cpu", "vulkan")),
        ("auto", ("cuda",)),
        ("vulkan", ("cpu", "cuda", "vulkan")),
        ("cpu", ("cpu", "cuda")),
        ("cpu", ("cuda",)),
    ],
)
@pytest.mark.parametrize("model", ["gemma4-12b", "gemma4-26b-a4b", "smollm2-135m"])
async def test_a_load_goes_where_the_plan_says(
    tmp_path: Path, model: str, setting: str, installed: tuple[str, ...], size_gib: int
) -> None:
    """By settings and installed engines: device, backend, placement, requests; nothing to do."""
    settings = Settings.model_validate({"engine_backend": setting, "offline": True})
    builds = [Build("llama", backend, "0.3.36") for backend in installed]
    seen = sample(card(size_gib))
    catalog = Catalog.load(PROFILES)
    advice = await advisor(tmp_path, seen, settings, builds, catalog).plan(
        Ask(model=model, context_tokens=CONTEXT)
    )
    [planned] = advice.plan.models
    placed = planned.placed
    profile, variant = placed.candidate.profile, placed.candidate.variant
    assert variant.weights is not None
    placer = Placer(
        settings=settings, cpu=CPU, builds=lambda: builds, sample=lambda: seen, simulated=False
    )
    spot = placer.spot(
        profile,
        variant,
        profile_shape(profile.architecture, variant.weights.model_dump()),
        context=placed.context_tokens,
    )
    assert spot.gpu == ("" if placed.gpu is None else placed.gpu.device)
    assert (spot.placement, spot.sequences) == (placed.placement, placed.sequences)
    assert placed.backend == (spot.backend if spot.gpu else "cpu")
    assert not advice.plan.needs_cpu_consent
    assert "ENGINE_MISSING" not in {each.code for each in planned.reasons}


@pytest.mark.parametrize(
    "kind,backend", [("discrete", "cuda"), ("unified", "cuda"), ("unified", "metal")]
)
async def test_a_load_is_booked_with_what_the_plan_says(
    tmp_path: Path, kind: str, backend: str
) -> None:
    """At its peak, on each device; what was measured of this very file is asked for."""
    file = tmp_path / "own.gguf"
    write_header_only(file, architecture_of("gemma4-e2b"), "gemma4-e2b")
    settings, builds = Settings(context_tokens=4096), [Build("llama", backend, "0.3.36")]
    where = DeviceKind.UNIFIED if kind == "unified" else DeviceKind.DISCRETE_GPU
    seen, asked = sample(card(40, kind=where, backends=(backend,))), []

    def factors(model: str, name: str) -> dict[str, float]:
        asked.append((model, name))
        return {}

    placer = Placer(
        settings=settings,
        cpu=CPU,
        builds=lambda: builds,
        sample=lambda: seen,
        simulated=False,
        factors=factors,
    )
    library = Library(
        catalog=Catalog([]),
        store=Store(tmp_path / "store"),
        settings=settings,
        threads=1,
        environ={},
        placer=placer,
    )
    located = await library.locate(str(file))
    assert asked == [(located.spec.model, "own.gguf")]
    profile = library.resolve(str(file))
    machine = inventory_of(seen, CPU)
    sized = GgufSized(gguf_shape(read_gguf_header(file)), 1.0, settings.prompt_cache)
    question = Question(
        machine,
        memory_of(machine, Limits()),
        [Candidate(profile, profile.variants[0], sized)],
        Wishes(name=profile.id, models=frozenset({profile.id}), context_tokens=4096),
        Engines(SHIPPED, SHIPPED),
    )
    demand = dict(choose(question).models[0].placed.demand)
    if kind == "unified":
        demand[RAM] = demand.pop("gpu0")
    assert {**located.elsewhere, RAM: located.estimate_bytes} == demand


async def test_a_plan_that_needs_consent_is_a_load_that_is_refused(tmp_path: Path) -> None:
    """31B on a card of 600 MiB."""
    settings, builds = Settings(offline=True), [Build("llama", "cuda", "0.3.36")]
    seen, catalog = sample(card(0.6)), Catalog.load(PROFILES)
    made = advisor(tmp_path, seen, settings, builds, catalog)
    assert (await made.plan(Ask(model="gemma4-31b"))).plan.needs_cpu_consent
    profile = catalog.resolve("gemma4-31b")
    variant = profile.variants[0]
    assert variant.weights is not None
    shape = profile_shape(profile.architecture, variant.weights.model_dump())
    placer = Placer(
        settings=settings, cpu=CPU, builds=lambda: builds, sample=lambda: seen, simulated=False
    )
    with pytest.raises(CpuConsentNeededError):
        placer.spot(profile, variant, shape, context=CONTEXT)


def with_own(size_bytes: int) -> Catalog:
    """The catalogue, and a profile of the user's with nothing but a source."""
    variant = Variant(
        id="q4",
        quantization="Q4_0",
        file_name="own.gguf",
        size_bytes=size_bytes,
        sources=(HubSource(repository="a/b", file="own.gguf"),),
    )
    own = Profile(id="own", display_name="Own", family="own", variants=(variant,))
    return Catalog([*Catalog.load(PROFILES).profiles, own])


async def test_a_model_of_which_no_size_is_known_is_not_said_to_be_too_large(
    tmp_path: Path,
) -> None:
    """The plan says what is missing."""
    catalog = with_own(5 * GIB)
    builds = [Build("llama", "cpu", "0.3.36")]
    made = advisor(tmp_path, sample(), Settings(offline=True), builds, catalog)
    with pytest.raises(InvalidRequestError) as caught:
        await made.plan(Ask(model="own"))
    assert "how much memory own takes" in str(caught.value)
    # The others are planned as ever.
    assert (await made.plan(Ask())).plan.models


async def test_a_file_whose_header_is_damaged_is_named(tmp_path: Path) -> None:
    """The plan goes by the profile meanwhile, and says so; a sound file is no word worth."""
    file = tmp_path / "own.gguf"
    shipped = Catalog.load(PROFILES).resolve("gemma4-e2b")
    variant = shipped.variants[0].model_copy(update={"sources": (LocalSource(path=file),)})
    own = shipped.model_copy(update={"id": "own", "variants": (variant,)})
    builds = [Build("llama", "cpu", "0.3.36")]
    made = advisor(tmp_path, sample(), Settings(offline=True), builds, Catalog([own]))
    write_header_only(file, architecture_of("gemma4-e2b"), "own")
    sound = await made.plan(Ask(model="own"))
    assert "HEADER_NOT_READ" not in {each.code for each in sound.plan.reasons}
    file.write_bytes(b"GGUF and no more")
    damaged = await made.plan(Ask(model="own"))
    [why] = [each for each in damaged.plan.reasons if each.code == "HEADER_NOT_READ"]
    assert str(file) in why.message
    assert damaged.plan.models


async def test_a_size_that_the_profile_does_not_tell_is_read_on_the_hub(tmp_path: Path) -> None:
    """From the header: before that nothing is known that could be planned."""
    file = tmp_path / "own.gguf"
    claimed = write_header_only(file, architecture_of("gemma4-e2b"), "gemma4-e2b")
    with (
        SparseHub() as hub,
        file.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        hub.add("a/b", "own.gguf", content)  # type: ignore[arg-type]  # read as bytes
        catalog = with_own(len(content))
        made = advisor(tmp_path, sample(card(24)), Settings(), [], catalog, hub=hub.url)
        [model] = (await made.plan(Ask(model="own"))).plan.models
    weights = model.placed.candidate.sized.weights_bytes
    assert 0.99 * claimed < weights <= claimed


async def test_the_strong_tier_is_none_where_only_the_embedded_model_fits(tmp_path: Path) -> None:
    """Then nothing better is there to be pulled."""
    builds = [Build("llama", "cpu", "0.3.36")]
    settings = Settings.model_validate({"ram_budget": "1500MiB", "offline": True})
    made = advisor(tmp_path, sample(), settings, builds, Catalog.load(PROFILES))
    await made.settle(sample())
    assert made.strong is None


async def test_what_was_not_seen_at_the_start_is_settled_by_the_first_plan(tmp_path: Path) -> None:
    """A sensor that was blind then; names keep their first meaning until it sees."""
    catalog = Catalog.load(PROFILES)
    builds = [Build("llama", "cpu", "0.3.36")]
    settings = Settings.model_validate({"ram_budget": "6GiB", "offline": True})
    made = advisor(tmp_path, sample(), settings, builds, catalog)
    await made.settle(None)
    assert (made.strong, catalog.resolve("gemma4-27b").id) == (None, "gemma4-31b")
    await made.plan(Ask())
    assert made.strong is not None
    assert catalog.resolve("gemma4-27b").id == made.strong
