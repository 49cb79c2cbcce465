"""The GGUF engine: llama.cpp's low-level API behind the worker's Engine protocol.

============== ====================================================================
binding        model and context handles over ctypes
batch          the tokens of one decode, as llama.cpp wants them
vocabulary     tokens as text and bytes
sampling       one request's sampler chain and log-probabilities
prefix         which cached sequence a prompt continues (pure)
prompt_cache   sequences that wait outside the KV cache (pure)
sequences      the sequences of the KV cache, kept in agreement with llama.cpp's
tasks          what a request wants evaluated and does with the result; answers
scoring        the same for log-probabilities of given continuations
embedding      the same for vectors
preparation    from a request to its task
loading        from a file to a model that has decoded a token
engine         the loop's one step: admit, plan, decode, hand out
============== ====================================================================

Templates, prompts and final text are `gemd.worker.prompting`'s. See DESIGN.md beside this
file for the reasons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemd.worker.host import Engine, Host


def create(host: Host) -> Engine:
    """The engine of this worker. llama.cpp is imported when the model is loaded."""
    from gemd.worker.llama.engine import LlamaEngine  # noqa: PLC0415 - loads llama.cpp

    return LlamaEngine(host)
