"""What NVIDIA GPUs say that they have used."""

from __future__ import annotations

import pytest

from gemd.hardware.nvidia import SELDOM_S, NvidiaGpus
from tests.support.clock import Clock
from tests.support.nvml import NOT_SUPPORTED, FakeNvml, rtx_4090
from tests.support.sensing import only


def test_a_gpu_tells_what_it_has_used() -> None:
    """Joules, where the driver counts thousandths; at every reading anew."""
    card = rtx_4090()
    gpus = NvidiaGpus(FakeNvml([card]), clock=Clock(), comparable=True)
    assert only(gpus, {}).energy_joules == 7000.25
    card.millijoules += 1500
    assert only(gpus, {}).energy_joules == 7001.75


@pytest.mark.parametrize("again", [True, False])
def test_a_card_that_does_not_count_is_asked_seldom(*, again: bool) -> None:
    """Pascal and older say that they cannot; its memory is told all the same."""
    clock = Clock()
    nvml = FakeNvml([rtx_4090(errors={"TotalEnergyConsumption": NOT_SUPPORTED})])
    gpus = NvidiaGpus(nvml, clock=clock, comparable=True)
    assert only(gpus, {}).energy_joules is None
    clock.now += SELDOM_S if again else SELDOM_S - 1
    assert only(gpus, {}).free_bytes
    assert nvml.calls.count("TotalEnergyConsumption") == (2 if again else 1)
