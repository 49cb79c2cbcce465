"""Whose energy it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.metrics.attribution import PROCESSOR, Attribution, Split

PACKAGE = "cpu-package-0"


def test_a_lonely_request_gets_all_of_its_time() -> None:
    """And nothing of what the device used before and after it."""
    split = Split(0.0)
    split.begin("a", 10.0)
    split.end("a", 15.0)
    assert split.deal(20.0) == {"a": 0.25}
    assert split.deal(30.0) == {}


def test_requests_that_run_together_share_each_moment() -> None:
    """Four seconds alone and four with another one, of eight."""
    split = Split(0.0)
    split.begin("a", 0.0)
    split.begin("b", 4.0)
    assert split.deal(8.0) == {"a": 0.75, "b": 0.25}


def test_a_clock_that_stands_still_gives_no_parts() -> None:
    """Two readings at one moment: the later one has nothing to divide."""
    split = Split(0.0)
    split.begin("a", 0.0)
    assert split.deal(0.0) == {}


def test_the_whole_device_counts_and_not_what_is_above_idle() -> None:
    """A request that had a processor for itself has all that it used."""
    all_of_them = Attribution(0.0)
    all_of_them.begin("a", "m", (), 0.0)
    all_of_them.deal(PROCESSOR, {PACKAGE: 120.0}, 2.0)
    all_of_them.end("a", 2.0)
    assert all_of_them.joules("a") == 120.0
    assert all_of_them.totals == {("m", PACKAGE): 120.0}


def test_a_gpu_is_shared_by_those_who_run_on_it() -> None:
    """The processor by all; of two GPUs each by its own."""
    devices = Attribution(0.0)
    devices.begin("a", "m", ("gpu0",), 0.0)
    devices.begin("b", "n", ("gpu1",), 0.0)
    devices.deal(PROCESSOR, {PACKAGE: 10.0}, 1.0)
    devices.deal("gpu0", {"gpu0": 300.0}, 1.0)
    devices.deal("gpu1", {"gpu1": 50.0}, 1.0)
    assert (devices.joules("a"), devices.joules("b")) == (305.0, 55.0)


def test_a_gpu_that_does_not_tell_leaves_its_requests_unknown() -> None:
    """The processor's part alone would look like an answer that cost nothing."""
    devices = Attribution(0.0)
    devices.begin("a", "m", ("gpu0",), 0.0)
    devices.begin("b", "n", (), 0.0)
    devices.deal(PROCESSOR, {PACKAGE: 10.0}, 1.0)
    assert (devices.joules("a"), devices.joules("b")) == (None, 5.0)


def test_without_the_processor_a_gpu_is_known() -> None:
    """Most machines let nobody read it; the GPU is nearly all of what its answers cost."""
    devices = Attribution(0.0)
    devices.begin("a", "m", ("gpu0",), 0.0)
    devices.deal(PROCESSOR, {}, 1.0)
    devices.deal("gpu0", {"gpu0": 300.0}, 1.0)
    assert devices.joules("a") == 300.0


@pytest.mark.parametrize("device, used", [("gpu0", {}), (PROCESSOR, {})])
def test_a_gap_in_the_middle_is_not_filled(device: str, used: dict[str, float]) -> None:
    """What a counter did not tell for a while is unknown for the whole request."""
    devices = Attribution(0.0)
    gpus = () if device == PROCESSOR else (device,)
    source = PACKAGE if device == PROCESSOR else device
    devices.begin("a", "m", gpus, 0.0)
    devices.deal(device, {source: 10.0}, 1.0)
    assert devices.joules("a") == 10.0
    devices.deal(device, used, 2.0)
    devices.deal(device, {source: 10.0}, 3.0)
    assert devices.joules("a") is None
    assert devices.totals == {("m", source): 20.0}


def test_one_of_two_packages_that_does_not_tell_is_a_gap() -> None:
    """Half of a machine is no answer either, and still counts in the sum."""
    devices = Attribution(0.0)
    devices.begin("a", "m", (), 0.0)
    devices.deal(PROCESSOR, {PACKAGE: 10.0}, 1.0, whole=False)
    assert devices.joules("a") is None
    assert devices.totals == {("m", PACKAGE): 10.0}


def test_a_request_that_moves_to_another_model_keeps_what_it_had() -> None:
    """A draft on one GPU and its check on another are one request."""
    devices = Attribution(0.0)
    devices.begin("a", "fast", ("gpu0",), 0.0)
    devices.deal("gpu0", {"gpu0": 10.0}, 1.0)
    devices.begin("a", "strong", ("gpu1",), 1.0)
    devices.deal("gpu1", {"gpu1": 7.0}, 2.0)
    assert devices.totals == {("fast", "gpu0"): 10.0, ("strong", "gpu1"): 3.5}
    assert devices.joules("a") == 13.5


def test_who_is_closed_gets_what_is_still_due_and_is_forgotten() -> None:
    """A cancelled request has used what it has used; after that nothing of it is kept."""
    devices = Attribution(0.0)
    devices.begin("a", "m", ("gpu0",), 0.0)
    devices.end("a", 1.0)
    devices.close("a")
    assert not devices.busy
    devices.deal(PROCESSOR, {PACKAGE: 4.0}, 2.0)
    devices.deal("gpu0", {"gpu0": 10.0}, 2.0)
    assert devices.totals == {("m", PACKAGE): 2.0, ("m", "gpu0"): 5.0}
    assert devices.joules("a") is None
    assert not devices._accounts


def test_an_end_without_a_beginning_is_nothing() -> None:
    """A request that was refused never ran."""
    devices = Attribution(0.0)
    devices.end("a", 1.0)
    devices.close("a")
    assert devices.joules("a") is None


NAMES = ("a", "b", "c", "d")
DEVICES = (PROCESSOR, "gpu0", "gpu1")
STEP = st.one_of(
    st.tuples(st.just("begin"), st.sampled_from(NAMES), st.sampled_from([(), *(DEVICES[1:],)])),
    st.tuples(st.just("end"), st.sampled_from(NAMES), st.just(())),
    st.tuples(st.just("close"), st.sampled_from(NAMES), st.just(())),
    st.tuples(st.just("deal"), st.sampled_from(DEVICES), st.floats(0, 1e6)),
)


@given(st.lists(st.tuples(st.floats(0, 100), STEP), max_size=80))
def test_all_shares_together_are_never_more_than_was_used(
    steps: list[tuple[float, tuple[str, str, object]]],
) -> None:
    """Whatever begins, ends and is read in which order; and no sum ever decreases."""
    devices, now = Attribution(0.0), 0.0
    measured: dict[str, float] = {}
    run = 0
    for passed, (what, name, more) in steps:
        now += passed
        before = dict(devices.totals)
        if what == "begin":
            assert isinstance(more, tuple)
            # An id is used once; several models may work on it.
            devices.begin(f"{name}{run}", f"model-{name}", more, now)
        elif what == "end":
            devices.end(f"{name}{run}", now)
        elif what == "close":
            devices.end(f"{name}{run}", now)
            devices.close(f"{name}{run}")
            run += 1
        else:
            assert isinstance(more, float)
            measured[name] = measured.get(name, 0.0) + more
            devices.deal(name, {name: more}, now)
        assert all(devices.totals[key] >= value for key, value in before.items())
        for source in DEVICES:
            given_away = sum(v for (_, each), v in devices.totals.items() if each == source)
            assert given_away <= measured.get(source, 0.0) * (1 + 1e-9)
