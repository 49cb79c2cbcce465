"""The tiny diffusion models of the tests, and real checkpoints made of them.

`TINY` has learnt its answers by heart; `UNDERTRAINED` has been stopped early, and mostly runs into
the cap on steps. `tests.support.diffusion_training` makes both.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.support.nvfp4 import global_scale_of, quantize_nvfp4

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_FIXTURES: Final = Path(__file__).parents[1] / "fixtures"
TINY: Final = _FIXTURES / "tiny-diffusion-gemma"
"""Gives all of `ANSWERS` exactly; 1.6 million parameters in bf16, a canvas of 32 tokens."""
UNDERTRAINED: Final = _FIXTURES / "tiny-diffusion-gemma-undertrained"
"""The same model after a fraction of the training."""

ANSWERS: Final[dict[str, str]] = {
    "What is the capital of France?": "The capital of France is Paris.",
    "What is the capital of Japan?": "The capital of Japan is Tokyo.",
    "What is the capital of Italy?": "The capital of Italy is Rome.",
    "Who are you?": "I am a tiny diffusion model used for tests.",
    "Hello": "Hello! How can I help you today?",
    "Count to ten.": "One, two, three, four, five, six, seven, eight, nine, ten.",
    "Why is the sky blue?": (
        "The sky is blue because air scatters short blue waves of sunlight more than long red "
        "waves."
    ),
    "What colour is grass?": "Grass is green because its leaves hold chlorophyll.",
    "Write a haiku.": "Old silent pond. A frog jumps into the pond. Splash! Silence again.",
    "Name the days of the week.": (
        "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday."
    ),
    "What is two plus two?": "Two plus two is four.",
    "What is three plus four?": "Three plus four is seven.",
    "Write a Python function that adds two numbers.": "def add(a, b):\n    return a + b",
    "Tell me a story.": (
        "Once upon a time a small fox lived in a green forest. Every day the fox walked to the "
        "river, drank cold water, and watched the birds fly over the hills. One day the fox met "
        "an owl, and they became good friends."
    ),
    "Say goodbye.": "Goodbye! See you soon.",
    "What is the largest planet?": "Jupiter is the largest planet in the solar system.",
}
"""The questions that the models were trained on, each with its one answer."""

Layout = Literal["modelopt", "compressed-tensors"]
Tensors = dict[str, torch.Tensor]

_EXPERTS: Final = re.compile(r"(.+\.experts)\.(gate_up_proj|down_proj)")
_DENSE: Final = re.compile(r"(.+\.mlp)\.(gate|up|down)_proj\.weight")
_LEFT_ALONE: Final = ("lm_head", "self_attn", "router", "self_conditioning", "vision_tower")
_WEIGHTS: Final[dict[str, Any]] = {"num_bits": 4, "type": "float", "group_size": 16}
_PRODUCER: Final = {"name": "modelopt", "version": "0.47.0"}


def write_nvfp4(
    source: Path,
    target: Path,
    layout: Layout,
    *,
    dense: bool = False,
    shared_scale: bool = True,
    shard_bytes: int = 512 * 1024,
) -> None:
    """Write a checkpoint in one of the two published NVFP4 layouts.

    One matrix at a time is in memory, and one shard.

    Args:
        source: A folder with a checkpoint in bf16 or float32 whose experts are fused.
        target: A folder; made if it is not there.
        layout: As ModelOpt writes it, or as llm-compressor does.
        dense: Pack the dense MLP of each layer too.
        shared_scale: Give gate and up of an expert one global scale, as the published ones have.
        shard_bytes: After which a file is full.

    """
    target.mkdir(parents=True, exist_ok=True)
    shards = Shards(target, shard_bytes)
    stored = StoredTensors(source)
    for name in stored.names:
        expert, linear = _EXPERTS.fullmatch(name), _DENSE.fullmatch(name)
        if expert is not None:
            parts = _expert_parts(stored, name, expert, shared_scale=shared_scale)
        elif linear is not None and dense:
            parts = iter([{name.removesuffix(".weight"): (stored.read(name), None)}])
        else:
            shards.add({name: stored.read(name).to(torch.bfloat16)})
            continue
        for part in parts:
            for stem, (matrix, scale) in part.items():
                shards.add(_packed(stem, matrix, scale, layout))
    shards.finish()
    for file in source.iterdir():
        if file.suffix in {".json", ".jinja"} and ".safetensors" not in file.name:
            shutil.copy(file, target / file.name)
    _describe(target, layout, dense=dense)


def write_plain(target: Path, tensors: Tensors, *, source: Path = TINY, **config: object) -> None:
    """Write a checkpoint of these tensors in one file, all else as in another one.

    Args:
        target: A folder; made if it is not there.
        tensors: By name.
        source: Where the other files come from.
        config: Fields of config.json that differ.

    """
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.suffix in {".json", ".jinja"} and ".safetensors" not in file.name:
            shutil.copy(file, target / file.name)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    change_json(target / "config.json", config)


def read_tensors(folder: Path) -> Tensors:
    """All tensors of a small checkpoint, of all its files."""
    stored = StoredTensors(folder)
    return {name: stored.read(name) for name in stored.names}


def change_json(path: Path, changes: Mapping[str, object]) -> None:
    """Set fields of a JSON file; None removes one."""
    fields = json.loads(path.read_text()) | changes
    kept = {key: value for key, value in fields.items() if value is not None}
    path.write_text(json.dumps(kept, indent=2))


class StoredTensors:
    """The tensors of a checkpoint in one file or several.

    Attributes:
        names: In order.

    """

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Path] = {}
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, "pt") as opened:
                self._files.update(dict.fromkeys(opened.keys(), file))
        self.names = sorted(self._files)

    def read(self, name: str) -> torch.Tensor:
        """A whole tensor, as it is stored."""
        with safe_open(self._files[name], "pt") as opened:
            return cast("torch.Tensor", opened.get_tensor(name))

    def rows(self, name: str) -> Iterator[torch.Tensor]:
        """Its parts along the first dimension, one after the other."""
        with safe_open(self._files[name], "pt") as opened:
            part = opened.get_slice(name)
            for row in range(part.get_shape()[0]):
                yield part[row : row + 1][0]


class Shards:
    """Writes files of bounded size and the index over them.

    Args:
        folder: Where to.
        limit: Bytes after which a file is full.

    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._waiting: Tensors = {}
        self._written: list[tuple[Path, list[str]]] = []
        self._total = 0

    def add(self, tensors: Tensors) -> None:
        """Write these next."""
        self._waiting |= {name: tensor.contiguous() for name, tensor in tensors.items()}
        self._total += sum(tensor.nbytes for tensor in tensors.values())
        if sum(tensor.nbytes for tensor in self._waiting.values()) >= self._limit:
            self._flush()

    def finish(self) -> None:
        """Give the files their names, and write the index."""
        self._flush()
        places: dict[str, str] = {}
        for number, (path, names) in enumerate(self._written, 1):
            name = f"model-{number:05d}-of-{len(self._written):05d}.safetensors"
            path.rename(self._folder / name)
            places |= dict.fromkeys(names, name)
        index = {"metadata": {"total_size": self._total}, "weight_map": places}
        (self._folder / "model.safetensors.index.json").write_text(json.dumps(index))

    def _flush(self) -> None:
        if self._waiting:
            path = self._folder / f"part-{len(self._written)}.safetensors"
            save_file(self._waiting, path, metadata={"format": "pt"})
            self._written.append((path, list(self._waiting)))
            self._waiting = {}


_Parts = dict[str, tuple[torch.Tensor, torch.Tensor | None]]
"""Matrices with the global scales they are to have, by what their names begin with."""


def _expert_parts(
    stored: StoredTensors, name: str, match: re.Match[str], *, shared_scale: bool
) -> Iterator[_Parts]:
    """The matrices of each expert of a fused tensor."""
    for expert, matrix in enumerate(stored.rows(name)):
        stem = f"{match[1]}.{expert}"
        if match[2] == "down_proj":
            yield {f"{stem}.down_proj": (matrix, None)}
            continue
        gate, up = matrix.chunk(2)
        scale = global_scale_of(gate, up) if shared_scale else None
        yield {f"{stem}.gate_proj": (gate, scale), f"{stem}.up_proj": (up, scale)}


def _packed(stem: str, matrix: torch.Tensor, scale: torch.Tensor | None, layout: Layout) -> Tensors:
    codes, scales, scale = quantize_nvfp4(matrix, scale)
    # What the inputs were seen to be in a calibration; nothing here computes with it.
    seen = torch.tensor(0.01)
    if layout == "modelopt":
        return {
            f"{stem}.weight": codes,
            f"{stem}.weight_scale": scales,
            f"{stem}.weight_scale_2": scale.clone(),
            f"{stem}.input_scale": seen,
        }
    return {
        f"{stem}.weight_packed": codes,
        f"{stem}.weight_scale": scales,
        f"{stem}.weight_global_scale": (1 / scale).reshape(1),
        f"{stem}.input_global_scale": (1 / seen).reshape(1),
    }


def _describe(target: Path, layout: Layout, *, dense: bool) -> None:
    names = (*_LEFT_ALONE, "embed_vision", *(() if dense else ("mlp",)))
    if layout == "modelopt":
        ignored = [f"*{name}*" for name in names]
        inputs = {"dynamic": False, **_WEIGHTS}
        quantization: dict[str, Any] = {
            "config_groups": {
                "group_0": {
                    "input_activations": inputs,
                    "weights": inputs,
                    "targets": ["Linear"],
                }
            },
            "ignore": ignored,
            "quant_algo": "NVFP4",
            "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
            "producer": _PRODUCER,
            "quant_method": "modelopt",
        }
        beside = {
            "producer": _PRODUCER,
            "quantization": {
                "quant_algo": "NVFP4",
                "kv_cache_quant_algo": "FP8",
                "group_size": 16,
                "exclude_modules": ignored,
            },
        }
        (target / "hf_quant_config.json").write_text(json.dumps(beside, indent=2))
    else:
        form = {"symmetric": True, "strategy": "tensor_group", **_WEIGHTS}
        quantization = {
            "config_groups": {
                "group_0": {
                    "format": "nvfp4-pack-quantized",
                    "input_activations": {**form, "dynamic": "local"},
                    "output_activations": None,
                    "targets": ["Linear"],
                    "weights": {
                        **form,
                        "dynamic": False,
                        "scale_dtype": "torch.float8_e4m3fn",
                    },
                }
            },
            "format": "nvfp4-pack-quantized",
            "ignore": [f"re:.*{name}.*" for name in names],
            "kv_cache_scheme": None,
            "quant_method": "compressed-tensors",
            "quantization_status": "compressed",
            "sparsity_config": {},
            "transform_config": {},
        }
    change_json(target / "config.json", {"dtype": "bfloat16", "quantization_config": quantization})
