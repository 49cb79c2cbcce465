from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, NoReturn

import pytest

from gemd.doctor import CannotCheckError, Check, Diagnosis, Doctor, Errand, Once, Result
from gemd.doctor.checks import CHECKS
from gemd.errors import ConfigError, InvalidRequestError
from tests.support.doctoring import surroundings

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.doctor import Surroundings


def fine(name: str) -> Check:
    """A check that finds nothing."""
    return Check(name, lambda _, __: Diagnosis(name, Result.OK, "well"))


def raising(name: str, error: Exception) -> Check:
    """A check that ends so."""

    def make(_: Surroundings, __: Errand) -> NoReturn:
        raise error

    return Check(name, make)


async def test_a_check_that_breaks_is_a_row_and_no_traceback(tmp_path: Path) -> None:
    """The others are made all the same, and the rows are in the order of the checks."""
    doctor = Doctor(
        [
            fine("first"),
            raising("broken", ZeroDivisionError("division\nby zero " + 300 * "x")),
            raising("domain", ConfigError("it is wrong", why="so", advice=("mend it",))),
            raising("elsewhere", CannotCheckError("only on Mondays")),
            fine("last"),
        ]
    )
    rows = await doctor.examine(surroundings(tmp_path))
    assert [row.check for row in rows] == ["first", "broken", "domain", "elsewhere", "last"]
    assert [row.result.value for row in rows] == ["OK", "FAILED", "FAILED", "SKIPPED", "OK"]
    assert rows[1].detail.startswith("the check itself broke with ZeroDivisionError: division")
    assert len(rows[1].detail) < 250
    assert (rows[2].detail, rows[2].fixes) == ("it is wrong: so", ("mend it",))
    assert rows[3].detail == "only on Mondays"


async def test_a_check_that_hangs_is_given_up_and_not_made_again(tmp_path: Path) -> None:
    """It costs one thread however often it is asked for, and is made again once that has ended."""
    release = threading.Event()
    began: list[int] = []

    def hang(_: Surroundings, __: Errand) -> Diagnosis:
        began.append(1)
        release.wait()
        return Diagnosis("driver", Result.OK, "woken")

    doctor = Doctor(
        [
            Check("driver", hang, limit_s=0.05, hangs="the driver hangs", fixes=("reboot",)),
            fine("other"),
        ]
    )
    around = surroundings(tmp_path)
    try:
        late, other = await doctor.examine(around)
        assert late.result is Result.FAILED
        assert late.detail == "the check did not end within 0.05 s: the driver hangs"
        assert late.fixes == ("reboot",)
        assert other.result is Result.OK
        again, _ = await doctor.examine(around)
        assert again.detail == "the check still hangs since 0 s ago: the driver hangs"
        assert len(began) == 1
    finally:
        release.set()
    for each in threading.enumerate():
        if each.name == "doctor-driver":
            await asyncio.to_thread(each.join, 10)
    woken, _ = await doctor.examine(around)
    assert (woken.detail, len(began)) == ("woken", 2)


async def test_whoever_goes_away_ends_the_work(tmp_path: Path) -> None:
    """A cancelled caller's long check is told to stop."""
    began, stopped = threading.Event(), threading.Event()

    def read(_: Surroundings, errand: Errand) -> Diagnosis:
        began.set()
        try:
            errand.stop.wait(60)
        finally:
            stopped.set()
        return Diagnosis("models", Result.OK, "read")

    asked = asyncio.create_task(
        Doctor([Check("models", read)]).examine(surroundings(tmp_path), thorough=True)
    )
    await asyncio.to_thread(began.wait, 10)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert await asyncio.to_thread(stopped.wait, 10)


async def test_checks_are_chosen_by_name(tmp_path: Path) -> None:
    """In the order of all checks; a name that is none is an error with the nearest one."""
    doctor = Doctor([fine("socket"), fine("gpu-driver"), fine("gpu-memory")])
    rows = await doctor.examine(surroundings(tmp_path), ["gpu-memory", "socket", "socket"])
    assert [row.check for row in rows] == ["socket", "gpu-memory"]
    with pytest.raises(InvalidRequestError) as caught:
        doctor.chosen(["gpu-drivers"])
    assert caught.value.why == "the nearest one is gpu-driver"
    assert caught.value.advice == ("gemctl doctor gpu-driver",)
    assert caught.value.metadata["field"] == "checks"
    with pytest.raises(InvalidRequestError, match="there are socket, gpu-driver"):
        doctor.chosen(["zzz"])


async def test_thorough_checks_get_the_time_they_need(tmp_path: Path) -> None:
    """And only where they were asked for."""
    seen: list[bool] = []

    def make(_: Surroundings, errand: Errand) -> Diagnosis:
        seen.append(errand.thorough)
        return Diagnosis("models", Result.OK, "")

    check = Check("models", make, limit_s=1, thorough_limit_s=100)
    for thorough in (False, True):
        await Doctor([check]).examine(surroundings(tmp_path), thorough=thorough)
    assert seen == [False, True]
    assert (check.limit(thorough=False), check.limit(thorough=True)) == (1, 100)


async def test_every_real_check_makes_its_row_on_this_machine(tmp_path: Path) -> None:
    """None of them breaks, in a home where nothing is yet; and nothing is made there."""
    around = surroundings(tmp_path, environ={"GEMD_OFFLINE": "true"})
    rows = await Doctor(CHECKS).examine(around)
    assert [row.check for row in rows] == [check.name for check in CHECKS]
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    for row in rows:
        assert row.detail
        assert "the check" not in row.detail, row
        if row.result in {Result.OK, Result.SKIPPED}:
            assert row.fixes == (), row
    with os.scandir(tmp_path) as made:
        assert list(made) == []


def test_what_is_asked_for_once_is_made_once() -> None:
    """All callers get the one outcome, also if that is an error."""
    calls: list[int] = []

    def fail() -> int:
        calls.append(1)
        raise ValueError("no")

    once = Once(fail)
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            once()
    assert len(calls) == 1
    gate, results = threading.Event(), []

    def slow() -> object:
        gate.wait(10)
        return object()

    shared: Once[object] = Once(slow)
    threads = [threading.Thread(target=lambda: results.append(shared())) for _ in range(4)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(set(map(id, results))) == 1
