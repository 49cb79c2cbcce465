"""`directories`: whether gemd's directories exist or can be made, and are whose they should be.

That of the socket belongs to the check `socket`.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.doctor.diagnosis import conclude, failure, warning
from gemd.doctor.folders import NETWORK_TYPES, exposed, look_at, unfit
from gemd.doctor.words import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.doctor.diagnosis import Diagnosis, Finding
    from gemd.doctor.folders import Folder
    from gemd.doctor.surroundings import Errand, Surroundings

NAME: Final = "directories"
_MEMORY_TYPES: Final = frozenset({"tmpfs", "ramfs"})


@dataclass(frozen=True, slots=True)
class DirectoryFacts:
    """Gemd's directories.

    Attributes:
        user: Id of this user.
        home: Of this user.
        state: What has to survive a restart.
        cache: What can be fetched again.
        store: Of the models.
        engines: Of engine builds.

    """

    user: int
    home: Path
    state: Folder
    cache: Folder
    store: Folder
    engines: Folder


def examine_directories(around: Surroundings, _: Errand) -> Diagnosis:
    """Look at them and judge; nothing is made."""
    paths, root = around.paths, around.root
    return check_directories(
        DirectoryFacts(
            user=os.getuid(),
            home=around.home,
            state=look_at(paths.state_dir, root=root),
            cache=look_at(paths.cache_dir, root=root),
            store=look_at(paths.store_dir, root=root),
            engines=look_at(paths.engines_dir, root=root),
        )
    )


def check_directories(facts: DirectoryFacts) -> Diagnosis:
    """Judge them."""
    absent = [
        role for role, folder in _by_role(facts).items() if not folder.exists and not folder.problem
    ]
    made = f"still to be made: {', '.join(absent)}" if absent else "all there"
    return conclude(NAME, _findings(facts), facts=f"models in {facts.store.path}; {made}")


def _by_role(facts: DirectoryFacts) -> dict[str, Folder]:
    return {
        "state": facts.state,
        "cache": facts.cache,
        "models": facts.store,
        "engines": facts.engines,
    }


def _findings(facts: DirectoryFacts) -> Iterator[Finding]:
    for role, folder in _by_role(facts).items():
        yield from unfit(folder, role, user=facts.user, home=facts.home)
    yield from exposed(facts.state, "state", user=facts.user, home=facts.home)
    if facts.state.filesystem in NETWORK_TYPES:
        yield warning(
            f"state {facts.state.path} is on {facts.state.filesystem}: two machines that share it "
            "overwrite each other's",
            'export XDG_STATE_HOME="/path/on/a/local/disk"',
        )
    yield from _of_the_store(facts.store)


def _of_the_store(store: Folder) -> Iterator[Finding]:
    if store.exists and store.mode & stat.S_IWOTH:
        yield failure(
            f"everybody may write to {store.path} (mode {store.mode:04o}), also files of theirs",
            f"chmod o-w {quoted(store.path)}",
        )
    move = 'export GEMD_STORE_DIR="/path/on/a/local/disk"'
    if store.filesystem in NETWORK_TYPES:
        yield warning(
            f"models are on {store.filesystem}: weights are mapped, so that every load, and every "
            "page that memory pressure drops, comes over the network",
            move,
        )
    elif store.filesystem in _MEMORY_TYPES:
        yield warning(
            f"models are on {store.filesystem}: they take main memory, and are gone after a reboot",
            move,
        )
