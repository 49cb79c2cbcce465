"""Where weights go on the GPUs of a device file."""

from __future__ import annotations

from gemd.hardware import DeviceTable
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
