"""From a Load message to a model that has answered one token."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_cpp import __version__ as binding_version
from llama_cpp import llama_cpp as c

from gemd import wire
from gemd.errors import EngineMissingError, GemdError, UnsupportedInputError
from gemd.footprint import read_gguf_model, weights_of
from gemd.worker.llama import binding
from gemd.worker.llama.batch import Batch
from gemd.worker.llama.devices import devices
from gemd.worker.memory import give_back, resident_bytes
from gemd.worker.prompting.prompt import PromptBuilder
from gemd.worker.prompting.template import ChatTemplate, template_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.worker.host import Progress

_STEPS = 1000
"""Resolution of the weights' progress."""


@dataclass(frozen=True)
class Loaded:
    """What a loaded model consists of."""

    model: binding.Model
    context: binding.Context
    template: ChatTemplate | None
    builder: PromptBuilder
    ready: wire.Ready

    def close(self) -> None:
        """Free all of it, the cache before the weights it points into."""
        if self.template is not None:
            self.template.close()
        self.context.close()
        self.model.close()


def load(load: wire.Load, progress: Progress, clock: Callable[[], float]) -> Loaded:
    """Load weights, make a context, compile the template, decode one token.

    A file whose own chat template cannot be used still continues text; a chat is then
    refused with the reason. A template out of the settings has to work.

    Raises:
        BadModelFileError: The file is unusable, or the chat template of the settings.
        EngineStartFailedError: There is no memory for the context.
        EngineMissingError: The library is not the one this binding was made for, or has no GPU
            to place layers on.
        UnsupportedInputError: The model does not generate text.

    """
    began = clock()
    log = binding.Log()
    binding.check_layout()
    c.llama_backend_init()
    if load.gpu_layers:
        _require_gpu(load.gpu_layers)
    progress("open", 0, 0)
    model = binding.Model(
        load.path,
        gpu_layers=load.gpu_layers,
        host_expert_layers=load.host_expert_layers,
        use_mmap=_maps(load) if load.use_mmap is None else load.use_mmap,
        check_tensors=load.check_tensors,
        progress=lambda fraction: progress("weights", int(fraction * _STEPS), _STEPS),
        log=log,
    )
    if not model.can_generate:
        raise UnsupportedInputError(
            f"{os.path.basename(load.path)} has no decoder",  # noqa: PTH119 - a name, no I/O
            why="gemd serves causal language models; this one only encodes",
        )
    # Pieces of the file, and the tables that the vocabulary was made from.
    give_back()
    progress("context", 0, 0)
    context = binding.Context(
        model,
        context_tokens=usable_context(model, load.context_tokens),
        max_sequences=load.max_sequences,
        threads=load.threads,
        log=log,
        cache_type=load.cache_type,
    )
    vocabulary = model.vocabulary
    template = template_of(
        model.chat_template,
        load.chat_template,
        bos=vocabulary.text(vocabulary.bos),
        eos=vocabulary.text(vocabulary.eos),
    )
    renderer = template if isinstance(template, ChatTemplate) else None
    progress("warmup", 0, 1)
    warm_up(model, context)
    progress("warmup", 1, 1)
    ready = wire.Ready(
        engine="llama",
        engine_version=f"llama-cpp-python {binding_version}",
        architecture=model.metadata("general.architecture") or "unknown",
        context_tokens=context.tokens,
        train_context_tokens=model.train_context_tokens,
        max_sequences=load.max_sequences,
        vocabulary=vocabulary.size,
        parameters=model.parameters,
        has_chat_template=renderer is not None,
        supports_gpu_offload=bool(c.llama_supports_gpu_offload()),
        devices=tuple(device.name for device in devices()),
        memory_bytes=memory_bytes(),
        load_seconds=clock() - began,
    )
    return Loaded(model, context, renderer, PromptBuilder(vocabulary, template), ready)


def usable_context(model: binding.Model, context_tokens: int) -> int:
    """What a model can use of a context: positions beyond its training decode into noise."""
    return min(context_tokens, model.train_context_tokens or context_tokens)


def memory_bytes() -> dict[str, int]:
    """See `wire.Ready`."""
    return {"CPU": resident_bytes()}


def _maps(load: wire.Load) -> bool:
    if load.gpu_layers:
        # Metal computes on the mapped pages themselves; other GPUs get a copy.
        return sys.platform == "darwin"
    try:
        return weights_of(read_gguf_model(Path(load.path))).better_mapped
    except GemdError:
        # llama.cpp's own words about such a file are the better ones.
        return True


def _require_gpu(gpu_layers: int) -> None:
    if not c.llama_supports_gpu_offload():
        names = ", ".join(device.name for device in devices())
        raise EngineMissingError(
            f"{gpu_layers} layers are to lie on a GPU, and this build of llama.cpp sees none",
            why=f"it computes on: {names}; llama.cpp would run on the CPU and not say so",
            advice=("gemctl engine install", "gemctl engine list"),
            metadata={"gpu_layers": gpu_layers, "devices": names, "binding": binding_version},
        )


def warm_up(model: binding.Model, context: binding.Context) -> None:
    """Decode one token: page in the weights, build the graph, prove that it works."""
    vocabulary = model.vocabulary
    token = vocabulary.bos if vocabulary.bos >= 0 else max(vocabulary.eos, 0)
    batch = Batch(1)
    batch.add(0, 0, [token], [0])
    context.decode(batch)
    context.logits(1)
    context.clear()
