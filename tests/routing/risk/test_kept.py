"""What was learnt outlives the daemon, and no file stops it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.risk import SIGNALS, Judge, KeptStates, Key, Label, Source, State
from gemd.routing.risk.kept import KEPT_FILES, state_of, text_of
from gemd.routing.risk.labels import KEPT_LABELS
from gemd.routing.risk.running import KEPT
from tests.support.drafts import evidence, labels

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = Key("drafter@1", "checker@2")
SEEN = st.dictionaries(
    st.sampled_from(sorted(SIGNALS)),
    st.lists(st.floats(0, 1).map(lambda value: round(value, 6)), max_size=5).map(tuple),
)


def learnt(drafts: int = 30) -> State:
    """Of a judge that saw some drafts and got some labels."""
    judge = Judge()
    for index in range(drafts):
        judge.learn(judge.judge(evidence(index / drafts), checked=False, may_check=False))
    for index, label in enumerate(labels(1, 5)):
        judge.add(replace(label, origin=f"r{index}/0", at=float(index), task="FACT", mode="fast"))
    return judge.snapshot()


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    """Up to six decimals; and so do verdicts."""
    state = learnt()
    kept = KeptStates(tmp_path / "risk")
    assert kept.load(KEY) == State()
    assert kept.save(KEY, state)
    back = KeptStates(tmp_path / "risk").load(KEY)
    assert back.judged == state.judged
    assert back.refined == state.refined
    for mine, theirs in (
        (back.drafts, state.drafts),
        (back.finals, state.finals),
        (back.seen["steps"], state.seen["steps"]),
    ):
        assert mine == pytest.approx(theirs, abs=1e-6)
    assert [one.origin for one in back.labels] == [one.origin for one in state.labels]
    assert back.labels[0].signals == pytest.approx(dict(state.labels[0].signals), abs=1e-6)
    kept.save(KEY, back)
    assert kept.load(KEY) == back


@given(SEEN, st.integers(0, 10**6))
def test_any_state_survives_its_text(seen: dict[str, tuple[float, ...]], judged: int) -> None:
    """Without a file between."""
    state = State(seen=seen, judged=judged)
    again = state_of(text_of(state, KEY), KEY)
    assert (dict(again.seen), again.judged) == (seen, judged)


def test_another_pair_starts_anew_and_the_first_one_is_kept(tmp_path: Path) -> None:
    """A new quantization, another engine, other signals: each has a file of its own."""
    kept = KeptStates(tmp_path)
    kept.save(KEY, learnt())
    for other in (
        replace(KEY, drafter="drafter@3"),
        replace(KEY, checker="other"),
        replace(KEY, signals=99),
    ):
        assert kept.load(other) == State()
        kept.save(other, State(judged=7))
    assert kept.load(KEY).judged == 30


def test_only_so_many_pairs_are_kept(tmp_path: Path) -> None:
    """The one written longest ago goes."""
    kept = KeptStates(tmp_path)
    for index in range(KEPT_FILES + 3):
        key = Key(f"d{index}", "c")
        kept.save(key, State(judged=index))
        when = time.time() - 1000 + index
        os.utime(kept.path(key), (when, when))
    assert len(list(tmp_path.glob("*.json"))) == KEPT_FILES
    assert kept.load(Key("d0", "c")) == State()
    assert kept.load(Key(f"d{KEPT_FILES + 2}", "c")).judged == KEPT_FILES + 2


def _without(name: str) -> Callable[[str], str]:
    return lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != name})


def _with(**fields: object) -> Callable[[str], str]:
    return lambda text: json.dumps(json.loads(text) | fields)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda _: "",
        lambda _: "[]",
        lambda _: "null",
        lambda _: "[" * 100_000,
        lambda text: "\udcff" + text,
        _without("labels"),
        _with(format=2),
        _with(key={"drafter": "x", "checker": "y", "signals": 1}),
        _with(judged=-1),
        _with(judged=True),
        _with(drafts=[float("nan")]),
        _with(drafts={}),
        _with(drafts="abc"),
        _with(seen={"steps": ["x"]}),
        _with(seen={"unheard": [1]}),
        _with(names=["unheard"]),
        _with(labels=[[True]]),
        _with(labels=[[1] * 25]),
    ],
)
def test_a_bad_file_is_moved_aside(tmp_path: Path, spoil: Callable[[str], str]) -> None:
    """Half a file, another program's, another form: learnt again, and the file can be looked at."""
    kept = KeptStates(tmp_path)
    kept.save(KEY, learnt())
    path = kept.path(KEY)
    spoilt = spoil(path.read_text(encoding="utf-8"))
    path.write_bytes(spoilt.encode(errors="surrogateescape"))
    assert kept.load(KEY) == State()
    assert not path.exists()
    assert path.with_suffix(".bad").exists()
    assert kept.save(KEY, learnt())
    assert kept.load(KEY).judged == 30


def test_a_giant_file_is_not_read(tmp_path: Path) -> None:
    """Nor parsed."""
    kept = KeptStates(tmp_path)
    kept.path(KEY).write_bytes(b" " * (9 << 20))
    assert kept.load(KEY) == State()
    assert kept.path(KEY).with_suffix(".bad").exists()


def test_a_death_between_writing_and_renaming_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is whole at every moment."""
    kept = KeptStates(tmp_path)
    kept.save(KEY, State(judged=1))

    class Killed(BaseException):
        pass

    def killed(self: Path, target: Path) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(Killed):
            kept.save(KEY, State(judged=2))
    assert kept.load(KEY).judged == 1


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    """It is logged, and the daemon goes on."""
    (tmp_path / "risk").write_text("a file")
    assert not KeptStates(tmp_path / "risk").save(KEY, State())
    assert KeptStates(tmp_path / "risk").load(KEY) == State()


def test_a_full_state_is_small(tmp_path: Path) -> None:
    """As much as is ever kept, in less than a MiB; and there is no text in it."""
    signals = {name: (signal.least + signal.most) / 3 for name, signal in SIGNALS.items()}
    label = Label(signals, good=True, source=Source.SHADOW, task="SUMMARISE", mode="balanced")
    state = State(
        seen={name: (value,) * KEPT for name, value in signals.items()},
        drafts=(1 / 3,) * KEPT,
        finals=(1 / 3,) * KEPT,
        refined=(1.0,) * KEPT,
        labels=tuple(replace(label, origin=f"{index:032x}/0") for index in range(KEPT_LABELS)),
    )
    kept = KeptStates(tmp_path)
    kept.save(KEY, state)
    assert kept.path(KEY).stat().st_size < 1 << 20
    assert len(kept.load(KEY).labels) == KEPT_LABELS
    assert kept.path(KEY).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "broken",
    [
        {"drafts": [10**400]},
        {"finals": [7.0]},
        {"refined": [-1]},
        {"judged": 10**400},
        {"seen": {"steps": [10**400]}},
    ],
    ids=str,
)
def test_impossible_numbers_are_moved_aside(tmp_path: Path, broken: dict[str, object]) -> None:
    """A limit that they made would ship everything, or nothing."""
    kept = KeptStates(tmp_path)
    kept.save(KEY, learnt())
    path = kept.path(KEY)
    path.write_text(json.dumps(json.loads(path.read_text()) | broken))
    assert kept.load(KEY) == State()
    assert path.with_suffix(".bad").exists()
