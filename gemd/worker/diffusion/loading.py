"""From a Load message to a model that has denoised a canvas."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
import transformers

from gemd import wire
from gemd.errors import EngineMissingError, EngineStartFailedError
from gemd.worker.diffusion.checkpoint import load_checkpoint
from gemd.worker.diffusion.compute import Choice, choose_path, tune, use_path
from gemd.worker.diffusion.compute.paths import LEAST_CAPABILITY, below_least
from gemd.worker.diffusion.denoiser import Denoiser
from gemd.worker.diffusion.head import Head, Wish
from gemd.worker.diffusion.memory import OutOfMemoryError, lack, watched
from gemd.worker.diffusion.preparation import Preparation
from gemd.worker.diffusion.stack import PREFILL_TOKENS, Stack
from gemd.worker.diffusion.tokenizer_files import read_tokenizer_files
from gemd.worker.diffusion.vocabulary import Vocabulary
from gemd.worker.memory import give_back, resident_bytes
from gemd.worker.prompting.prompt import PromptBuilder
from gemd.worker.prompting.template import ChatTemplate, template_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.worker.diffusion.checkpoint import Checkpoint
    from gemd.worker.host import Progress

ARCHITECTURE: Final = "diffusion-gemma"
_WARM_TOKENS: Final = 2
"""Of the prompt that a warm-up reads."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a loaded model consists of."""

    checkpoint: Checkpoint
    stack: Stack
    denoiser: Denoiser
    template: ChatTemplate | None
    builder: PromptBuilder
    preparation: Preparation
    ready: wire.Ready

    def close(self) -> None:
        """Free what lies outside this process."""
        if self.template is not None:
            self.template.close()


def load(
    load: wire.Load,
    progress: Progress,
    clock: Callable[[], float],
    *,
    path: str | None = None,
) -> Loaded:
    """Read the weights, choose how to compute, denoise one step.

    Args:
        load: What is to be loaded.
        progress: Told how far it is.
        clock: Seconds, monotonic.
        path: How to compute with packed weights; None for what is fastest here.

    Raises:
        BadModelFileError: The files are no whole checkpoint, or the chat template of the settings
            cannot be used.
        ModelNotFoundError: There are none.
        EngineMissingError: This torch has no GPU to place the model on, or one that is too old.
        EngineStartFailedError: There is no memory for the model and its cache.

    """
    began = clock()
    torch.set_num_threads(load.threads)
    device = device_of(load.gpu_layers)
    directory = Path(load.path)
    progress("open", 0, 0)
    # First what is quickly read: a tokenizer that cannot be used is no reason to read 18 GB.
    files = read_tokenizer_files(directory)
    try:
        with watched():
            checkpoint = load_checkpoint(
                directory,
                device=device,
                progress=lambda done, all_: progress("weights", done, all_),
            )
            progress("context", 0, 0)
            stack, denoiser = make(checkpoint, load)
            choice = _choose(
                checkpoint,
                lambda: _one_step(stack, denoiser),
                tokens=[count * stack.canvas_tokens for count in sorted({1, load.max_sequences})],
                path=path,
                alive=lambda: progress("warmup", 0, 1),
            )
            progress("warmup", 0, 1)
            if not denoiser.records:
                # What was recorded when the kernels were tried is not used.
                denoiser.forget()
            warm_up(stack, denoiser)
    except OutOfMemoryError as error:
        no_room = lack(f"to load {directory.name}", error, device)
        raise EngineStartFailedError(
            no_room.message,
            why=no_room.why,
            advice=("gemctl status", "GEMD_CONTEXT_TOKENS=4096 gemd"),
            metadata={**no_room.metadata, "path": directory},
        ) from None
    give_back()
    progress("warmup", 1, 1)
    config = checkpoint.config.text_config
    vocabulary = Vocabulary(
        files, size=config.vocab_size, end_of_generation=checkpoint.defaults.eos
    )
    template = template_of(
        files.chat_template,
        load.chat_template,
        bos=vocabulary.text(vocabulary.bos),
        eos=vocabulary.text(vocabulary.eos),
    )
    renderer = template if isinstance(template, ChatTemplate) else None
    ready = wire.Ready(
        engine="diffusion",
        engine_version=f"torch {torch.__version__}, transformers {transformers.__version__}",
        architecture=ARCHITECTURE,
        context_tokens=stack.slots.context_tokens,
        train_context_tokens=config.max_position_embeddings,
        max_sequences=load.max_sequences,
        vocabulary=config.vocab_size,
        parameters=checkpoint.parameters,
        has_chat_template=renderer is not None,
        supports_gpu_offload=torch.cuda.is_available(),
        devices=_devices(),
        memory_bytes=memory_bytes(),
        load_seconds=clock() - began,
        compute=choice.name,
        compute_reason=choice.reason,
    )
    builder = PromptBuilder(vocabulary, template)
    preparation = Preparation(
        builder,
        vocabulary,
        checkpoint.defaults,
        context_tokens=stack.slots.context_tokens,
        canvas_tokens=stack.canvas_tokens,
    )
    return Loaded(checkpoint, stack, denoiser, renderer, builder, preparation, ready)


def make(checkpoint: Checkpoint, load: wire.Load) -> tuple[Stack, Denoiser]:
    """A model with its cache, and what makes its steps."""
    stack = Stack(
        checkpoint,
        slots=load.max_sequences,
        context_tokens=usable_context(checkpoint, load.context_tokens),
    )
    head = Head(
        stack.embedding,
        stack.embedding_scale,
        stack.softcap,
        canvas_tokens=stack.canvas_tokens,
    )
    return stack, Denoiser(stack, head)


def device_of(gpu_layers: int) -> torch.device:
    """Where a model goes; never the processor where a GPU was meant.

    Raises:
        EngineMissingError: There is no GPU that it could go to.

    """
    if not gpu_layers:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise EngineMissingError(
            "the model is to lie on a GPU, and this build of torch sees none",
            why=f"torch {torch.__version__} was built "
            + (f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"),
            advice=("gemctl engine install --engine diffusion", "gemctl doctor"),
            metadata={"torch": torch.__version__, "cuda": torch.version.cuda or ""},
        )
    capability = torch.cuda.get_device_capability()
    if problem := below_least(capability):
        raise EngineMissingError(
            f"{torch.cuda.get_device_name()} cannot run this model",
            why=problem,
            advice=("gemctl plan", "gemctl devices"),
            metadata={
                "compute_capability": "{}.{}".format(*capability),
                "required": "{}.{}".format(*LEAST_CAPABILITY),
            },
        )
    return torch.device("cuda:0")


def usable_context(checkpoint: Checkpoint, context_tokens: int) -> int:
    """What a model can use of a context: beyond its training, positions are noise."""
    trained: int = checkpoint.config.text_config.max_position_embeddings
    return min(context_tokens, trained)


def memory_bytes() -> dict[str, int]:
    """See `wire.Ready`."""
    return {"CPU": resident_bytes()}


def resize(loaded: Loaded, context_tokens: int) -> None:
    """Make the cache anew in another size, with what a step needs; see `Stack.resize`."""
    loaded.denoiser.forget()
    loaded.stack.resize(context_tokens)
    warm_up(loaded.stack, loaded.denoiser)


def warm_up(stack: Stack, denoiser: Denoiser) -> None:
    """Read a prompt and denoise one step: allocate what a step needs, prove that it works."""
    stack.slots.cut(0, 0)
    if stack.device.type == "cuda":
        # Kernels are compiled at their first use with a number of tokens; a prompt comes in these.
        count = min(PREFILL_TOKENS, stack.slots.context_tokens)
        stack.encode(0, [token % stack.vocabulary for token in range(count)])
        stack.slots.cut(0, 0)
    _one_step(stack, denoiser)
    stack.slots.cut(0, 0)


def _choose(
    checkpoint: Checkpoint,
    step: Callable[[], None],
    *,
    tokens: list[int],
    path: str | None,
    alive: Callable[[], None],
) -> Choice:
    """Find how to compute, on the passes that will be made, or take what was asked for.

    Compilers take their time: each step is a sign of life for whoever waits for the load.
    """
    if path is not None:
        use_path(checkpoint.decoder, path)
        return Choice(path, {}, "It was asked for.")

    def lively() -> None:
        alive()
        step()

    alive()
    tune(checkpoint.decoder, tokens=tokens, k=checkpoint.config.text_config.top_k_experts)
    device = checkpoint.decoder.embed_tokens.weight.device
    return choose_path(checkpoint.decoder, lively, device)


def _one_step(stack: Stack, denoiser: Denoiser) -> None:
    """Of one canvas, behind a prompt of a few tokens in the first slot."""
    length = stack.canvas_tokens
    if not stack.slots.length(0):
        stack.encode(0, [0] * _WARM_TOKENS)
    wish = Wish(
        temperature=1.0,
        uniforms=np.full(length, 0.5, dtype=np.float32),
        fixed=np.zeros(length, dtype=np.bool_),
        # Different tokens go to different experts, as they will.
        tokens=np.arange(length) % stack.vocabulary,
    )
    denoiser.step([0], [wish], [None])


def _devices() -> tuple[str, ...]:
    return ("CPU", *(f"cuda:{index}" for index in range(torch.cuda.device_count())))
