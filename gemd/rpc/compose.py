"""The daemon out of its settings: which real parts go into `App`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from gemd import paths
from gemd.catalog import BLOCK_DIFFUSION, Catalog
from gemd.catalog.choice.placing import runs_on
from gemd.config import load_settings
from gemd.doctor import Surroundings
from gemd.engine.builds.shelf import installed_builds
from gemd.engine.worker import Worker
from gemd.hardware import SensorBlindError, Sensors, read_cpu
from gemd.hardware.rapl import Rapl
from gemd.residency.accounts import Limits
from gemd.residency.kept_corrections import kept_corrections
from gemd.residency.pins import read_pins
from gemd.residency.placement import on_made_up_gpu
from gemd.rpc.advisor import Advisor
from gemd.rpc.app import App
from gemd.rpc.engine_figures import EngineFigures
from gemd.rpc.headers import Headers
from gemd.rpc.library import Library
from gemd.rpc.placing import Placer
from gemd.rpc.planned_engines import DIFFUSION
from gemd.rpc.two_tiers import Memory
from gemd.store import Store, Transport
from gemd.store.look import Looks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gemd import wire
    from gemd.config import Resolved, Settings
    from gemd.engine.builds.build import Build
    from gemd.engine.reports import StuckCallback
    from gemd.engine.spec import WorkerSpec
    from gemd.hardware import DeviceReading, Sample
    from gemd.paths import Paths
    from gemd.rpc.lifecycle import Identity

log = structlog.get_logger("gemd.worker")

PINS_FILE = "pins.json"
CORRECTIONS_FILE = "sizes.json"


def compose(
    resolved: Resolved, places: Paths, *, identity: Identity, environ: Mapping[str, str]
) -> App:
    """The daemon that these settings describe, not yet serving.

    Raises:
        ConfigError: A profile of the catalogue is not valid.

    """
    settings = resolved.settings
    sensors = Sensors.of_this_machine(devices_file=settings.devices_file)
    cpu = read_cpu(sensors.root)
    builds = _Builds(places.engines_dir).installed
    catalog = Catalog.load(
        paths.data_dir("profiles") / "models", places.config_file.parent / "models"
    )
    corrections = kept_corrections(places.state_dir / CORRECTIONS_FILE)
    library = Library(
        catalog=catalog,
        store=Store(places.store_dir, transport=_transport(settings, environ)),
        settings=settings,
        threads=settings.threads or cpu.physical_cores,
        environ=environ,
        placer=Placer(
            settings=settings,
            cpu=cpu,
            builds=builds,
            sample=lambda: app.senses.sample,
            simulated=sensors.devices is not None,
            factors=corrections.factors,
        ),
        made_up=partial(_made_up, sensors),
    )
    pins_file = places.state_dir / PINS_FILE
    app = App(
        identity=identity,
        settings=settings,
        paths=places,
        library=library,
        locate=library.locate,
        spawn=spawn,
        cpu=cpu,
        sensor=sensors.sensor(),
        surroundings=_surroundings(resolved, places, identity, environ),
        limits=Limits(
            ram_budget=settings.ram_budget,
            gpu_budget=settings.gpu_budget,
            gpu_margin=settings.gpu_margin,
            ram_margin=settings.ram_margin,
            placeable=partial(_is_placeable, builds),
        ),
        memory=Memory(resolved.origins, places.state_dir),
        pins=read_pins(pins_file),
        pins_file=pins_file,
        advisor=Advisor(
            library=library,
            settings=settings,
            cpu=cpu,
            profiles=paths.data_dir("profiles") / "devices",
            builds=builds,
            headers=Headers(Looks(places.cache_dir / "headers", _transport(settings, environ))),
            figures=EngineFigures(environ, builds),
            factors=corrections.factors,
        ),
        corrections=corrections,
        processor_energy=Rapl(sensors.root).read,
    )
    return app


def _surroundings(
    resolved: Resolved, places: Paths, identity: Identity, environ: Mapping[str, str]
) -> Surroundings:
    """Where the doctor makes its checks; what the daemon says of itself is put in later."""
    flags = {
        each.description.key: each.value
        for each in resolved.describe()
        if each.origin == each.description.flag
    }
    file = Path(identity.config_path) if identity.config_path else places.config_file
    return Surroundings(
        environ=environ,
        platform=sys.platform,
        home=Path(environ.get("HOME") or Path.home()),
        config_file=file,
        load=lambda: load_settings(environ=environ, file=file, flags=flags),
        report=lambda: None,
        sample=_no_sample,
        in_force=resolved,
    )


def _no_sample() -> Sample:
    raise SensorBlindError("the daemon does not sense yet")


class _Builds:
    """Engine builds, read again when the folder that they are in has changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: tuple[int, tuple[Build, ...]] | None = None

    def installed(self) -> tuple[Build, ...]:
        """All there are; cheap, because every sample asks."""
        try:
            mark = self._folder.stat().st_mtime_ns
        except OSError:
            mark = 0
        if self._read is None or self._read[0] != mark:
            self._read = (mark, installed_builds(self._folder))
        return self._read[1]


def _is_placeable(builds: Callable[[], Iterable[Build]], reading: DeviceReading) -> bool:
    """Whether a GPU is made up, or one of the engine builds runs on it."""
    if reading.simulated:
        return True
    usable = reading.backends
    return any(
        build.backend in usable
        and not build.broken
        and (build.engine != DIFFUSION or runs_on(BLOCK_DIFFUSION, reading))
        for build in builds()
    )


def _made_up(sensors: Sensors, estimate_bytes: int) -> Mapping[str, int]:
    if sensors.devices is None:
        return {}
    return on_made_up_gpu(sensors.devices.table(), estimate_bytes)


def _transport(settings: Settings, environ: Mapping[str, str]) -> Transport:
    return Transport(
        hub_endpoint=settings.hub_endpoint,
        hub_timeout_s=settings.hub_timeout,
        xet=settings.hub_transfer == "xet",
        offline=settings.offline,
        environ=environ,
    )


async def spawn(
    spec: WorkerSpec,
    *,
    report: Callable[[wire.Progress], None],
    born: Callable[[int], None],
    stuck: StuckCallback,
) -> Worker:
    """Start a worker whose standard error goes to the log."""
    log_line = partial(_say, spec.model)
    return await Worker.start(spec, report=report, log=log_line, born=born, stuck=stuck)


def _say(model: str, line: str) -> None:
    log.debug("worker.stderr", model=model, line=line)
