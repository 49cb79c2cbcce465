"""`index`: whether the Python package index has the model that needs no hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.catalog import PackageSource
from gemd.doctor.catalogue import embedded
from gemd.doctor.diagnosis import CannotCheckError, conclude, warning
from gemd.doctor.network import reach, unset_proxies
from gemd.errors import GemdError
from gemd.store import Store
from gemd.store.indexes import find_indexes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.catalog import Profile
    from gemd.doctor.diagnosis import Diagnosis, Finding
    from gemd.doctor.network import Reached
    from gemd.doctor.surroundings import Errand, Surroundings

NAME: Final = "index"
_ACCEPT: Final = {"Accept": "application/vnd.pypi.simple.v1+json, text/html;q=0.1"}
_OK: Final = 200
_DENIED: Final = frozenset({401, 403})
_LIMIT_S: Final = 5.0
MOST: Final = 3
"""Indexes that are asked; more are rare, and each may take its whole time."""


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """The package indexes.

    Attributes:
        package: What is looked for.
        model: The model that is in it.
        on_disk: Whether that is on disk already.
        reached: How each index answered, main one first; none where settings forbid them.
        unset_proxies: The command that takes proxies away; empty where none is set.

    """

    package: str
    model: str
    on_disk: bool
    reached: tuple[Reached, ...] = ()
    unset_proxies: str = ""


def examine_index(around: Surroundings, _: Errand) -> Diagnosis:
    """Ask each index once and judge."""
    if around.settings.offline:
        raise CannotCheckError("not asked: the setting offline keeps gemd from the network")
    profile = _embedded(around)
    package = _package_of(profile)
    indexes = find_indexes(around.environ)
    reached = []
    for base in indexes.urls[:MOST]:
        found = reach(
            f"{base}/{package}/",
            around.environ,
            limit_s=_LIMIT_S,
            certificates=indexes.certificates,
            headers=_ACCEPT,
        )
        reached.append(found)
        if found.status == _OK:
            break
    return check_index(
        IndexFacts(
            package=package,
            model=profile.id,
            on_disk=Store(around.paths.store_dir).on_disk(profile),
            reached=tuple(reached),
            unset_proxies=unset_proxies(around.environ),
        )
    )


def check_index(facts: IndexFacts) -> Diagnosis:
    """Judge them."""
    seen = [f"{facts.model} is on disk already"] if facts.on_disk else []
    has = [each for each in facts.reached if each.status == _OK]
    if has:
        proxy = f" through the proxy {has[0].proxy}" if has[0].proxy else ""
        seen.insert(0, f"{has[0].url} answers{proxy}")
    return conclude(NAME, [] if has else _findings(facts), facts=", ".join(seen))


def _findings(facts: IndexFacts) -> Iterator[Finding]:
    if not facts.reached:
        yield warning(
            "the settings of pip or uv forbid indexes or name none by http(s)", "pip config list"
        )
    for each in facts.reached:
        if each.status in _DENIED:
            why = f"it answered {each.status}: a login is missing or wrong"
        elif each.problem:
            why = each.problem
        else:
            why = f"it answered {each.status}"
        fixes = ["pip config list", f"pip download --no-deps {facts.package}"]
        if each.problem and facts.unset_proxies:
            fixes.append(facts.unset_proxies)
        yield warning(f"{each.url} does not give {facts.package}: {why}", *fixes)


def _embedded(around: Surroundings) -> Profile:
    """The model that comes from a package, so that the first answer needs no hub."""
    try:
        found = embedded(around.catalog())
    except GemdError as error:
        raise CannotCheckError(f"not asked, because of the catalogue: {error}") from None
    if found is None:
        raise CannotCheckError("not asked: no profile of the catalogue has the role «default»")
    return found


def _package_of(profile: Profile) -> str:
    for variant in profile.variants:
        for source in variant.sources:
            if isinstance(source, PackageSource):
                return source.parts[0].package
    raise CannotCheckError(f"not asked: the profile {profile.id} names no package")
