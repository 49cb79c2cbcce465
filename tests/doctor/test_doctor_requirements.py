from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement as Reference
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from gemd.doctor.python import ENGINE, MODULES
from gemd.doctor.requirements import allows, parse_requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RELEASES = st.lists(st.integers(0, 12), min_size=1, max_size=4).map(
    lambda parts: ".".join(map(str, parts))
)
VERSIONS = st.builds(str.__add__, RELEASES, st.sampled_from(["", "", "rc1", "a2", ".dev3", "+cu1"]))
CLAUSES = st.builds(str.__add__, st.sampled_from([">=", "<=", "==", "!=", ">", "<"]), RELEASES)


@given(VERSIONS, st.lists(CLAUSES, max_size=3).map(",".join))
def test_ranges_mean_what_the_standard_says(version: str, specifier: str) -> None:
    """Compared with the reference; of a release itself, that leaves pre-releases out of ``<``."""
    parsed = Version(version)
    mine = allows(specifier, version)
    if not parsed.is_prerelease:
        assert mine is SpecifierSet(specifier).contains(parsed, prereleases=True)
        return
    assert mine is not None
    later = Version(parsed.base_version)
    if all(Version(each.version) != later for each in SpecifierSet(specifier)):
        assert mine is SpecifierSet(specifier).contains(parsed, prereleases=True)


@pytest.mark.parametrize(
    "specifier,version,wanted",
    [
        (">=1.76,<2", "1.80.0", True),
        (">=1.76,<2", "2.0", False),
        (">=1.76,<2", "1.9", False),
        (">=2", "2.0rc1", False),
        ("==0.3.36", "0.3.36", True),
        ("==0.3.36", "0.3.37", False),
        ("", "1", True),
        ("~=1.4", "1.5", None),
        ("==1.*", "1.5", None),
        (">=1", "1.0.post1", None),
        (">=1", "unknown", None),
    ],
)
def test_what_is_not_understood_is_not_judged(
    specifier: str, version: str, *, wanted: bool | None
) -> None:
    """Plain ranges are; other forms give no answer instead of a wrong one."""
    assert allows(specifier, version) is wanted


def test_all_of_our_own_requirements_are_understood() -> None:
    """Name and range are those of the reference, extras and markers aside."""
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["diffusion"]]
    for line in [*lines, "x[y]>=2; extra == 'dev'", "z (>=1,<2)"]:
        mine, reference = parse_requirement(line), Reference(line)
        assert mine is not None
        assert mine.name == reference.name
        assert SpecifierSet(mine.specifier) == reference.specifier
        assert bool(mine.marker) is (reference.marker is not None)
    assert parse_requirement("?") is None


def test_each_dependency_has_the_module_it_is_there_for() -> None:
    """The table names the dependencies of the project, and no others."""
    names = {Reference(line).name for line in PROJECT["dependencies"]}
    assert MODULES.keys() == names - {ENGINE}
