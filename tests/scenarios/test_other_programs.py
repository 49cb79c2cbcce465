"""Another program takes a GPU's memory: the whole daemon on a device file, with a real model.

The GPU is a file; the daemon, its sensors, the worker and the model are real, and what the
worker is said to hold of the GPU is its real resident size, scaled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.v1 import decision_pb2
from tests.support.desktop import MODEL, asking, desktop, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.client import Client, Decision
    from tests.support.desktop import Desktop

TEXT = "The capital of France is"
SCALE = 60.0


class Rtx4090:
    """A device file with one GPU and what others hold of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.others(1)

    def others(self, gib: float) -> None:
        """Other programs hold so much from now on."""
        beside = self.path.with_suffix(".new")
        beside.write_text(
            '[[gpu]]\nname = "NVIDIA GeForce RTX 4090"\ncapacity = "24GiB"\nvendor = "nvidia"\n'
            f'others = "{gib}GiB"\ndrives_display = true\nscale = {SCALE}\n',
            encoding="utf-8",
        )
        beside.rename(self.path)


@pytest.fixture
def gpu(tmp_path: Path) -> Rtx4090:
    """An RTX 4090 that is not here."""
    return Rtx4090(tmp_path / "devices.toml")


@pytest.fixture
def running(store: Path, gpu: Rtx4090) -> Iterator[Desktop]:
    """A daemon on it."""
    with desktop(store, GEMD_DEVICES_FILE=str(gpu.path), GEMD_PROMPT_CACHE="0B") as started:
        yield started


def yields(client: Client) -> list[Decision]:
    """Decisions to give memory back, newest first."""
    return [made for made in client.explain() if made.raw.kind == decision_pb2.Decision.KIND_YIELD]


def test_a_program_that_takes_memory_gets_it(running: Desktop, gpu: Rtx4090) -> None:
    """Its own model goes and the record says so; how soon is for `tests.bench` to tell."""
    with running.client() as client:
        assert client.generate(TEXT, asking(max_tokens=4)).answer().text
        (device, _) = client.status().raw.devices
        assert device.memory.ours_bytes > 6 * 2**30
        gpu.others(24 - device.memory.ours_bytes / 2**30 - 0.5)
        wait_until(lambda: bool(yields(client)), what="a yield")
        wait_until(lambda: yields(client)[0].raw.HasField("effect_duration"), what="its effect")
        (made,) = yields(client)
        assert made.raw.model == f"models/{MODEL}"
        assert made.raw.device == "devices/gpu0"
        assert [reason.code for reason in made.raw.reasons] == ["PRESSURE"]
        assert running.workers() == []
        assert client.status().raw.statistics.yields == 1


def test_its_own_model_is_no_pressure(running: Desktop, gpu: Rtx4090) -> None:
    """A GPU that is full of our own model is no reason to give it up."""
    with running.client() as client:
        for _ in range(3):
            assert client.generate(TEXT, asking(max_tokens=4)).answer().text
        assert yields(client) == []
        gpu.others(2)
        assert client.generate(TEXT, asking(max_tokens=4)).answer().text
        assert yields(client) == []
        assert client.status().raw.statistics.loads == 1


def test_a_gpu_that_is_lost_takes_its_model_with_it(running: Desktop, gpu: Rtx4090) -> None:
    """The model is unloaded, requests are told, and when it is back they are answered."""
    with running.client() as client:
        assert client.generate(TEXT, asking(max_tokens=4)).answer().text
        text = gpu.path.read_text(encoding="utf-8")
        gpu.path.write_text(text + "lost = true\n", encoding="utf-8")
        wait_until(lambda: running.workers() == [], what="the unload")
        conditions = {each.type for each in client.status().raw.conditions}
        assert conditions == {"DeviceLost"}
        gpu.path.write_text(text, encoding="utf-8")
        assert client.generate(TEXT, asking(max_tokens=4)).answer().text


def test_memory_is_given_back_on_demand(running: Desktop, gpu: Rtx4090) -> None:
    """`gemctl yield --keep-off`: confirmed by the sensor, and nothing is loaded until it may."""
    with running.client() as client:
        assert client.generate(TEXT, asking(max_tokens=4)).answer().text
    done = running.gemctl("yield", "gpu0", "--keep-off", "2h")
    assert done.returncode == 0, done.stderr
    assert running.workers() == []
    refused = running.gemctl("run", "--model", MODEL, TEXT)
    assert refused.returncode == 5
    assert "gemctl yield gpu0 --resume" in refused.stderr
    assert running.gemctl("yield", "gpu0", "--resume").returncode == 0
    assert running.gemctl("run", "--model", MODEL, TEXT).returncode == 0
