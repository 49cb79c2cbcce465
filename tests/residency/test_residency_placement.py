"""Where weights go on the GPUs of a device file."""

from __future__ import annotations

from gemd.hardware import RAM, DeviceKind, DeviceReading, DeviceTable, Sample
from gemd.quantities import Budget
from gemd.residency.accounts import Accounts, Limits
from gemd.residency.placement import on_made_up_gpu

GIB = 2**30


def table(*gpus: dict[str, object]) -> DeviceTable:
    """A device file with these GPUs."""
    named = [{"name": "GPU", "capacity": "24GiB", **gpu} for gpu in gpus]
    return DeviceTable.model_validate({"gpu": named})


def test_weights_go_where_most_is_left() -> None:
    """By other programs; what a worker holds there is its size times the scale."""
    found = on_made_up_gpu(table({"others": "20GiB"}, {"others": "2GiB", "scale": 3.0}), GIB)
    assert found == {"gpu1": 3 * GIB}


def test_a_lost_gpu_is_passed_over_for_another_one() -> None:
    """If there is one that answers."""
    assert on_made_up_gpu(table({"lost": True}, {"others": "20GiB"}), GIB) == {"gpu1": GIB}


def test_a_lost_gpu_is_no_reason_for_the_processor() -> None:
    """Nothing moves there in silence: the load is refused, with the device that is missing."""
    assert on_made_up_gpu(table({"lost": True}), GIB) == {"gpu0": GIB}


def test_without_a_gpu_main_memory_is_the_plan() -> None:
    """And needs nobody's consent."""
    assert on_made_up_gpu(table(), GIB) == {}


def test_memory_that_a_gpu_shares_is_main_memory() -> None:
    """What workers hold is counted there once."""
    assert on_made_up_gpu(table({"kind": "unified"}, {"kind": "integrated"}), GIB) == {}


def reading(device: str, kind: DeviceKind, gib: int) -> DeviceReading:
    """A device of which nothing is taken."""
    return DeviceReading(device, kind, gib * GIB, gib * GIB, {}, 0)


def budgets(
    *devices: DeviceReading, placeable: bool = True
) -> tuple[dict[str, int], tuple[str, ...]]:
    """GiB that models may take, by device; and the GPUs that models are placed on."""
    limits = Limits(
        ram_budget=Budget(percent=50), gpu_budget=Budget(percent=90), placeable=lambda _: placeable
    )
    accounts = Accounts(limits)
    accounts.on_sample(Sample(0.0, 0.0, devices), {})
    found = accounts.at(0.0).items()
    return {name: each.budget // GIB for name, each in found}, accounts.gpus


def test_a_gpu_that_shares_the_memory_gives_it_its_own_budget() -> None:
    """Models compute from its working set: 90 % of 36 GiB, and not half of 48."""
    ram = reading(RAM, DeviceKind.CPU, 48)
    shared = reading("gpu0", DeviceKind.UNIFIED, 36)
    assert budgets(shared, ram)[0][RAM] == 32
    assert budgets(shared, ram)[1] == ()
    # No engine runs there: models are the processor's.
    assert budgets(shared, ram, placeable=False)[0][RAM] == 24
    card = reading("gpu0", DeviceKind.DISCRETE_GPU, 10)
    assert budgets(card, ram) == ({"gpu0": 9, RAM: 24}, ("gpu0",))
    assert budgets(card, ram, placeable=False)[1] == ()
    poor = reading("gpu0", DeviceKind.INTEGRATED_GPU, 1)
    assert budgets(poor, ram) == ({"gpu0": 0, RAM: 24}, ())
