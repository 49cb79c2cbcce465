"""Which of several files a load takes, where it may compute, and what the model says of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from gemd.catalog import Catalog, LocalSource, Profile, Variant
from gemd.config import Settings
from gemd.engine.builds.build import Build
from gemd.errors import BadModelFileError, CpuConsentNeededError
from gemd.residency.states import Residence, State
from gemd.rpc.convert.models import ModelView, OnDisk, model
from gemd.rpc.library import Library
from gemd.rpc.placing import Placer
from gemd.store import Store
from gemd.v1 import model_service_pb2
from tests.rpc.test_rpc_advisor import CPU, advisor, sample
from tests.rpc.test_rpc_placing import card
from tests.support.app import MODEL, serving
from tests.support.gemma4_files import architecture_of, write_header_only

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog.choice import Plan
    from gemd.residency.states import Located

LARGE, SMALL = "gemma4-12b", "gemma4-e2b"
"""23 GiB and 9, in bf16."""
BUILDS = [Build("llama", "cpu", "0.3.36"), Build("llama", "cuda", "0.3.36")]


def two_files(folder: Path) -> Profile:
    """A model of the user's, whose larger file is preferred."""
    variants = []
    for name in (LARGE, SMALL):
        file = folder / f"{name}.gguf"
        write_header_only(file, architecture_of(name), name)
        variants.append(
            Variant(
                id=name,
                quantization="BF16",
                file_name=file.name,
                size_bytes=file.stat().st_size,
                sources=(LocalSource(path=file),),
            )
        )
    return Profile(id="own", display_name="Own", family="own", variants=tuple(variants))


def library(folder: Path, profile: Profile, **parts: Any) -> Library:
    """One that knows this model."""
    return Library(
        catalog=Catalog([profile]),
        store=Store(folder / "store"),
        settings=Settings(offline=True),
        threads=1,
        environ={},
        **parts,
    )


async def located(folder: Path, profile: Profile, budget: str) -> Located:
    """What a load takes where models may have so much main memory."""
    settings = Settings.model_validate({"offline": True, "ram_budget": budget})
    made = advisor(folder, sample(), settings, BUILDS, Catalog([profile]))
    shelf = library(folder, profile)
    shelf.choose_by(made.suits)
    return await shelf.locate("own")


@pytest.mark.parametrize("budget,taken", [("40GiB", LARGE), ("16GiB", SMALL)])
async def test_a_load_takes_the_first_file_that_fits(
    tmp_path: Path, budget: str, taken: str
) -> None:
    """Both are on disk, and the preferred one would be refused where memory is short: logged."""
    with capture_logs() as lines:
        found = await located(tmp_path, two_files(tmp_path), budget)
    assert found.spec.load.path == str(tmp_path / f"{taken}.gguf")
    told = [(one["variant"], one["instead_of"]) for one in lines if one["event"] == "load.variant"]
    assert told == ([] if taken == LARGE else [(SMALL, LARGE)])


async def test_a_file_that_was_found_to_be_damaged_is_no_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although it would fit, and is preferred."""
    monkeypatch.setattr(Store, "_is_rejected", lambda _, __, variant: variant.id == LARGE)
    found = await located(tmp_path, two_files(tmp_path), "40GiB")
    assert found.spec.load.path == str(tmp_path / f"{SMALL}.gguf")


async def test_where_nothing_is_planned_it_is_the_first(tmp_path: Path) -> None:
    """And one that is there alone is not asked about."""
    profile = two_files(tmp_path)
    shelf = library(tmp_path, profile)
    asked = []

    async def damaged(profile: Profile) -> Plan | None:
        asked.append(profile.id)
        raise BadModelFileError("the header is damaged", metadata={"model": "own"})

    shelf.choose_by(damaged)
    first = await shelf.locate("own")
    assert (first.spec.load.path, asked) == (str(tmp_path / f"{LARGE}.gguf"), ["own"])
    (tmp_path / f"{LARGE}.gguf").unlink()
    other = await shelf.locate("own")
    assert (other.spec.load.path, asked) == (str(tmp_path / f"{SMALL}.gguf"), ["own"])


async def test_who_allows_the_processor_once_has_it_until_the_daemon_ends(tmp_path: Path) -> None:
    """For that model, whose next load after an eviction asks nobody again."""
    profile = two_files(tmp_path)
    settings = Settings(offline=True)
    placer = Placer(
        settings=settings,
        cpu=CPU,
        builds=lambda: BUILDS,
        sample=lambda: sample(card(0.6)),
        simulated=False,
    )
    shelf = library(tmp_path, profile, placer=placer)
    with pytest.raises(CpuConsentNeededError) as caught:
        await shelf.locate("own")
    assert "gemctl load own --cpu" in caught.value.advice
    shelf.allow_cpu("another")
    with pytest.raises(CpuConsentNeededError):
        await shelf.locate("own")
    shelf.allow_cpu("own")
    for _ in range(2):
        found = await shelf.locate("own")
        assert found.placed is not None
        assert (found.elsewhere, found.placed.code) == ({}, "CPU_CONSENTED")
        assert "allow_cpu" in found.placed.message


async def test_a_load_hands_the_consent_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where it was given."""
    allowed: list[str] = []
    monkeypatch.setattr(Library, "allow_cpu", lambda _, name: allowed.append(name))
    async with serving() as running:
        for consent in (False, True):
            request = model_service_pb2.LoadModelRequest(model=MODEL, allow_cpu=consent)
            assert [one async for one in running.models.LoadModel(request)]
            assert allowed == ([MODEL] if consent else [])


@pytest.mark.parametrize(
    "state,path,shown",
    [
        (State.READY, "/b.gguf", "b"),
        (State.LOADING, "/b.gguf", "b"),
        (State.COLD, "/b.gguf", "a"),
        (State.READY, "/gone.gguf", "a"),
    ],
)
def test_a_model_shows_the_variant_that_is_loaded(state: State, path: str, shown: str) -> None:
    """Although another one is preferred and on disk by now; else the first that is there."""
    variants = tuple(
        Variant(
            id=each,
            quantization=each.upper(),
            file_name=f"{each}.gguf",
            size_bytes=size,
            sources=(LocalSource(path=f"/{each}.gguf"),),
        )
        for each, size in (("a", 1), ("b", 2))
    )
    view = ModelView(
        profile=Profile(id="own", display_name="Own", family="own", variants=variants),
        disk={
            each.id: OnDisk(each.size_bytes, "local", "", None, 0, None, f"/{each.id}.gguf")
            for each in variants
        },
        residence=Residence("own", state, path=path),
        operation="",
        fetching=False,
        context_tokens=0,
        leases=0,
    )
    message = model(view, wall_of=float)
    assert (message.variant, message.quantization) == (shown, shown.upper())


async def test_a_model_tells_how_fast_it_was_measured() -> None:
    """Once it has answered something long enough for a rate; before that nothing."""
    async with serving() as running:
        ask = model_service_pb2.GetModelRequest(name=MODEL)
        await running.answer("a b c")
        assert not (await running.models.GetModel(ask)).model.HasField("measured_speed")
        await running.answer(count=100, token_seconds=0.001)
        speed = (await running.models.GetModel(ask)).model.measured_speed
        assert 0 < speed.decode_tokens_per_second <= 1000
