"""What is known stays known, whatever becomes of the process that found it out.

The process is a script here that says what the real one would, and ends as it might.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.worker.diffusion.selftest.watching import Known, selftest

if TYPE_CHECKING:
    from pathlib import Path

BEFORE = r"""
say software begun; say software done '"torch": "2.13.0"'
say device begun '"kind": "cuda"'; say device done
say checkpoint begun; say checkpoint done
"""
REFERENCE = """say reference begun; say reference known '"right": 16'; say reference done"""
TRITON = """say triton begun '"obstacle": ""'; say triton known '"layer_error": 0.25'"""


def python(tmp_path: Path, script: str) -> list[str]:
    """What stands in for the interpreter: a shell with a function that tells a part.

    Parts that are made already are not told again, as by the real one. `$runs` counts processes.
    """
    file = tmp_path / "script"
    file.write_text(
        f"""
runs=$(($(cat {tmp_path}/runs 2>/dev/null || echo 0) + 1)); echo $runs > {tmp_path}/runs
made=" $* "
say() {{
    case "$made" in *" $1 "*) return;; esac
    echo "{{\\"part\\": \\"$1\\", \\"state\\": \\"$2\\"${{3:+, $3}}}}"
}}
made() {{ case "$made" in *" $1 "*) true;; *) false;; esac; }}
{script}
"""
    )
    return ["sh", str(file)]


def runs(tmp_path: Path) -> int:
    """How many processes there were."""
    return int((tmp_path / "runs").read_text())


def test_one_process_that_tells_everything(tmp_path: Path) -> None:
    """Its document by parts, in their order, and each part as it begins."""
    script = f"{BEFORE}\n{REFERENCE}\n{TRITON}\nsay triton done\nsay end done"
    began: list[str] = []
    found = selftest("cuda", python=python(tmp_path, script), tell=began.append)
    assert found == {
        "software": {"torch": "2.13.0"},
        "device": {"kind": "cuda"},
        "checkpoint": {},
        "paths": [
            {"name": "reference", "right": 16},
            {"name": "triton", "obstacle": "", "layer_error": 0.25},
        ],
    }
    assert began == ["software", "device", "checkpoint", "reference", "triton"]
    assert runs(tmp_path) == 1


@pytest.mark.parametrize(
    "end,says",
    [
        ("kill -ILL $$", "SIGILL: torch was compiled for another processor than this one"),
        ("kill -KILL $$", "SIGKILL: it was killed, as happens where memory is short"),
        ("echo 'CUDA error: misaligned' >&2; kill -ABRT $$", "SIGABRT: CUDA error: misaligned"),
        ("echo 'two\nlines' >&2; exit 3", "its process ended with 3: lines"),
        ("exit 0", "its process ended with 0: it said nothing"),
    ],
)
def test_a_path_that_dies_takes_no_other_along(tmp_path: Path, end: str, says: str) -> None:
    """Another process does what is left; numbers told before the end are kept."""
    script = f"{BEFORE}\nmade triton || {{ {TRITON}; {end}; }}\n{REFERENCE}\nsay end done"
    found = selftest("cuda", python=python(tmp_path, script))
    triton, reference = found["paths"]
    assert triton["layer_error"] == 0.25
    assert triton["died"]
    assert triton["problem"].endswith(says)
    assert reference == {"name": "reference", "right": 16}
    assert runs(tmp_path) == 2


def test_a_process_that_has_lost_its_gpu_is_replaced(tmp_path: Path) -> None:
    """It says so, is done with the part, and ends without the last line."""
    lost = """say triton done '"fatal": true, "problem": "a fault"'; exit 0"""
    script = f"{BEFORE}\nmade triton || {{ {TRITON}; {lost}; }}\n{REFERENCE}\nsay end done"
    triton, reference = selftest("cuda", python=python(tmp_path, script))["paths"]
    assert triton["problem"] == "a fault"
    assert reference["right"] == 16
    assert runs(tmp_path) == 2


def test_a_process_that_hangs_is_ended(tmp_path: Path) -> None:
    """After a while without a word; the next one does what is left."""
    script = f"{BEFORE}\nmade triton || {{ {TRITON}; exec sleep 600; }}\n{REFERENCE}\nsay end done"
    triton, reference = selftest("cuda", python=python(tmp_path, script), limit_s=0.5)["paths"]
    assert triton["problem"] == "it has not gone on for 0.5 s"
    assert reference["right"] == 16


def test_one_that_hangs_at_its_end_is_not_waited_for(tmp_path: Path) -> None:
    """All is told; a driver that does not let go of it keeps nobody."""
    found = selftest(
        "cuda", python=python(tmp_path, f"{BEFORE}\n{REFERENCE}\nsay end done\nexec sleep 600")
    )
    assert [each["name"] for each in found["paths"]] == ["reference"]


@pytest.mark.parametrize("part", ["software", "device", "checkpoint"])
def test_without_the_first_parts_there_are_no_others(tmp_path: Path, part: str) -> None:
    """A library that kills its process at import would kill every other one."""
    script = BEFORE.replace(f"say {part} done", f"kill -ILL $$; say {part} done")
    found = selftest("cpu", python=python(tmp_path, script))
    assert "SIGILL" in found[part]["problem"]
    assert found["paths"] == []
    assert runs(tmp_path) == 1


def test_processes_that_get_nowhere_are_given_up(tmp_path: Path) -> None:
    """One that dies between parts is tried again, and that is all."""
    found = selftest("cpu", python=python(tmp_path, f"{BEFORE}\n{REFERENCE}\necho no >&2; exit 1"))
    assert found["problem"] == "its process ended with 1: no"
    assert found["paths"] == [{"name": "reference", "right": 16}]
    assert runs(tmp_path) == 2


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    """The report says so."""
    found = selftest("cpu", python=[str(tmp_path / "python")])
    assert found["problem"].startswith("its process cannot be started: No such file")


def test_what_else_is_printed_is_no_line() -> None:
    """Of whatever form."""
    known = Known()
    for line in ("", "warning", "[]", "3", "null", '{"part": 1}', "{"):
        assert not known.take(line)
    assert known.document() == {"paths": []}


def test_the_interpreter_of_tritons_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It computes on a processor what is meant for a GPU."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    script = """say software done "\\"problem\\": \\"${TRITON_INTERPRET:-unset}\\""; say end done"""
    assert selftest("cpu", python=python(tmp_path, script))["software"] == {"problem": "unset"}
