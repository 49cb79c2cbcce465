"""The environment of a worker."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gemd.engine.spec import checkout_directory, worker_environment

SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY")
MANAGER = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "INVOCATION_ID")


def test_what_finds_libraries_and_devices_is_kept() -> None:
    """And nothing secret, nothing of the service manager, nothing of the user's Python."""
    kept = {
        "PATH": "/bin",
        "HOME": "/h",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "LD_LIBRARY_PATH": "/l",
        "CUDA_VISIBLE_DEVICES": "GPU-1",
        "HIP_VISIBLE_DEVICES": "0",
    }
    dropped = dict.fromkeys((*SECRETS, *MANAGER, "PYTHONPATH", "PYTHONSTARTUP", "DISPLAY"), "x")
    assert worker_environment(kept | dropped) == kept | {"HF_HUB_OFFLINE": "1"}


@given(st.dictionaries(st.text(), st.text()))
def test_filtering_twice_is_filtering_once(environ: dict[str, str]) -> None:
    """An environment that has been filtered passes unchanged."""
    once = worker_environment(environ)
    assert worker_environment(once) == once


def test_a_checkout_is_put_on_the_path() -> None:
    """The child finds the package wherever it runs; an installed one needs no help."""
    environment = worker_environment({"PYTHONPATH": "/x"}, checkout=Path("/src"))
    assert environment["PYTHONPATH"] == "/src"
    directory = checkout_directory()
    assert directory is None or (directory / "gemd" / "wire").exists()
