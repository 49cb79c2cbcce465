"""`gemctl batch` with a real daemon, and killed twice on its way."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from gemd.cli.failures import Exit
from tests.support.daemon_process import home, serving
from tests.support.desktop import wait_until
from tests.support.gemctl import Gemctl

if TYPE_CHECKING:
    from pathlib import Path


def job(number: int) -> dict[str, Any]:
    """A job for the scripted model; some take far longer than others."""
    seconds = 0.2 if number % 3 == 0 else 0.01
    told = json.dumps({"tokens": ["job", f" {number}"], "token_seconds": seconds})
    prompt = "{no script" if number == 7 else told
    return {"id": f"j{number}", "prompt": prompt, "max_tokens": 4 if number % 2 else 400}


def test_a_killed_batch_goes_on_where_it_was() -> None:
    """Through a real daemon: every result once, in order, and none computed a second time.

    But for those that were under way when the process was killed.
    """
    count, at_once = 60, 4
    with home() as made, serving(made):
        gemctl = Gemctl(made.environ(GEMD_SOCKET=str(made.socket)))
        file, out = made.path / "jobs.jsonl", made.path / "out.jsonl"
        journal = made.path / "out.jsonl.journal"
        file.write_text("".join(json.dumps(job(number)) + "\n" for number in range(count)))
        kills = 0
        for enough in (4, 25):
            process = gemctl.start("batch", str(file), "-o", str(out), "--jobs", str(at_once))
            wait_until(partial(has, out, journal, enough), what="some results")
            process.kill()
            process.communicate()
            kills += 1
        # As a kill in the middle of a write leaves it.
        with out.open("ab") as cut:
            cut.write(b'{"id": "j9", "job": "12')
        had = len(done(out) | done(journal))
        assert 0 < had < count
        last = gemctl("batch", str(file), "-o", str(out), "--jobs", str(at_once))
        assert last.returncode == Exit.FAILURE, last.stderr
        assert f"{count - had} jobs in " in last.stderr
        assert f", {had} were done before; the results are in {out}" in last.stderr
        found = [json.loads(line) for line in out.read_text().splitlines()]
        assert [one["id"] for one in found] == [f"j{number}" for number in range(count)]
        failed = {one["id"]: one["error"] for one in found if "error" in one}
        assert set(failed) == {"j7"}, failed
        assert failed["j7"]["reason"] == "INVALID_REQUEST"
        texts = [one.get("text") for one in found]
        assert texts == [None if at == 7 else f"job {at}" for at in range(count)]
        assert not journal.exists()
        status = json.loads(gemctl("status", "--json").stdout)
        assert status["statistics"]["requests"] <= count + kills * at_once


def has(out: Path, journal: Path, enough: int) -> bool:
    """Whether there are so many results."""
    return len(done(out) | done(journal)) >= enough


def done(path: Path) -> set[str]:
    """Ids of the complete results in a file."""
    if not path.exists():
        return set()
    return {json.loads(line)["id"] for line in path.read_bytes().split(b"\n")[:-1]}
