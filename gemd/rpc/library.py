"""The catalogue, the store and the planned placement, as servicers and residency need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from gemd import wire
from gemd.catalog.choice.placing import MAPS
from gemd.engine.spec import WorkerSpec
from gemd.footprint import (
    gguf_shape,
    predict_diffusion,
    predict_gguf,
    read_diffusion,
    read_gguf_model,
)
from gemd.hardware import RAM
from gemd.residency.states import ContextSize, Located
from gemd.rpc.placing import ON_PROCESSOR, Spot
from gemd.rpc.shelf_view import disk_use, on_disk
from gemd.rpc.torch_placing import TorchSpot
from gemd.rpc.variant_choice import first_that_fits, plan_of
from gemd.store.made import made_models
from gemd.store.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from gemd.catalog import Catalog, Profile, Variant
    from gemd.catalog.choice import Plan
    from gemd.catalog.profile import Role
    from gemd.config import Settings
    from gemd.footprint import DiffusionShape
    from gemd.footprint.shape import GgufShape
    from gemd.rpc.convert.models import DiskUse, OnDisk
    from gemd.rpc.placing import Placer
    from gemd.store import ModelFile, Store

log = structlog.get_logger(__name__)

SMALLEST_CONTEXT = 1024
"""Tokens: a question and its answer. No context is made smaller than that to make room."""
_HELPING = frozenset({"verifier", "embedding"})
"""Roles of models that work for requests to others."""


class Library:
    """What models there are, and how to start each.

    Args:
        catalog: The profiles.
        store: The files.
        settings: Context, sequences, threads and patience of workers.
        threads: Threads of a worker.
        environ: The daemon's environment; workers get a part of it.
        placer: Finds where a worker goes; None places all of them on the processor.
        made_up: By the peak of a worker's resident size, what it will hold of a GPU that a device
            file plays.

    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: Store,
        settings: Settings,
        threads: int,
        environ: Mapping[str, str],
        placer: Placer | None = None,
        made_up: Callable[[int], Mapping[str, int]] = lambda _: {},
    ) -> None:
        self.catalog = catalog
        self.store = store
        self._settings = settings
        self._threads = threads
        self._environ = environ
        self._placer = placer
        self._made_up = made_up
        self._consented: set[str] = set()
        self._suits: Callable[[Profile], Awaitable[Plan | None]] = _unplanned
        self._know_made()
        store.changed.append(self._know_made)

    @property
    def threads(self) -> int:
        """What a worker computes with."""
        return self._threads

    @property
    def environ(self) -> Mapping[str, str]:
        """The daemon's environment."""
        return self._environ

    def choose_by(self, suits: Callable[[Profile], Awaitable[Plan | None]]) -> None:
        """Of several variants on disk load the one that suits this machine; see `Pulling`."""
        self._suits = suits

    def allow_cpu(self, model: str) -> None:
        """A user lets a model compute on the processor, until the daemon ends."""
        self._consented.add(model)

    def torch_spot(self) -> TorchSpot:
        """Where work with torch goes that is no model's. Raises EngineMissingError."""
        return TorchSpot("cpu", None, {}) if self._placer is None else self._placer.torch_spot()

    def made_from(self) -> dict[str, str]:
        """Of models that were made here and that no profile describes: from what, by their ids."""
        return {
            entry.manifest.model: entry.manifest.making.source
            for entry in self.store.entries()
            if entry.manifest.making is not None and entry.manifest.making.display_name
        }

    def _know_made(self) -> None:
        self.catalog.know_made(made_models(entry.manifest for entry in self.store.entries()))

    def resolve(self, name: str) -> Profile:
        """The profile a name means. Raises ModelNotFoundError."""
        return self.catalog.resolve(name)

    def profiles(self) -> tuple[Profile, ...]:
        """All that are known."""
        return self.catalog.profiles

    async def on_disk(self) -> dict[str, dict[str, OnDisk]]:
        """Complete files by model and variant."""
        # Not in the thread: the catalogue is the loop's.
        profiles = self.catalog.profiles
        return await in_thread(lambda _: on_disk(self.store, profiles), abandon=True)

    @property
    def store_quota(self) -> int:
        """Bytes that gemd's own files may take; 0 for no limit."""
        return self._settings.store_quota

    async def disk_use(self) -> DiskUse:
        """What models take on disk."""
        profiles, quota = self.catalog.profiles, self.store_quota
        return await in_thread(
            lambda _: disk_use(self.store, profiles, quota_bytes=quota), abandon=True
        )

    def file_of(self, profile: Profile, variant: Variant) -> Path | None:
        """Where a variant's file or directory is; its content is not checked. Blocks.

        None if it is not on disk.
        """
        return self.store.path_of(profile, variant)

    def fast_on_disk(self) -> list[Profile]:
        """The models of the fast tier whose weights are here. Looks at a few names of files."""
        return self.on_disk_for("fast")

    def on_disk_for(self, role: Role) -> list[Profile]:
        """The models made for a part whose weights are here. Looks at a few names of files."""
        return [
            profile
            for profile in self.profiles()
            if role in profile.roles and self.store.on_disk(profile)
        ]

    def sampling_defaults(self, model: str) -> Mapping[str, Any]:
        """What sampling fields are where a request leaves them unset."""
        return vars(self.catalog.resolve(model).defaults)

    def context_tokens(self, profile: Profile) -> int:
        """The context that a worker of this model gets."""
        if profile.context_tokens:
            return min(self._settings.context_tokens, profile.context_tokens)
        return self._settings.context_tokens

    async def locate(self, model: str) -> Located:
        """All that a load of this model needs.

        Raises:
            ModelNotFoundError: The bytes are not on disk; the advice fetches them.
            ContentMismatchError: They are not those that were promised.
            BadModelFileError: The header of the file is damaged, or a part of it is missing.
            EngineMissingError: No engine is installed for the GPU that the model belongs on.
            CpuConsentNeededError: It fits no GPU of this machine, and the processor was not
                allowed.
            ModelTooLargeError: It is a block-diffusion model, and fits no GPU.

        """
        profile = self.catalog.resolve(model)
        # In a thread: a file that was touched is hashed again. In one of its own, which the
        # daemon's end does not wait for: that takes a minute for a large file.
        wanted = await self._wanted(profile)
        file = await in_thread(lambda _: self.store.locate(profile, wanted), abandon=True)
        variant = profile.variant(file.variant)
        assert variant is not None
        load = wire.Load(
            path=str(file.path),
            context_tokens=self.context_tokens(profile),
            max_sequences=self._settings.parallel,
            prompt_cache_bytes=self._settings.prompt_cache,
            threads=self._threads,
            chat_template=profile.chat_template,
        )
        if variant.engine == "diffusion":
            return await in_thread(
                lambda _: self._diffused(profile, variant, file, load), abandon=True
            )
        if variant.engine != "llama":
            return self._located(
                profile, variant, load, ON_PROCESSOR, {load.context_tokens: {RAM: file.size_bytes}}
            )
        return await in_thread(lambda _: self._placed(profile, variant, file, load), abandon=True)

    async def _wanted(self, profile: Profile) -> str:
        """The variant on disk that suits this machine; empty if none is there to be loaded."""
        there = await in_thread(lambda _: self.store.loadable(profile), abandon=True)
        if not there:
            # The store says why.
            return ""
        plan = await plan_of(profile, self._suits) if len(there) > 1 else None
        taken = first_that_fits(there, plan)
        if taken is not there[0]:
            log.info("load.variant", model=profile.id, variant=taken.id, instead_of=there[0].id)
        return taken.id

    def _placed(
        self, profile: Profile, variant: Variant, file: ModelFile, load: wire.Load
    ) -> Located:
        """A GGUF model where it goes. Blocks: headers are read."""
        shape = gguf_shape(read_gguf_model(file.path))
        spot = ON_PROCESSOR
        if self._placer is not None:
            spot = self._placer.spot(
                profile,
                variant,
                shape,
                context=load.context_tokens,
                file=file.path.name,
                consented=profile.id in self._consented,
            )
        load = load.model_copy(
            update={
                "gpu_layers": spot.placement.gpu_layers,
                "host_expert_layers": spot.placement.host_experts,
                "cache_type": spot.placement.cache_type,
                "max_sequences": spot.sequences or load.max_sequences,
            }
        )
        return self._located(profile, variant, load, spot, _estimates(shape, load, spot))

    def _diffused(
        self, profile: Profile, variant: Variant, file: ModelFile, load: wire.Load
    ) -> Located:
        """A block-diffusion model where it goes. Blocks: config.json and headers are read."""
        shape = read_diffusion(file.path)
        contexts = _contexts(load.context_tokens)
        spot = ON_PROCESSOR
        if self._placer is not None:
            spot = self._placer.canvas_spot(
                profile,
                variant,
                shape,
                contexts=contexts,
                file=file.path.name,
                consented=profile.id in self._consented,
            )
        load = load.model_copy(
            update={
                "gpu_layers": spot.placement.gpu_layers,
                "max_sequences": spot.sequences or load.max_sequences,
                # Its slots are all that it keeps of prompts.
                "prompt_cache_bytes": 0,
            }
        )
        return self._located(profile, variant, load, spot, _canvas_estimates(shape, load, spot))

    def _located(
        self,
        profile: Profile,
        variant: Variant,
        load: wire.Load,
        spot: Spot,
        estimates: Mapping[int, Mapping[str, int]],
    ) -> Located:
        spec = WorkerSpec(
            model=profile.id,
            engine=variant.engine,
            load=load,
            environ={**self._environ, **spot.environ},
            stall_timeout_s=self._settings.load_stall_timeout,
            answer_stall_timeout_s=self._settings.answer_stall_timeout,
            overlay=spot.overlay,
        )
        sizes = [
            ContextSize(tokens, {**demand, **self._made_up(demand[RAM])})
            for tokens, demand in estimates.items()
        ]
        whole = dict(sizes[0].demand)
        return Located(
            spec,
            whole.pop(RAM),
            whole,
            tuple(sizes[1:]),
            helper=bool(profile.roles) and _HELPING.issuperset(profile.roles),
            placed=spot.why,
            pullable=variant.pullable,
        )

    async def check(self, profile: Profile, file: ModelFile) -> None:
        """Look whether what was found, and never had a hash, can be a model at all.

        Raises:
            BadModelFileError: It is no GGUF file and no checkpoint, or a part of it is missing.

        """
        variant = profile.variant(file.variant)
        assert variant is not None
        if file.manifest is None and variant.engine in _READERS:
            await in_thread(lambda _: _READERS[variant.engine](file.path), abandon=True)

    async def examine(self, profile: Profile, variant: Variant) -> None:
        """As `check`, of whatever is on disk of a variant; nothing if nothing is."""

        def find() -> ModelFile | None:
            if self.store.path_of(profile, variant) is None:
                return None
            return self.store.locate(profile, variant.id)

        file = await in_thread(lambda _: find(), abandon=True)
        if file is not None:
            await self.check(profile, file)


_READERS: Mapping[str, Callable[[Path], object]] = {
    "llama": read_gguf_model,
    "diffusion": read_diffusion,
}
"""What reads the headers of what an engine runs."""


def _estimates(shape: GgufShape, load: wire.Load, spot: Spot) -> dict[int, dict[str, int]]:
    """The peak of a worker on each device by tokens of context, the whole context first."""
    found = {}
    for tokens in _contexts(load.context_tokens):
        predicted = predict_gguf(
            shape,
            context_tokens=tokens,
            max_sequences=load.max_sequences,
            placement=spot.placement,
            prompt_cache_bytes=load.prompt_cache_bytes,
            backend=spot.backend,
        )
        found[tokens] = {RAM: predicted.host_peak}
        if spot.shared:
            # One memory, and where one file is mapped into it, what both sides have of that is
            # there once.
            weights = predicted.host.weights + predicted.gpu.weights
            twice = max(0, weights - shape.weights.total) if spot.backend == MAPS else 0
            found[tokens][RAM] += predicted.gpu_peak - twice
        elif spot.gpu:
            found[tokens][spot.gpu] = predicted.gpu_peak
    return found


def _canvas_estimates(
    shape: DiffusionShape, load: wire.Load, spot: Spot
) -> dict[int, dict[str, int]]:
    """As `_estimates`, of a block-diffusion model."""
    found = {}
    for tokens in _contexts(load.context_tokens):
        predicted = predict_diffusion(
            shape, context_tokens=tokens, sequences=load.max_sequences, gpu=bool(spot.gpu)
        )
        found[tokens] = {RAM: predicted.host_peak}
        if spot.shared:
            found[tokens][RAM] += predicted.gpu_peak
        elif spot.gpu:
            found[tokens][spot.gpu] = predicted.gpu_peak
    return found


def _contexts(whole: int) -> list[int]:
    """The whole context and its halves, down to the smallest that is of use."""
    sizes = [whole]
    while sizes[-1] // 2 >= SMALLEST_CONTEXT:
        sizes.append(sizes[-1] // 2)
    return sizes


async def _unplanned(_: Profile) -> Plan | None:
    return None
