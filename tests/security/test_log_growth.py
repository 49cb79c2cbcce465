"""The log file of a daemon whose standard error it is keeps its size, whoever writes into it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WRITING = """
import os, sys
from pathlib import Path
import structlog
from gemd import logs
from gemd.config import Settings
file = Path(sys.argv[1])
logs.FILE_BYTES = 5000
logs.configure_logging(Settings(), None, file=file)
log = structlog.get_logger("test")
for number in range(400):
    os.write(2, b"a line of a library, written past the log\\n")
    log.info("an event", number=number)
assert os.path.samestat(os.fstat(2), file.stat()), "standard error is another file"
assert os.path.samestat(os.fstat(1), Path(sys.argv[2]).stat()), "standard output was touched"
"""


def test_what_libraries_write_is_kept_small_too(tmp_path: Path) -> None:
    """After the file was put aside, standard error is the new one; other files stay."""
    log, other = tmp_path / "gemd.log", tmp_path / "output"
    with log.open("ab") as errors, other.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-c", WRITING, str(log), str(other)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=errors,
            check=False,
        )
    assert done.returncode == 0, log.read_text()
    files = {each.name: each.stat().st_size for each in tmp_path.iterdir()}
    assert sorted(files) == ["gemd.log", "gemd.log.1", "output"]
    assert files["gemd.log"] < 6000
    assert files["gemd.log.1"] < 6000
