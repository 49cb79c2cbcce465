"""Reading the kernel's counters of OOM kills."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.engine.oom import oom_kills

if TYPE_CHECKING:
    from pathlib import Path

VMSTAT = "nr_free_pages 12\noom_kill 7\noom_killer 9\n"


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    "files,expected",
    [
        (
            {
                "proc/self/cgroup": "0::/user.slice/gemd.service\n",
                "sys/fs/cgroup/user.slice/gemd.service/memory.events": "low 0\noom 3\noom_kill 2\n",
                "proc/vmstat": VMSTAT,
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,memory:/box\n1:cpu:/x\n0::/\n",
                "sys/fs/cgroup/memory/box/memory.oom_control": "under_oom 0\noom_kill 4\n",
                "proc/vmstat": VMSTAT,
            },
            4,
        ),
        ({"proc/self/cgroup": "0::/\n", "proc/vmstat": VMSTAT}, 7),
        ({"proc/vmstat": VMSTAT}, 7),
        ({"proc/vmstat": "oom_kill many\n"}, None),
        ({}, None),
    ],
)
def test_the_nearest_counter_counts(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    """The cgroup's own, else the machine's, else nothing is claimed."""
    assert oom_kills(_write(tmp_path, files)) == expected
