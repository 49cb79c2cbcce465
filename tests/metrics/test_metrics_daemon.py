"""Metrics of a daemon that serves: what is told of what happened, and what is never told."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import platform
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc

from gemd.errors import ModelNotFoundError
from gemd.hardware import RAM
from gemd.hardware.rapl import Counted
from gemd.metrics.families import BY_NAME, METHODS, OUTCOMES, Kind, error_reasons
from gemd.residency.decisions import Decision, DecisionKind, Decisions, Reason
from gemd.rpc.metering import Counting, ModelLabels
from gemd.v1 import generation_service_pb2 as service
from gemd.v1 import model_service_pb2 as models
from tests.support.app import MODEL, fails, profile, serving, until
from tests.support.clock import Clock
from tests.support.scrape import Samples, free_port, get, samples, scrape, value
from tests.support.sensing import GIB, FakeSensor, Memory

if TYPE_CHECKING:
    from collections.abc import AsyncIterable
    from pathlib import Path

    import pytest

    from gemd.catalog import Profile

SECRET = "a secret of mine"


def two_models(file: Path) -> list[Profile]:
    """Models with names of the catalogue's kind."""
    return [profile(file, name="one"), profile(file, name="two")]


def generated(model: str, text: str = "a b c", **fields: Any) -> service.GenerateRequest:
    """A request."""
    return service.GenerateRequest(text=text, model=model, **fields)


async def drained(call: AsyncIterable[Any]) -> None:
    """Read an answer to its end."""
    async for _ in call:
        pass


def ending(found: Samples, suffix: str) -> set[str]:
    """Label values of one name."""
    return {label for (_, labels), _ in found.items() for name, label in labels if name == suffix}


async def test_an_answered_request_is_in_every_figure() -> None:
    """Counts, tokens and times, under its model and method; in both formats alike."""
    port = free_port()
    async with serving(catalog=two_models, default_model="one", metrics_port=port) as running:
        await drained(running.generation.Generate(generated("one")))
        await running.generation.Embed(service.EmbedRequest(texts=["a b"], model="one"))
        for openmetrics in (False, True):
            found = await scrape(port, openmetrics=openmetrics)
            done = {"model": "one", "method": "Generate", "outcome": "finished"}
            assert value(found, "gemd_requests_total", **done) == 1
            assert value(found, "gemd_requests_total", **done | {"method": "Embed"}) == 1
            assert value(found, "gemd_completion_tokens_total", model="one") == 3
            assert value(found, "gemd_prompt_tokens_total", model="one") == 5
            for name in ("queue", "time_to_first_token", "load"):
                one = f"gemd_request_{name}_seconds"
                expected = 2 if name == "queue" else 1
                assert value(found, f"{one}_count", model="one") == expected, name
            took = value(found, "gemd_request_duration_seconds_sum", model="one", method="Generate")
            assert took is not None
            assert took > 0
            assert value(found, "gemd_model_loads_total", model="one") == 1
            assert value(found, "gemd_model_load_seconds_count", model="one") == 1
            assert value(found, "gemd_model_state", model="one", state="ready") == 1
            assert value(found, "gemd_model_state", model="one", state="cold") == 0
            memory = value(found, "gemd_model_memory_bytes", model="one", device="cpu")
            assert memory is not None
            assert memory > 1_000_000
            assert (
                value(found, "gemd_build_info", version="0.0.0", python=platform.python_version())
                == 1
            )


async def test_refused_and_cancelled_requests_are_told_apart() -> None:
    """A reason of the list for one, none for the other; and their times are no answer's."""
    port = free_port()
    async with serving(catalog=two_models, default_model="one", metrics_port=port) as running:
        assert (await fails(running.generation.Generate(generated("none-such")))).reason
        endless = '{"count": 100000, "token_seconds": 0.01}'
        call = running.generation.Generate(generated("one", endless))
        reading = asyncio.create_task(drained(call))
        await until(lambda: any(each.start_time for each in running.app.requests.live()))
        found = await scrape(port)
        assert value(found, "gemd_requests_in_progress", state="running") == 1
        call.cancel()
        with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await reading
        await until(lambda: not running.app.requests.live())
        found = await scrape(port)
    failed = {"model": "none", "method": "Generate", "outcome": "failed"}
    assert value(found, "gemd_requests_total", **failed) == 1
    why = {"method": "Generate", "reason": "MODEL_NOT_FOUND"}
    assert value(found, "gemd_request_failures_total", **why) == 1
    gone = {"model": "one", "method": "Generate", "outcome": "cancelled"}
    assert value(found, "gemd_requests_total", **gone) == 1
    assert value(found, "gemd_requests_in_progress", state="running") == 0
    assert not any(name.startswith("gemd_request_duration") for name, _ in found)


async def test_evictions_and_crashes_are_counted_with_their_reasons() -> None:
    """One model has to go for the other, whose worker then crashes."""
    port = free_port()
    size = {"allocate_mib": 40}
    async with serving(
        catalog=two_models,
        default_model="one",
        metrics_port=port,
        load=size,
        budget_bytes=100 * 2**20,
        adapt=_booking(60),
    ) as running:
        await drained(running.generation.Generate(generated("one")))
        await drained(running.generation.Generate(generated("two")))
        assert (
            await fails(running.generation.Generate(generated("two", '{"crash_at": 0}')))
        ).reason
        await until(lambda: running.app.manager.residence("two").crashes == 1)
        found = await scrape(port)
    assert value(found, "gemd_evictions_total", model="one", reason="CHEAPEST") == 1
    assert value(found, "gemd_model_loads_total", model="two") == 1
    assert value(found, "gemd_model_crashes_total", model="two") == 1
    assert value(found, "gemd_model_crashes_total", model="one") == 0
    crashed = {"method": "Generate", "reason": "ENGINE_CRASHED"}
    assert value(found, "gemd_request_failures_total", **crashed) == 1


def _booking(mib: int) -> Any:
    return lambda located: dataclasses.replace(located, estimate_bytes=mib * 2**20)


async def test_devices_are_told_as_the_sensors_see_them() -> None:
    """Each part of each memory; what nobody tells is left out and not 0."""
    port = free_port()
    devices = {
        RAM: Memory(8 * GIB, 2 * GIB),
        "gpu0": Memory(24 * GIB, 4 * GIB, vendor="nvidia", hidden=True),
    }
    async with serving(sensor=FakeSensor(devices=devices), metrics_port=port) as running:
        await running.app.senses.fresh()
        found = await scrape(port)
    assert value(found, "gemd_device_capacity_bytes", device="gpu0") == 24 * GIB
    assert value(found, "gemd_device_capacity_bytes", device="cpu") == 8 * GIB
    assert value(found, "gemd_device_budget_bytes", device="cpu") == GIB
    assert value(found, "gemd_device_others_bytes", device="cpu") == 2 * GIB
    assert value(found, "gemd_device_power_watts", device="gpu0") is None


async def test_every_figure_is_in_the_table_and_says_nothing_of_the_user() -> None:
    """No prompt, path, program, request or file; labels of lists have values of lists."""
    port = free_port()
    energy = {"cpu-package-0": Counted(5.0, 1000.0)}
    async with serving(metrics_port=port, processor_energy=lambda: energy) as running:
        asked = generated(MODEL, SECRET, client="my-program", request_id="my-request")
        await drained(running.generation.Generate(asked))
        await fails(running.generation.Generate(generated(f"/home/me/{SECRET}.gguf")))
        await fails(running.generation.Generate(generated("x" * 40)))
        await fails(running.models.LoadModel(models.LoadModelRequest(model="models/none-such")))
        body = (await get(port)).body.decode()
    found = samples(body)
    for name, labels in found:
        family = BY_NAME.get(name)
        for suffix in ("_bucket", "_count", "_sum"):
            base = BY_NAME.get(name.removesuffix(suffix))
            if base is not None and base.kind is Kind.HISTOGRAM:
                family = base
        assert family is not None, name
        assert {each for each, _ in labels} - {"le"} == set(family.labels)
    for word in (SECRET, "secret", "my-program", "my-request", "/home", "none-such", "gguf", "xxx"):
        assert word not in body
    assert ending(found, "model") <= {"local", "none"}
    assert ending(found, "method") <= METHODS
    assert ending(found, "outcome") <= OUTCOMES | {"succeeded"}
    assert ending(found, "reason") <= error_reasons()
    assert ending(found, "device") == {"cpu"}
    assert ending(found, "source") <= {"cpu-package-0"}


async def test_energy_is_told_no_finer_than_a_second() -> None:
    """However often somebody asks: the kernel keeps finer readings from most users."""
    port = free_port()
    began = time.monotonic()

    def package() -> dict[str, Counted]:
        return {"cpu-package-0": Counted(90 * (time.monotonic() - began), 262_143.0)}

    async with serving(metrics_port=port, processor_energy=package) as running:
        assert running.app._metering is not None
        clock = Clock()
        running.app._metering._figures._clock = clock
        name, source = "gemd_energy_joules_total", "cpu-package-0"
        first = value(await scrape(port), name, source=source)
        await running.answer("a b c")
        clock.now += 0.99
        assert value(await scrape(port), name, source=source) == first
        clock.now += 0.02
        later = value(await scrape(port), name, source=source)
    assert first is not None
    assert later is not None
    assert later > first


async def test_no_counter_falls_while_everything_happens_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forty requests, some of which fail or are given up, and as many scrapes beside them."""
    monkeypatch.setattr("gemd.rpc.figures.ENERGY_S", 0.0)
    port = free_port()
    began = time.monotonic()

    def package() -> dict[str, Counted]:
        return {"cpu-package-0": Counted(90 * (time.monotonic() - began), 262_143.0)}

    async with serving(
        catalog=two_models, default_model="one", metrics_port=port, processor_energy=package
    ) as running:
        scripts = (
            "a b",
            '{"count": 20, "token_seconds": 0.002}',
            '{"fail_at": 0, "tokens": ["a"]}',
        )

        async def ask(number: int) -> None:
            call = running.generation.Generate(
                generated("one" if number % 2 else "two", scripts[number % 3])
            )
            with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                async for _ in call:
                    if number % 7 == 0:
                        call.cancel()

        asking = [asyncio.create_task(ask(number)) for number in range(40)]
        seen = [await scrape(port)]
        while not all(each.done() for each in asking):
            seen.append(await scrape(port))
        seen.append(await scrape(port))
    for before, after in itertools.pairwise(seen):
        for (name, labels), old in before.items():
            if name.endswith(("_total", "_bucket", "_count", "_sum")):
                assert after[name, labels] >= old, name
    last = seen[-1]
    assert sum(v for (name, _), v in last.items() if name == "gemd_requests_total") == 40
    shares = sum(v for (name, _), v in last.items() if name == "gemd_request_energy_joules_total")
    used = value(last, "gemd_energy_joules_total", source="cpu-package-0")
    assert used is not None
    assert 0 < shares <= used * (1 + 1e-9)


async def test_a_disk_that_hangs_holds_up_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page comes without the disk's figures, and the next ones do not wait again."""
    port = free_port()
    monkeypatch.setattr("gemd.rpc.figures.PATIENCE_S", 0.02)
    async with serving(metrics_port=port) as running:
        never = asyncio.Event()
        assert running.app._metering is not None
        running.app._metering._figures._disk._look = never.wait  # type: ignore[assignment]
        found = await scrape(port)
        assert value(found, "gemd_disk_free_bytes") is None
        assert value(found, "gemd_uptime_seconds") is not None


async def test_the_disk_is_looked_at_once_a_minute() -> None:
    """However often somebody scrapes."""
    port = free_port()
    async with serving(metrics_port=port) as running:
        assert running.app._metering is not None
        disk = running.app._metering._figures._disk
        looks, real = [], disk._look

        async def look() -> Any:
            looks.append(1)
            return await real()

        disk._look = look
        free = [value(await scrape(port), "gemd_disk_free_bytes") for _ in range(3)]
        assert None not in free
        assert len(looks) == 1


def test_models_have_few_names(tmp_path: Path) -> None:
    """Paths are one, variants are their model's, and what is no model is none of them."""
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF")

    class Library:
        def resolve(self, name: str) -> Profile:
            if name != "one":
                raise ModelNotFoundError("none")
            return profile(file, name="one")

    label = ModelLabels(Library())  # type: ignore[arg-type]
    assert label("one") == "one"
    assert label("one:q4") == "one"
    assert label("local/my-secret-model") == "local"
    assert label("/home/me/x.gguf") == "local"
    assert label("") == "none"
    assert label("gone") == "OTHER"


def test_a_decision_that_is_told_again_counts_once() -> None:
    """It comes a second time when its effect is confirmed."""
    counting = Counting(lambda model: model)
    decisions = Decisions(publish=counting.residency)
    made = Decision(0.0, DecisionKind.YIELD, "", model="m", reasons=(Reason("PRESSURE", ""),))
    first = decisions.record(made)
    decisions.record(made)
    decisions.confirm(first, now=1.0, figures={})
    values = counting.tally.page().values
    assert values["gemd_yields_total"] == {("m", "PRESSURE"): 2.0}
