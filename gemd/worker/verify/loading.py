"""Whether llama.cpp takes the header of a file: every tensor that the architecture needs, no other.

The model is loaded with `no_alloc`: nothing of the weights is read, whatever their size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_cpp import llama_cpp as c

from gemd.worker.llama import binding
from gemd.worker.llama.params import model_params
from gemd.worker.verify.job import NO_ALLOC_LOAD, failed, passed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.wire.verify import CheckMade
    from gemd.worker.verify.job import Job


def check_no_alloc_load(job: Job) -> Iterator[CheckMade]:
    """llama.cpp accepts the header and finds all tensors."""
    binding.check_layout()
    log = binding.Log()
    c.llama_backend_init()
    params = model_params(gpu_layers=0, host_expert_layers=0)
    params.no_alloc = True
    params.load_mode = c.LLAMA_LOAD_MODE_NONE
    model = c.llama_model_load_from_file(job.order.path.encode(), params)
    if not model:
        yield failed(NO_ALLOC_LOAD, f"llama.cpp refuses it: {log.explain() or 'it gave no reason'}")
        return
    count = int(c.llama_model_n_params(model))
    c.llama_model_free(model)
    yield passed(NO_ALLOC_LOAD, f"llama.cpp takes it, with {count / 1e6:.0f} million parameters")
