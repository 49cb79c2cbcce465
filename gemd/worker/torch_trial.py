"""``python -m gemd.worker.torch_trial``: what a build of torch is, and whether it computes.

The same for the diffusion engine as `gemd.worker.llama.trial` is for llama.cpp: started by
`gemd.engine.builds` with the build's directory in front of the path; prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def main() -> None:
    """Try the torch that is on the path."""
    parser = argparse.ArgumentParser(prog="gemd.worker.torch_trial", description=__doc__)
    parser.add_argument("--backend", required=True, choices=("cuda", "cpu"))
    arguments = parser.parse_args()
    report: dict[str, Any] = {}
    try:
        _describe(report)
        on_gpu = arguments.backend == "cuda" and report["gpu_offload"]
        report["answers"] = _answers("cuda" if on_gpu else "cpu")
    except Exception as error:  # noqa: BLE001 - whatever it fails with is the result
        report["problem"] = f"{type(error).__name__}: {error}"
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def _describe(report: dict[str, Any]) -> None:
    import torch  # noqa: PLC0415 - its failure is part of the report

    # Torch brings libraries along, and gemd's own have to work with those.
    import gemd.worker.host  # noqa: F401, PLC0415 - as above

    report["file"] = str(torch.__file__)
    report["version"] = str(torch.__version__)
    report["commit"] = str(torch.version.git_version)
    report["backends"] = ["CPU", *(["CUDA"] if torch.version.cuda else [])]
    report["gpu_offload"] = bool(torch.cuda.is_available())
    report["devices"] = [{"name": "CPU", "description": "torch", "kind": "cpu"}]
    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(index)
        report["devices"].append({"name": f"cuda:{index}", "description": name, "kind": "gpu"})
    # The classes that the diffusion engine is made of.
    from transformers import DiffusionGemmaForBlockDiffusion  # noqa: PLC0415 - as above

    assert DiffusionGemmaForBlockDiffusion is not None


def _answers(device: str) -> list[list[int]]:
    """A product of matrices in bfloat16, as the engine computes."""
    import torch  # noqa: PLC0415 - as above

    matrix = torch.tensor([[1, 2], [3, 4]], dtype=torch.bfloat16, device=device)
    return [[int(value) for value in row] for row in (matrix @ matrix).tolist()]


if __name__ == "__main__":
    main()
