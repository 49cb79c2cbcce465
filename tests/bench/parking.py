"""What it buys to keep the files of unloaded models in the page cache."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from gemd.hardware.page_cache import resident_bytes
from gemd.residency.parking import PERIOD_S
from tests.bench import machine
from tests.bench.report import Section
from tests.support.desktop import desktop, wait_until
from tests.support.page_cache import drop

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.client import Client
    from tests.bench.setting import Setting

MODELS = ("smollm2-135m", "gemma3-270m")


async def measure(setting: Setting) -> Section:
    """Loads of a model whose file was dropped from memory, and of one that was parked."""
    store = next(parent for parent in setting.model.parents if (parent / "manifests").is_dir())
    section = Section(
        "Parking",
        "Seconds of a load (process, weights, first token) after the model's file was pushed out "
        "of the page cache: as it is then, and after gemd has read it back into unused memory, "
        f"which it does within {PERIOD_S:g} s (`parking = 1GiB`). "
        f"{setting.rounds} rounds. {machine.describe(threads=setting.threads)[0]}, its disk is "
        "virtual.",
        ("model", "dropped, median s", "min – max", "parked, median s", "min – max", "ratio"),
    )
    with (
        desktop(store, GEMD_PROMPT_CACHE="0B", GEMD_PARKING="1GiB") as running,
        running.client() as client,
    ):
        for model in MODELS:
            file = _file(store, client, model)
            dropped, parked = [], []
            for _ in range(setting.rounds):
                drop(file)
                dropped.append(_load(client, model))
                client.unload(model)
                drop(file)
                _wait_until_parked(file)
                parked.append(_load(client, model))
                client.unload(model)
            ratio = statistics.median(dropped) / statistics.median(parked)
            section.rows.append((model, *_row(dropped), *_row(parked), f"{ratio:.2f}"))
    return section


def _load(client: Client, model: str) -> float:
    began = time.perf_counter()
    client.load_and_wait(model)
    return time.perf_counter() - began


def _wait_until_parked(file: Path) -> None:
    size = file.stat().st_size
    wait_until(lambda: resident_bytes(file) >= size, seconds=5 * PERIOD_S, what="a file to be read")


def _file(store: Path, client: Client, model: str) -> Path:
    """The blob that has the model's size; only its file is that large to the byte."""
    size = client.model(model).raw.size_bytes
    return next(each for each in (store / "blobs").rglob("*") if each.stat().st_size == size)


def _row(samples: list[float]) -> tuple[str, str]:
    return f"{statistics.median(samples):.2f}", f"{min(samples):.2f} – {max(samples):.2f}"
