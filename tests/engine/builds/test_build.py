"""Builds as values: what `engine.json` keeps, and what makes a build unusable."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.engine.builds.build import (
    BACKENDS,
    ENGINES,
    PINNED,
    Build,
    build_of,
    fault_of,
    folder_name,
    native_flags,
    python_tag,
    record_of,
)

words = st.text(st.characters(codec="utf-8"), max_size=12)
builds = st.builds(
    Build,
    engine=st.sampled_from(ENGINES),
    backend=st.sampled_from(BACKENDS),
    version=words,
    path=st.just(Path("/engines/x")),
    commit=words,
    ggml_version=words,
    flags=words,
    python_tag=words,
    cpu_flags=st.frozensets(words),
    created=st.datetimes(timezones=st.just(dt.UTC)),
    installed=words,
    devices=st.lists(words).map(tuple),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner) | st.dictionaries(words, inner),
)


def sound(**changes: object) -> Build:
    """A build that fits this interpreter."""
    given_: dict[str, object] = {
        "engine": "llama",
        "backend": "cpu",
        "version": PINNED["llama"],
        "python_tag": "cp311",
    }
    return Build(**(given_ | changes))  # type: ignore[arg-type]


@given(builds)
def test_a_record_is_the_build(build: Build) -> None:
    """Nothing is lost on the way through the file."""
    assert build_of(record_of(build), Path("/engines/x")) == build


@given(builds, st.data())
def test_a_spoilt_record_is_refused(build: Build, data: st.DataObject) -> None:
    """Whatever stands in the place of one value: the same kind of value, or a ValueError."""
    record = record_of(build)
    key = data.draw(st.sampled_from(sorted(record)))
    record[key] = data.draw(json_values)
    try:
        read = build_of(record, Path("/engines/x"))
    except ValueError:
        return
    assert record_of(read).keys() == record.keys()


def test_a_time_without_a_zone_is_refused() -> None:
    """It could not be compared with that of another build."""
    record = record_of(sound(created=dt.datetime(2026, 5, 1, tzinfo=dt.UTC)))
    with pytest.raises(ValueError, match="time zone"):
        build_of({**record, "created": "2026-05-01T00:00:00"}, Path("/engines/x"))


@given(json_values)
def test_anything_else_is_no_record(value: object) -> None:
    """A file of another program's is refused."""
    with pytest.raises(ValueError, match="layout"):
        build_of(value, Path("/x"))


@pytest.mark.parametrize(
    "build,says",
    [
        (sound(), ""),
        (sound(python_tag="cp312"), "it is for cp312, and gemd runs on cp311"),
        (sound(version="0.3.35"), f"it has version 0.3.35, and gemd needs {PINNED['llama']}"),
        (sound(cpu_flags=frozenset({"avx2"})), ""),
        (
            sound(cpu_flags=frozenset({"avx2", "avx512f"})),
            "it was compiled for a processor with avx512f",
        ),
    ],
)
def test_what_makes_a_build_unusable(build: Build, says: str) -> None:
    """Another Python, another version, a lesser processor; each in one sentence."""
    assert fault_of(build, tag="cp311", processor=frozenset({"avx2", "fma"})) == says


def test_an_unknown_processor_is_no_reason() -> None:
    """Where the kernel does not tell the instruction sets, nothing is said against a build."""
    build = sound(cpu_flags=frozenset({"avx512f"}))
    assert fault_of(build, tag="cp311", processor=frozenset()) == ""


def test_names() -> None:
    """A directory's name says what is in it."""
    assert folder_name("llama", "cuda", "0.3.36", "cp312") == "llama-cuda-0.3.36-cp312"
    assert python_tag().startswith("cp3")
    flags = frozenset({"sse4_2", "avx2", "avx512_vnni", "amx_int8", "hypervisor"})
    assert native_flags(flags) == {"avx2", "avx512_vnni"}


def test_the_pin_is_the_projects() -> None:
    """The version that is installed is the one whose structs the binding knows."""
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"llama-cpp-python=={PINNED["llama"]}"' in project
