"""Which of the layouts a checkpoint has, as its configuration says.

Two NVFP4 layouts are published. They hold the same codes and scales under different names:

======================  =========================  ==============================
of a linear layer       ModelOpt                   compressed-tensors
======================  =========================  ==============================
codes, uint8            ``weight``                 ``weight_packed``
scales, E4M3            ``weight_scale``           ``weight_scale``
global scale, float32   ``weight_scale_2``         1 / ``weight_global_scale``
of inputs, not used     ``input_scale``            ``input_global_scale``
======================  =========================  ==============================

Sources: ``convert_hf_config.py`` of nvidia-modelopt's export, the ``nvfp4-pack-quantized`` format
of compressed-tensors, and the checkpoints of both for this model. Which layers are packed is seen
from the tensors themselves, not from lists of patterns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from gemd.worker.diffusion.compute.nvfp4 import BLOCK

if TYPE_CHECKING:
    from gemd.worker.fields import Fields

Layout = Literal["plain", "modelopt", "compressed-tensors"]

_MODELOPT: Final = {"NVFP4", "W4A16_NVFP4"}
"""They differ in what they do to activations, which stay as they are here."""
_PACKED: Final = "nvfp4-pack-quantized"
_BITS: Final = 4
_MAX: Final = 1 << 16


def layout_of(config: Fields, beside: Fields) -> Layout:
    """The layout that a model's configuration names.

    Args:
        config: Its config.json.
        beside: Its hf_quant_config.json, by which ModelOpt says the same; some of its checkpoints
            have this file only, others none.

    Raises:
        BadModelFileError: It is quantized in another way.

    """
    if config.has("quantization_config"):
        quantization = config.table("quantization_config")
        method = quantization.values.get("quant_method")
        if method == "modelopt":
            return _modelopt(quantization)
        if method == "compressed-tensors":
            return _compressed_tensors(quantization)
        raise quantization.fail(
            "quant_method",
            "this engine reads bf16, and NVFP4 as modelopt and compressed-tensors write it",
        )
    if beside.has("quantization"):
        return _modelopt(beside.table("quantization"))
    return "plain"


def _modelopt(quantization: Fields) -> Layout:
    if quantization.values.get("quant_algo") not in _MODELOPT:
        raise quantization.fail("quant_algo", f"of ModelOpt's this engine has: {_list(_MODELOPT)}")
    _check_block(quantization)
    for _, group in quantization.table("config_groups").tables():
        _check_weights(group)
    return "modelopt"


def _compressed_tensors(quantization: Fields) -> Layout:
    if quantization.values.get("format") != _PACKED:
        raise quantization.fail("format", f"of compressed-tensors' this engine has: {_PACKED}")
    for key, harmless in (("transform_config", "config_groups"), ("sparsity_config", "format")):
        table = quantization.table(key)
        if table.values.get(harmless) not in (None, {}, "dense"):
            raise quantization.fail(key, "weights that were transformed or pruned are not undone")
    groups = quantization.table("config_groups").tables()
    if not groups:
        raise quantization.fail("config_groups", "it has to say what is packed")
    for _, group in groups:
        group.one_of("format", {_PACKED}, _PACKED)
        _check_weights(group)
    return "compressed-tensors"


def _check_weights(group: Fields) -> None:
    weights = group.table("weights")
    if weights.integer("num_bits", most=_MAX) != _BITS:
        raise weights.fail("num_bits", f"NVFP4 has {_BITS}, and all groups have to be NVFP4")
    if weights.values.get("type") != "float":
        raise weights.fail("type", "NVFP4 is a float")
    _check_block(weights)


def _check_block(fields: Fields) -> None:
    if fields.integer("group_size", most=_MAX, default=BLOCK) != BLOCK:
        raise fields.fail("group_size", f"NVFP4 has {BLOCK}")


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))
