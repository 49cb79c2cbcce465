"""A plan has llama.cpp's own figures where a file is at hand and its backend is installed."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gemd.catalog import Catalog
from gemd.catalog.choice import (
    Candidate,
    Engines,
    EngineSized,
    GgufSized,
    Limits,
    Question,
    Told,
    Wishes,
    choose,
    memory_of,
)
from gemd.engine.builds.build import Build
from gemd.footprint import gguf_shape, read_gguf_header
from gemd.footprint.cache import cells_of
from gemd.footprint.compute import SCORED_OUTPUTS, graph_bytes
from gemd.footprint.memory import Method, Placement
from gemd.footprint.predict import DEFAULT_BATCH
from gemd.rpc.engine_figures import EngineFigures
from tests.support.choices import gpu, machine
from tests.support.models import PROFILES

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog.choice import Placed
    from gemd.hardware import Inventory

BUNDLED = (Build("llama", "cpu", "0.3.36"),)
ENGINES = Engines(frozenset({"llama"}), frozenset({"llama"}))


def placed(file: Path, on: Inventory) -> Placed:
    """The model of that file where a plan puts it."""
    profile = Catalog.load(PROFILES).resolve("gemma3-270m")
    sized = GgufSized(gguf_shape(read_gguf_header(file)))
    wishes = Wishes(name=profile.id, models=frozenset({profile.id}), context_tokens=4096)
    candidate = Candidate(profile, profile.variants[0], sized)
    question = Question(on, memory_of(on, Limits()), [candidate], wishes, ENGINES)
    return choose(question).models[0].placed


async def test_llama_cpp_tells_what_the_formula_says(gemma3: Path) -> None:
    """The cache to the byte of its log, scratch near it, for the processor it was built for."""
    where = placed(gemma3, machine())
    told = await EngineFigures(os.environ, lambda: BUNDLED).told(where, gemma3)
    assert told is not None
    [parts] = where.parts.values()
    assert told.kv_cache == pytest.approx(parts.kv_cache, abs=2**14)
    assert told.whole
    assert told.gpu_compute == 0
    # All that it allocates, which is more than what is touched while nobody scores.
    shape = gguf_shape(read_gguf_header(gemma3)).shape
    cells = cells_of(shape, context_tokens=4096, max_sequences=8, batch=DEFAULT_BATCH)
    allocated = graph_bytes(shape, cells, SCORED_OUTPUTS + 8, DEFAULT_BATCH)
    assert parts.compute <= told.host_compute
    assert told.host_compute == pytest.approx(allocated, rel=0.1)
    assert (told.context_tokens, told.sequences) == (4096, 8)


async def test_for_another_backend_only_the_cache_is_told(gemma3: Path) -> None:
    """There is no build for this GPU: what its graph takes nobody here knows."""
    where = placed(gemma3, machine(gpu(24)))
    assert where.gpu is not None
    told = await EngineFigures(os.environ, lambda: BUNDLED).told(where, gemma3)
    assert told is not None
    assert not told.whole
    assert told.kv_cache == pytest.approx(
        sum(parts.kv_cache for parts in where.parts.values()), abs=2**14
    )


async def test_an_engine_that_cannot_be_asked_is_no_failure(tmp_path: Path, gemma3: Path) -> None:
    """The plan stays with the formula; so it does for a file that is gone."""
    where = placed(gemma3, machine())
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and no more")
    figures = EngineFigures(os.environ, lambda: BUNDLED)
    assert await figures.told(where, broken) is None
    assert await figures.told(where, tmp_path / "gone.gguf") is None


async def test_a_file_is_asked_about_once(gemma3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is replaced."""
    where = placed(gemma3, machine())
    figures = EngineFigures(os.environ, lambda: BUNDLED)
    first = await figures.told(where, gemma3)

    async def never(*_: object, **__: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr("gemd.engine.probe.plan", never)
    assert await figures.told(where, gemma3) == first


def test_told_figures_count_where_they_were_asked_for(gemma3: Path) -> None:
    """And the formula's everywhere else; both add up."""
    formula = GgufSized(gguf_shape(read_gguf_header(gemma3)))
    told = Told(Placement(), 4096, 8, 50_000, 7_000, 0, 300, whole=True)
    sized = EngineSized(formula, told)
    asked = {"context_tokens": 4096, "sequences": 8, "backend": "cpu"}
    found = sized.predict(Placement(), **asked)  # type: ignore[arg-type]  # as declared above
    assert (found.host.kv_cache, found.host.compute, found.host.output) == (50_000, 7_000, 300)
    assert found.method is Method.ENGINE
    by_formula = formula.predict(Placement(), **asked)  # type: ignore[arg-type]  # as above
    same = replace(
        told,
        kv_cache=by_formula.host.kv_cache,
        host_compute=by_formula.host.compute + 10**6,
        output=by_formula.host.output,
    )
    # Scratch that scoring needs is in the formula's peak, and not booked a second time.
    again = EngineSized(formula, same).predict(Placement(), **asked)  # type: ignore[arg-type]  # as above
    assert again.host_peak == by_formula.host_peak
    assert found.host_peak >= found.host.total
    other = sized.predict(Placement(), context_tokens=2048, sequences=8, backend="cpu")
    assert other == formula.predict(Placement(), context_tokens=2048, sequences=8, backend="cpu")
    cache_only = EngineSized(formula, replace(told, whole=False))
    assert cache_only.predict(Placement(), **asked).method is Method.FORMULA  # type: ignore[arg-type]  # as above
