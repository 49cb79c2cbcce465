from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.config import load_settings
from gemd.doctor import CannotCheckError, Result
from gemd.doctor.memory import examine_memory
from gemd.doctor.settings import SettingsFacts, check_settings, examine_settings
from tests.support.doctoring import made, surroundings, write

if TYPE_CHECKING:
    from pathlib import Path


def test_defaults_are_fine(tmp_path: Path) -> None:
    """It is said that there is no file, and that nothing is set."""
    around = surroundings(tmp_path)
    found = made(examine_settings, around)
    assert (found.result, found.fixes) == (Result.OK, ())
    assert found.detail == f"{around.config_file} does not exist; all defaults"


def test_what_is_set_is_said_with_its_origin(tmp_path: Path) -> None:
    """The file and the environment are told apart."""
    around = surroundings(tmp_path, environ={"GEMD_PARALLEL": "2", "GEMD_CONFIG": ""})
    write(around.config_file, 'log_level = "debug"').chmod(0o600)
    found = made(examine_settings, around)
    assert found.result is Result.OK
    assert found.detail == (
        f"{around.config_file}; 2 values set: log_level = debug (file), "
        "parallel = 2 (GEMD_PARALLEL)"
    )


@pytest.mark.parametrize(
    "text,says",
    [
        ("log_levl = 'debug'", "the nearest one is log_level"),
        ("parallel = 0", "allowed is a whole number from 1 to 64"),
        ("= nonsense", "cannot be read"),
    ],
)
def test_wrong_settings_fail_and_other_checks_say_so(tmp_path: Path, text: str, says: str) -> None:
    """With the words and the advice that the daemon itself would end with."""
    around = surroundings(tmp_path)
    write(around.config_file, text)
    found = made(examine_settings, around)
    assert found.result is Result.FAILED
    assert says in found.detail
    assert any(str(around.config_file) in fix for fix in found.fixes)
    with pytest.raises(CannotCheckError, match="the settings are wrong"):
        made(examine_memory, around)


def test_what_others_may_write_and_what_means_nothing_is_a_warning(tmp_path: Path) -> None:
    """Each with the command that ends it."""
    around = surroundings(tmp_path, environ={"GEMD_WHATEVER": "1", "GEMD_DEBUG": "1"})
    write(around.config_file).chmod(0o620)
    found = made(examine_settings, around)
    assert found.result is Result.WARNING
    assert found.fixes == (f"chmod go-w {around.config_file}", "unset GEMD_WHATEVER")
    assert "GEMD_WHATEVER is no setting of gemd" in found.detail
    assert "GEMD_DEBUG" not in found.detail


def test_a_daemon_sees_what_it_does_not_have_yet(tmp_path: Path) -> None:
    """Values that changed since it started are named; what it works with counts for the others."""
    plain = surroundings(tmp_path)
    around = surroundings(tmp_path, in_force=load_settings(environ={}))
    assert made(examine_settings, around).result is Result.OK
    write(plain.config_file, 'parallel = 3\nram_budget = "25%"').chmod(0o600)
    found = made(examine_settings, around)
    assert found.result is Result.WARNING
    assert "parallel, ram_budget changed since the daemon started" in found.detail
    assert found.fixes == ("gemctl stop",)
    assert "budget 4.0 GiB (50%)" in made(examine_memory, around).detail
    write(plain.config_file, "parallel = 0")
    assert made(examine_settings, around).result is Result.FAILED


def test_many_values_are_cut_short(tmp_path: Path) -> None:
    """The row stays one that can be read."""
    facts = SettingsFacts(tmp_path, mode=0o600, changed=tuple(f"k{n} = v" for n in range(30)))
    assert check_settings(facts).detail.endswith("k4 = v and 25 more")
