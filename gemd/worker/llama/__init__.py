"""The GGUF engine: llama.cpp's low-level API behind the worker's Engine protocol.

============== ====================================================================
binding        model and context handles over ctypes
batch          the tokens of one decode, as llama.cpp wants them
vocabulary     tokens as text and bytes
renderer       the child process that renders a file's chat template
template       its client, and what the template's output means
control        control tokens in user text, cut so that they cannot form (pure)
prompt         a request's input as token ids
text           bytes of tokens as final text: UTF-8 and stop strings (pure)
sampling       one request's sampler chain and log-probabilities
prefix         which cached sequence a prompt continues (pure)
prompt_cache   sequences that wait outside the KV cache (pure)
sequences      the sequences of the KV cache, kept in agreement with llama.cpp's
schedule       how many tokens of which request go into the next decode (pure)
tasks          what a request wants evaluated and does with the result; answers
scoring        the same for log-probabilities of given continuations
embedding      the same for vectors
preparation    from a request to its task
loading        from a file to a model that has decoded a token
engine         the loop's one step: admit, plan, decode, hand out
============== ====================================================================

See DESIGN.md beside this file for the reasons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemd.worker.host import Engine, Host


def create(host: Host) -> Engine:
    """The engine of this worker. llama.cpp is imported when the model is loaded."""
    from gemd.worker.llama.engine import LlamaEngine  # noqa: PLC0415 - keeps the renderer light

    return LlamaEngine(host)
