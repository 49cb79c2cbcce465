from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd import wire
from gemd.routing import speeds as speeds_file
from gemd.routing.speeds import KEPT, SAVE_AFTER, WINDOW, Speed, Speeds, fingerprint, kept_speeds
from gemd.store.disk import write_whole

if TYPE_CHECKING:
    from pathlib import Path

HERE = fingerprint(variant="q4_0", device="gpu0", engine="llama 1")
THERE = fingerprint(variant="q4_0", device="ram", engine="llama 1")


def finished(**fields: Any) -> wire.Finished:
    """An answer of 101 tokens in a second, after a prompt of 200 in a tenth."""
    values: dict[str, Any] = {
        "request_id": "r",
        "reason": "stop",
        "prompt_tokens": 200,
        "cached_tokens": 0,
        "completion_tokens": 101,
        "queue_seconds": 0.0,
        "prefill_seconds": 0.1,
        "decode_seconds": 1.0,
    }
    return wire.Finished(**(values | fields))


def trace(canvases: int, steps: int) -> wire.Trace:
    """Of so many canvases with so many steps together."""
    figures: dict[str, Any] = dict.fromkeys(wire.Trace.model_fields, 0.0)
    counts = {
        "canvases": canvases,
        "steps": steps,
        "max_steps": 48 * canvases,
        "capped": 0,
        "positions": 9,
    }
    return wire.Trace(**(figures | counts))


def speeds(place: str = HERE) -> Speeds:
    """Of a machine where every model is in the same place."""
    return Speeds(lambda _: place)


def test_an_answer_tells_both_rates() -> None:
    """The first token ends the reading, so one less was written."""
    known = speeds()
    known.observe("m", finished())
    found = known.of("m")
    assert found.prefill_tps == pytest.approx(2000)
    assert found.decode_tps == pytest.approx(100)
    assert found.samples == 1
    assert found.measured


def test_what_a_cache_held_was_not_read() -> None:
    """Only new tokens count; too few of them tell no rate."""
    known = speeds()
    known.observe("m", finished(cached_tokens=150))
    assert known.of("m").prefill_tps == pytest.approx(500)
    known = speeds()
    known.observe("m", finished(cached_tokens=190))
    assert known.of("m").prefill_tps is None


def test_a_canvas_is_measured_whole() -> None:
    """A block-diffusion model has seconds a canvas and a step, and no rate of writing."""
    known = speeds()
    known.observe("m", finished(decode_seconds=0.8, trace=trace(2, 32)))
    found = known.of("m")
    assert (found.canvas_s, found.step_s, found.canvas_steps) == pytest.approx((0.4, 0.025, 16))
    assert found.decode_tps is None
    known.observe("n", finished(reason="cancelled", prefill_seconds=0, trace=trace(1, 9)))
    assert known.of("n") == Speed()


def test_short_answers_and_drafts_taken_over_tell_no_rate() -> None:
    """Seven tokens are the clock's; a draft's tokens were not written one by one."""
    known = speeds()
    known.observe("m", finished(completion_tokens=7))
    known.observe("m", finished(drafted_tokens=90, accepted_tokens=80))
    assert known.of("m").decode_tps is None


def test_one_outlier_moves_nothing() -> None:
    """The median of what is left is what it was."""
    known = speeds()
    for seconds in (1.0, 1.0, 50.0, 1.0, 1.0):
        known.observe("m", finished(decode_seconds=seconds))
    assert known.of("m").decode_tps == pytest.approx(100)


def test_who_shared_a_batch_counts_less() -> None:
    """Two alone outweigh five that ran eight together."""
    known = speeds()
    for _ in range(5):
        known.observe("m", finished(decode_seconds=4.0), streams=8)
    assert known.of("m").decode_tps == pytest.approx(25)
    known.observe("m", finished())
    known.observe("m", finished())
    assert known.of("m").decode_tps == pytest.approx(100)


def test_the_latest_count() -> None:
    """A machine that got slower is known to be after half a window."""
    known = speeds()
    for _ in range(WINDOW):
        known.observe("m", finished())
    for _ in range(WINDOW // 2 + 1):
        known.observe("m", finished(decode_seconds=2.0))
    assert known.of("m").decode_tps == pytest.approx(50)


@given(
    st.floats(min_value=1e-5, max_value=1e-2),
    st.floats(min_value=0, max_value=1),
    st.lists(st.integers(1, 5000), min_size=8, max_size=20, unique=True),
)
def test_prompts_of_several_lengths_tell_what_each_costs(
    each_s: float, fixed_s: float, sizes: list[int]
) -> None:
    """The line through them; a third that took ten times as long does not bend it much."""
    known = speeds()
    sizes = sorted(size * 100 for size in sizes)
    for size in sizes:
        known.observe_reading("m", tokens=size, seconds=fixed_s + size * each_s)
    found = known.of("m")
    assert found.prefill_tps == pytest.approx(1 / each_s, rel=1e-6)
    assert found.overhead_s == pytest.approx(fixed_s, abs=1e-6)


def test_slow_readings_do_not_bend_the_line() -> None:
    """One in six met a busy machine."""
    known = speeds()
    for number in range(24):
        size = 100 * (number + 1)
        late = 10.0 if number % 6 == 5 else 1.0
        known.observe_reading("m", tokens=size, seconds=(0.05 + size / 1000) * late)
    assert known.of("m").prefill_tps == pytest.approx(1000, rel=0.15)


def test_predictions_stand_in() -> None:
    """Until a figure was measured, each for itself; samples say what it is."""
    known, predicted = speeds(), Speed(decode_tps=40, load_s=5.0, samples=3)
    assert known.of("m", predicted) == Speed(decode_tps=40, load_s=5.0)
    assert not known.of("m", predicted).measured
    known.observe("m", finished())
    assert known.of("m", predicted).decode_tps == pytest.approx(100)
    assert known.of("m", predicted).load_s == 5.0


def test_loads_and_speculations_are_remembered() -> None:
    """Their medians; a draft of a few tokens tells nothing."""
    known = speeds()
    for seconds in (3.0, 2.0, 9.0):
        known.observe_load("m", seconds)
    known.observe_speculation("m", drafted=100, accepted=40)
    known.observe_speculation("m", drafted=2, accepted=2)
    assert known.of("m").load_s == 3.0
    assert known.of("m").accepted == pytest.approx(0.4)
    assert not known.of("m").measured


def test_another_place_starts_anew(tmp_path: Path) -> None:
    """And what was measured in the first one is there when the model is back."""
    place = [HERE]
    known = kept_speeds(tmp_path / "speeds.json", lambda _: place[0])
    known.observe("m", finished())
    place[0] = THERE
    assert known.of("m") == Speed()
    known.observe("m", finished(decode_seconds=10.0))
    assert known.of("m").decode_tps == pytest.approx(10)
    place[0] = HERE
    assert known.of("m").decode_tps == pytest.approx(100)


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    """All figures, in a file that is there whole."""
    path = tmp_path / "state" / "speeds.json"
    known = kept_speeds(path, lambda _: HERE)
    known.observe("m", finished())
    known.observe("d", finished(trace=trace(1, 16)))
    assert not known.due
    known.observe_load("m", 4.0)
    assert known.due
    known.save()
    assert not known.due
    again = kept_speeds(path, lambda _: HERE)
    assert [again.of(name) for name in "md"] == [known.of(name) for name in "md"]
    assert [each.name for each in path.parent.iterdir()] == ["speeds.json"]


def test_saving_is_due_now_and_then(tmp_path: Path) -> None:
    """Not after each answer, and never without a place."""
    known, nowhere = kept_speeds(tmp_path / "speeds.json", lambda _: HERE), speeds()
    for _ in range(SAVE_AFTER):
        assert not known.due
        known.observe("m", finished())
        nowhere.observe("m", finished())
    assert known.due
    assert not nowhere.due
    nowhere.save()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"layout": 2, "records": []}',
        b'{"layout": 1, "records": [{"model": "m"}]}',
        b'{"layout": 1, "records": [{"model": "", "fingerprint": "", "samples": -1}]}',
        b'{"layout": 1, "records": [{"model": "", "fingerprint": "", "reads": [{"tokens": NaN}]}]}',
        b'{"layout": 1, "records": [{"model": "", "fingerprint": "", "samples": 1%s}]}'
        % (b"0" * 400),
        (
            b'{"layout": 1, "records": [{"model": "", "fingerprint": "",'
            b' "load_s": [{"value": 1e300, "weight": 1}]}]}'
        ),
        b"\xff\xfe",
    ],
)
def test_a_bad_file_is_put_aside(tmp_path: Path, content: bytes) -> None:
    """Nothing is known then, and the file can be looked at."""
    path = tmp_path / "speeds.json"
    path.write_bytes(content)
    known = kept_speeds(path, lambda _: HERE)
    assert known.of("m") == Speed()
    assert path.with_name("speeds.json.bad").read_bytes() == content
    known.observe_load("m", 1.0)
    known.save()
    assert json.loads(path.read_text())["layout"] == 1


def test_a_disk_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    """The figures stay in memory."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    known = kept_speeds(blocked / "speeds.json", lambda _: HERE)
    known.observe_load("m", 4.0)
    known.save()
    assert known.of("m").load_s == 4.0
    assert not known.due


def test_what_is_seen_during_a_save_is_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written beside the loop, where answers go on."""
    path = tmp_path / "speeds.json"
    known = kept_speeds(path, lambda _: HERE)

    def slowly(file: Path, content: bytes) -> None:
        write_whole(file, content)
        monkeypatch.undo()
        known.observe_load("m", 9.0)

    known.observe_load("m", 1.0)
    monkeypatch.setattr(speeds_file, "write_whole", slowly)
    known.save()
    known.save()
    assert kept_speeds(path, lambda _: HERE).of("m").load_s == known.of("m").load_s
    assert path.read_text().count("value") == 2


def test_the_longest_unseen_is_forgotten() -> None:
    """The memory is bounded."""
    known = speeds()
    for number in range(KEPT + 1):
        known.observe_load(f"m{number}", 1.0)
    assert known.of("m0").load_s is None
    assert known.of("m1").load_s == 1.0


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 5e-324, 1e300, -1.0])
def test_a_clock_that_leaps_is_not_believed(seconds: float) -> None:
    """Nothing is learnt from it, and the answer that brought it is not lost."""
    known = speeds()
    known.observe("m", finished(prefill_seconds=seconds, decode_seconds=seconds))
    known.observe_load("m", seconds)
    known.observe_reading("m", tokens=100, seconds=seconds)
    found = known.of("m")
    assert not found.decode_tps or found.decode_tps < 1e-9
    assert found.prefill_tps is None or found.prefill_tps > 0
