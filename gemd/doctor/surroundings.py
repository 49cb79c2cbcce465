"""What the checks look at: the environment, the settings, the machine, and the running daemon.

All of it is handed in, so that the daemon and `gemctl` make the same checks, each from where
it stands.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from gemd.catalog import Catalog
from gemd.doctor.diagnosis import CannotCheckError
from gemd.errors import ConfigError
from gemd.paths import data_dir, resolve_paths
from gemd.store.threads import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.config import Resolved, Settings
    from gemd.hardware import Sample
    from gemd.paths import Paths

T = TypeVar("T")


class NoAnswerError(Exception):
    """A daemon runs and does not say what it was asked for. Its text says why."""


class Once(Generic[T]):
    """Calls a function once, for all threads, and gives or raises what came of that.

    Args:
        make: The function.

    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._outcome: tuple[T] | Exception | None = None

    def __call__(self) -> T:
        """What it returned or raised; the first caller waits for it, and the others for that."""
        with self._lock:
            if self._outcome is None:
                try:
                    self._outcome = (self._make(),)
                except Exception as error:  # noqa: BLE001 - it is raised in every caller
                    self._outcome = error
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome[0]


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that a daemon reports of itself.

    Attributes:
        severity: ``INFO``, ``WARNING`` or ``ERROR``.
        message: What holds, in one sentence.
        advice: Literal commands to try.

    """

    severity: str
    message: str
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DaemonReport:
    """What a running daemon says of itself.

    Attributes:
        version: Of its code.
        pid: Of its process.
        state: ``STARTING``, ``SERVING`` or ``DRAINING``.
        uptime_s: Seconds since it started.
        started_by: ``AUTOSTART``, ``SERVICE`` or ``MANUAL``.
        workers: By pid of each process that holds a model, the device that the model is on.
        conditions: What it reports; only those that hold.

    """

    version: str
    pid: int
    state: str
    uptime_s: float
    started_by: str
    workers: Mapping[int, str] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Errand:
    """How one check is made.

    Attributes:
        thorough: Whether it may take minutes and memory.
        stop: Set when nobody waits for it any more.

    """

    thorough: bool = False
    stop: Stop = field(default_factory=Stop)


@dataclass(frozen=True)
class Surroundings:
    """Where the checks are made.

    Attributes:
        environ: The environment that counts: of the daemon, or of `gemctl`.
        platform: `sys.platform`.
        home: The user's home directory.
        config_file: The settings file, which need not exist.
        load: Reads the settings anew; raises ConfigError.
        report: What the running daemon says; None if none runs. Raises NoAnswerError. Several
            checks ask at the same time.
        sample: A reading of all devices; raises SensorBlindError. As above.
        planned: Id of the model that suits this machine best; None if that is not known here.
        in_force: The settings that a running daemon works with, if it is the one that asks.
        root: Where /proc, /sys and /dev are.

    """

    environ: Mapping[str, str]
    platform: str
    home: Path
    config_file: Path
    load: Callable[[], Resolved]
    report: Callable[[], DaemonReport | None]
    sample: Callable[[], Sample]
    planned: Callable[[], str | None] = lambda: None
    in_force: Resolved | None = None
    root: Path = Path("/")

    @cached_property
    def resolved(self) -> Resolved:
        """The settings that count: those in force, else those that a daemon would read now.

        Raises:
            CannotCheckError: They are wrong; the check of the settings says how.

        """
        if self.in_force is not None:
            return self.in_force
        try:
            return self.load()
        except ConfigError:
            raise CannotCheckError("not looked at, because the settings are wrong") from None

    @property
    def settings(self) -> Settings:
        """The values of `resolved`."""
        return self.resolved.settings

    @cached_property
    def paths(self) -> Paths:
        """Directories and files. Raises CannotCheckError as `resolved` does."""
        return resolve_paths(
            self.environ, platform=self.platform, home=self.home, settings=self.settings
        )

    def catalog(self) -> Catalog:
        """The profiles of models as they are now, gemd's own and the user's. Raises GemdError."""
        return Catalog.load(data_dir("profiles") / "models", self.user_profiles)

    @property
    def user_profiles(self) -> Path:
        """Folder of the user's own profiles, which need not exist."""
        return self.paths.config_file.parent / "models"
