"""The daemon out of its settings: which real parts go into `App`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog

from gemd import paths
from gemd.catalog import Catalog
from gemd.engine.worker import Worker
from gemd.hardware import Sensors, read_cpu
from gemd.residency.accounts import Limits
from gemd.residency.pins import read_pins
from gemd.residency.placement import on_made_up_gpu
from gemd.rpc.app import App
from gemd.rpc.library import Library
from gemd.store import Store, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd import wire
    from gemd.config import Resolved, Settings
    from gemd.engine.reports import StuckCallback
    from gemd.engine.spec import WorkerSpec
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
    catalog = Catalog.load(
        paths.data_dir("profiles") / "models", places.config_file.parent / "models"
    )
    library = Library(
        catalog=catalog,
        store=Store(places.store_dir, transport=_transport(settings, environ)),
        settings=settings,
        threads=settings.threads or cpu.physical_cores,
        environ=environ,
        place=partial(_place, sensors),
    )
    pins_file = places.state_dir / PINS_FILE
    return App(
        identity=identity,
        settings=settings,
        paths=places,
        library=library,
        locate=library.locate,
        spawn=spawn,
        cpu=cpu,
        sensor=sensors.sensor(),
        limits=Limits(
            ram_budget=settings.ram_budget,
            gpu_budget=settings.gpu_budget,
            gpu_margin=settings.gpu_margin,
            ram_margin=settings.ram_margin,
        ),
        default_origin=resolved.origins["default_model"],
        pins=read_pins(pins_file),
        pins_file=pins_file,
        corrections_file=places.state_dir / CORRECTIONS_FILE,
    )


def _place(sensors: Sensors, estimate_bytes: int) -> Mapping[str, int]:
    if sensors.devices is None:
        return {}
    return on_made_up_gpu(sensors.devices.table(), estimate_bytes)


def _transport(settings: Settings, environ: Mapping[str, str]) -> Transport:
    return Transport(
        hub_endpoint=settings.hub_endpoint,
        hub_timeout_s=settings.hub_timeout,
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
