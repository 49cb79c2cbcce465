"""A daemon inside the test's own loop: real gRPC, real socket, real scripted workers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from gemd.catalog import Catalog, LocalSource, Profile, SamplingDefaults, Variant
from gemd.config import Resolved, Settings
from gemd.doctor import Surroundings
from gemd.engine.worker import Worker
from gemd.hardware import Cpu, SensorBlindError
from gemd.paths import Paths, data_dir, resolve_paths
from gemd.quantities import Budget
from gemd.residency.accounts import Limits
from gemd.residency.corrections import Corrections
from gemd.residency.crashes import CrashPolicy
from gemd.rpc.advisor import Advisor
from gemd.rpc.app import App
from gemd.rpc.engine_figures import EngineFigures
from gemd.rpc.headers import Headers
from gemd.rpc.library import Library
from gemd.rpc.lifecycle import Identity, StartedBy
from gemd.rpc.two_tiers import Memory
from gemd.store import Store, Transport
from gemd.store.look import Looks
from gemd.v1 import (
    daemon_service_pb2_grpc,
    generation_service_pb2_grpc,
    lease_service_pb2_grpc,
    model_service_pb2_grpc,
    operation_service_pb2_grpc,
    store_service_pb2_grpc,
)
from gemd.v1 import generation_service_pb2 as generation
from tests.support.sensing import FakeSensor
from tests.support.workers import QUICK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from gemd import wire
    from gemd.engine.reports import StuckCallback
    from gemd.engine.spec import WorkerSpec
    from gemd.hardware import Sample, Sensor
    from gemd.hardware.rapl import Counted
    from gemd.residency.states import Located

MIB = 2**20
GIB = 2**30
MODEL = "local/scripted"
TEST_CPU = Cpu("Test CPU", 2, frozenset({"avx2", "sse2"}))
SMALL_WINDOW = (
    ("grpc.default_authority", "localhost"),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 16),
)
"""A client that lets 64 KiB lie unread, as most languages do."""


def profile(path: Path, *, name: str = MODEL, **changes: Any) -> Profile:
    """A model of the scripted engine, whose file is anything."""
    variant = Variant(
        id="file",
        quantization="none",
        engine="scripted",
        file_name=path.name,
        size_bytes=path.stat().st_size,
        sources=(LocalSource(path=path),),
    )
    values: dict[str, Any] = {
        "id": name,
        "display_name": name,
        "family": "scripted",
        "context_tokens": 4096,
        "roles": ("strong",),
        "variants": (variant,),
        "defaults": SamplingDefaults(),
    }
    return Profile(**(values | changes))


@dataclass
class Running:
    """A daemon that serves, and a channel to it."""

    app: App
    paths: Paths
    channel: grpc.aio.Channel
    profile: Profile
    specs: list[WorkerSpec] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)

    @property
    def generation(self) -> generation_service_pb2_grpc.GenerationServiceAsyncStub:
        """Stub."""
        return generation_service_pb2_grpc.GenerationServiceStub(self.channel)

    @property
    def leases(self) -> lease_service_pb2_grpc.LeaseServiceAsyncStub:
        """Stub."""
        return lease_service_pb2_grpc.LeaseServiceStub(self.channel)

    @property
    def models(self) -> model_service_pb2_grpc.ModelServiceAsyncStub:
        """Stub."""
        return model_service_pb2_grpc.ModelServiceStub(self.channel)

    @property
    def daemon(self) -> daemon_service_pb2_grpc.DaemonServiceAsyncStub:
        """Stub."""
        return daemon_service_pb2_grpc.DaemonServiceStub(self.channel)

    @property
    def store(self) -> store_service_pb2_grpc.StoreServiceAsyncStub:
        """Stub."""
        return store_service_pb2_grpc.StoreServiceStub(self.channel)

    @property
    def operations(self) -> operation_service_pb2_grpc.OperationServiceAsyncStub:
        """Stub."""
        return operation_service_pb2_grpc.OperationServiceStub(self.channel)

    def ask(self, text: str = "", **script: Any) -> Any:
        """Generate on the scripted model: these words, or this script."""
        prompt = text or json.dumps(script)
        return self.generation.Generate(generation.GenerateRequest(text=prompt, model=MODEL))

    async def answer(self, text: str = "", **script: Any) -> str:
        """The whole answer of `ask`."""
        return "".join([event.delta.text async for event in self.ask(text, **script)])


async def until_delta(answer: Any) -> None:
    """Read an answer to its first text."""
    async for event in answer:
        if event.WhichOneof("event") == "delta":
            return


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """A private directory whose path is short enough for a socket, wherever pytest's is."""
    with tempfile.TemporaryDirectory(prefix="gemd-", dir=os.environ.get("TMPDIR")) as name:
        yield Path(name)


@contextlib.asynccontextmanager
async def serving(
    *,
    load: dict[str, Any] | None = None,
    loads: Mapping[str, dict[str, Any]] | None = None,
    sensor: Sensor | None = None,
    budget_bytes: int = GIB,
    adapt: Callable[[Located], Located] = lambda located: located,
    spawn: Callable[..., Any] = Worker.start,
    catalog: Callable[[Path], list[Profile]] | None = None,
    default_origin: str = "default",
    memory: Path | None = None,
    store: Callable[[Path], Store] = Store,
    processor_energy: Callable[[], Mapping[str, Counted]] = dict,
    **settings: Any,
) -> AsyncIterator[Running]:
    """A daemon with scripted models.

    Args:
        load: The LoadScript of every worker.
        loads: Those of some models, which take its place.
        sensor: Says what the machine has; by default 8 GiB of RAM, 2 of them taken.
        budget_bytes: For all workers.
        adapt: Changes what a load needs.
        spawn: Starts workers.
        catalog: Makes the profiles, given a file; by default one named `MODEL`.
        default_origin: What set the default model.
        memory: Where what requests teach is kept.
        store: Makes the store, given its folder.
        processor_energy: What counters of processors say.
        settings: Fields of `Settings`.

    """
    with short_directory() as home:
        file = home / "scripted.gguf"
        file.write_bytes(b"GGUFtest")
        profiles = catalog(file) if catalog else [profile(file)]
        in_force = Settings(**{"default_model": MODEL, "parallel": 4} | settings)
        environ = {**os.environ, "XDG_RUNTIME_DIR": str(home), "XDG_STATE_HOME": str(home)}
        places = resolve_paths(environ, platform=sys.platform, home=home, settings=in_force)
        places.runtime_dir.mkdir(mode=0o700, exist_ok=True)
        library = Library(
            catalog=Catalog(profiles),
            store=store(home / "store"),
            settings=in_force,
            threads=1,
            environ=environ,
        )
        running: Running

        async def locate(model: str) -> Located:
            located = await library.locate(model)
            options = (loads or {}).get(model, load or {})
            script = located.spec.load.model_copy(update={"options": options})
            spec = dataclasses.replace(located.spec, load=script, ladder=QUICK)
            return adapt(dataclasses.replace(located, spec=spec))

        async def start(
            spec: WorkerSpec,
            *,
            report: Callable[[wire.Progress], None],
            born: Callable[[int], None],
            stuck: StuckCallback,
        ) -> Worker:
            running.specs.append(spec)
            worker: Worker = await spawn(spec, report=report, born=born, stuck=stuck)
            running.workers.append(worker)
            return worker

        app = App(
            identity=identity(places, in_force),
            settings=in_force,
            paths=places,
            library=library,
            locate=locate,
            spawn=start,
            cpu=TEST_CPU,
            sensor=sensor or FakeSensor(),
            surroundings=_surroundings(in_force, environ, home),
            limits=Limits(ram_budget=Budget(absolute_bytes=budget_bytes)),
            memory=Memory({"default_model": default_origin}, memory),
            pins_file=home / "pins.json",
            advisor=Advisor(
                library=library,
                settings=in_force,
                cpu=TEST_CPU,
                profiles=data_dir("profiles") / "devices",
                builds=tuple,
                headers=Headers(Looks(home / "headers", Transport(offline=True))),
                figures=EngineFigures(environ, tuple),
                factors=lambda _model, _file: {},
            ),
            corrections=Corrections(),
            policy=CrashPolicy(first_delay_s=0.01),
            processor_energy=processor_energy,
        )
        async with connect(places.socket) as channel:
            running = Running(app, places, channel, profiles[0])
            async with app:
                yield running


def _surroundings(settings: Settings, environ: dict[str, str], home: Path) -> Surroundings:
    """What the doctor of a test's daemon looks at; the daemon puts itself and its sensor in."""
    resolved = Resolved(settings, dict.fromkeys(Settings.model_fields, "default"))

    def unseen() -> Sample:
        raise SensorBlindError("no sensor")

    return Surroundings(
        environ=environ,
        platform=sys.platform,
        home=home,
        config_file=home / "config.toml",
        load=lambda: resolved,
        report=lambda: None,
        sample=unseen,
        in_force=resolved,
    )


def identity(places: Paths, settings: Settings) -> Identity:
    """Who a test's daemon is."""
    return Identity(
        version="0.0.0",
        instance_id="instance",
        pid=os.getpid(),
        socket=places.socket,
        tcp_address=f"127.0.0.1:{settings.tcp_port}" if settings.tcp_port else "",
        start_time=time.time(),
        started_by=StartedBy.MANUAL,
        config_path="",
        data_path=str(places.state_dir),
        log_path="",
        platform="test",
    )


@contextlib.asynccontextmanager
async def connect(socket: Path) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a daemon's socket."""
    options = (("grpc.default_authority", "localhost"),)
    async with grpc.aio.insecure_channel(f"unix:{socket}", options=options) as channel:
        yield channel


@dataclass(frozen=True)
class Failure:
    """A failed call, decoded."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str]
    retry_s: float | None
    fields: tuple[str, ...]
    size: int


def failure(error: grpc.aio.AioRpcError) -> Failure:
    """What a call failed with; it must carry an ErrorInfo of the domain gemd."""
    status = rpc_status.from_call(cast("Any", error))
    assert status is not None, error
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    bad = error_details_pb2.BadRequest()
    retry_s = None
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        if detail.Unpack(retry):
            retry_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    assert info.domain == "gemd"
    return Failure(
        code=error.code(),
        reason=info.reason,
        message=status.message,
        metadata=dict(info.metadata),
        retry_s=retry_s,
        fields=tuple(violation.field for violation in bad.field_violations),
        size=status.ByteSize(),
    )


async def fails(call: Any) -> Failure:
    """Drive a call to its end, which must be a failure."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return failure(error)
    raise AssertionError("the call succeeded")


async def until(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    """Wait for a condition that sets no event."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)
