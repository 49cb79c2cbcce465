"""What a request to quantize means: which source, which result, under which names. Pure.

Only `of_path` looks at the disk, at names and sizes.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gemd.catalog.checkpoints import telling_name
from gemd.catalog.quantizations import (
    NVFP4,
    UNQUANTIZED,
    known_quantizations,
    quantization_named,
)
from gemd.catalog.sources import QuantizedSource
from gemd.catalog.values import ID_PATTERN
from gemd.errors import InvalidRequestError, ModelNotFoundError
from gemd.rpc.convert.fields import invalid
from gemd.store.made import model_id, variant_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from gemd.catalog import Profile, Variant

Engine = Literal["llama", "diffusion"]

_WEIGHTS = (".safetensors",)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One quantization.

    Attributes:
        model: Id under which the result is kept.
        variant: Of the result.
        quantization: Of the result.
        engine: What runs it.
        profile: Of the catalogue, with the source; None for the user's own file or directory.
        source: Of the profile.
        path: The user's own file or directory.
        display_name: Of a model that the catalogue does not know.
        context_tokens: Likewise; 0 if only the file's header says.

    """

    model: str
    variant: str
    quantization: str
    engine: Engine
    profile: Profile | None = None
    source: Variant | None = None
    path: Path | None = None
    display_name: str = ""
    context_tokens: int = 0

    @property
    def source_name(self) -> str:
        """Id of the source, or its path."""
        return self.source.id if self.source is not None else str(self.path)


def quantization(text: str) -> str:
    """The quantization of that name.

    Raises:
        InvalidRequestError: gemd makes none of that name.

    """
    found = quantization_named(text)
    if found is None:
        known = ", ".join(known_quantizations())
        raise invalid(
            "quantization", f"there is no quantization {text!r}", why=f"gemd makes {known}"
        )
    return found


def of_profile(
    profile: Profile,
    kind: str,
    *,
    source: str = "",
    variant: str = "",
    dense: bool = False,
    on_disk: Callable[[Variant], bool],
) -> Wanted:
    """A quantization of a model of the catalogue.

    Args:
        profile: Of the model.
        kind: The quantization.
        source: Id of the variant to start from; empty for the best one.
        variant: Id of the result; empty for the usual one.
        dense: NVFP4: the dense layers too.
        on_disk: Whether a variant is there.

    Raises:
        InvalidRequestError: It has no such source, or that cannot become this.

    """
    return Wanted(
        model=profile.model,
        variant=_result_id(profile, kind, variant, dense=dense),
        quantization=kind,
        engine="diffusion" if kind == NVFP4 else "llama",
        profile=profile,
        source=_named(profile, kind, source) if source else _best(profile, kind, on_disk),
    )


def of_path(
    path: Path,
    kind: str,
    *,
    variant: str = "",
    dense: bool = False,
    taken: Collection[str],
    own: Mapping[str, str],
    checkpoint: Callable[[Path], Profile],
) -> Wanted:
    """A quantization of the user's own file or directory.

    Args:
        path: Absolute.
        kind: The quantization.
        variant: Id of the result; empty for the usual one.
        dense: NVFP4: the dense layers too.
        taken: Names that the catalogue has for something else.
        own: Paths of what models were made from, by their ids.
        checkpoint: The profile of a directory with DiffusionGemma; raises if it has something else.

    Raises:
        ModelNotFoundError: Nothing is there.
        InvalidRequestError: What is there cannot become this.

    """
    context, stem = 0, path.stem if path.suffix.lower() == ".gguf" else path.name
    if not path.exists():
        raise ModelNotFoundError(
            f"there is no model file and no checkpoint {path}",
            why="no file or directory has that name",
            advice=(f"ls -l {shlex.quote(str(path.parent))}",),
            metadata={"model": str(path), "path": path},
        )
    if kind == NVFP4:
        profile = checkpoint(path)
        found = profile.variants[0]
        if found.engine != "diffusion":
            raise _unfit(
                path,
                "NVFP4 is made of a directory with DiffusionGemma, and of no GGUF",
                advice=f"gemctl quantize {shlex.quote(str(path))} --to Q4_K_M",
            )
        if found.quantization.upper() not in UNQUANTIZED:
            raise _unfit(path, f"its weights are {found.quantization} already")
        context, stem = profile.context_tokens, profile.display_name
    elif path.is_dir():
        if not any(each.name.endswith(_WEIGHTS) for each in path.iterdir()):
            raise _unfit(path, "it is a directory without *.safetensors files")
        stem = telling_name(path)
    elif path.suffix.lower() != ".gguf" or not path.is_file():
        raise _unfit(path, "a model file ends in .gguf, and a checkpoint is a directory")
    return Wanted(
        model=model_id(path, stem, taken, own),
        variant=_checked(variant) or _usual(kind, dense=dense),
        quantization=kind,
        engine="diffusion" if kind == NVFP4 else "llama",
        path=path,
        display_name=stem,
        context_tokens=context,
    )


def _best(profile: Profile, kind: str, on_disk: Callable[[Variant], bool]) -> Variant:
    """The one with the most bits that is here, else what a profile makes it from."""
    able = sorted(
        (each for each in profile.every_variant if _fits(each, kind)),
        key=lambda each: -UNQUANTIZED[each.quantization.upper()],
    )
    for each in able:
        if on_disk(each):
            return each
    planned = {
        source.variant
        for each in profile.variants
        if each.quantization.upper() == kind
        for source in each.sources
        if isinstance(source, QuantizedSource)
    }
    for each in able:
        if each.id in planned or each is profile.checkpoint:
            return each
    for each in able:
        if each.pullable:
            return each
    what = "a BF16 DiffusionGemma checkpoint" if kind == NVFP4 else "F32, F16 or BF16 weights"
    raise InvalidRequestError(
        f"{profile.id} has nothing that {kind} could be made from",
        why=f"that takes {what}, and the profile names none",
        advice=(
            f"gemctl plan {profile.model}",
            f"gemctl quantize /path/to/weights --to {kind}",
        ),
        metadata={"field": "source_variant", "model": profile.id, "quantization": kind},
    )


def _named(profile: Profile, kind: str, source: str) -> Variant:
    found = profile.variant(source)
    if found is None:
        known = ", ".join(each.id for each in profile.every_variant)
        raise invalid(
            "source_variant", f"{profile.id} has no variant {source!r}", why=f"it has {known}"
        )
    if not _fits(found, kind):
        if found.quantization.upper() in UNQUANTIZED:
            why = f"the engine {found.engine} has another format of files"
        else:
            why = (
                f"its weights are {found.quantization} already; what is lost there is lost twice "
                "over in what is made of it"
            )
        raise invalid("source_variant", f"{kind} is not made of {profile.model}:{source}", why=why)
    return found


def _fits(variant: Variant, kind: str) -> bool:
    if variant.quantization.upper() not in UNQUANTIZED:
        return False
    return (variant.engine == "diffusion") == (kind == NVFP4)


def _result_id(profile: Profile, kind: str, variant: str, *, dense: bool) -> str:
    if variant:
        known = profile.variant(_checked(variant))
        if known is not None and not known.made_here:
            raise invalid(
                "variant",
                f"{profile.model}:{variant} is another variant",
                why=f"it is pulled from {known.sources[0].origin}, not made here",
            )
        return variant
    if not dense:
        for each in profile.variants:
            if each.made_here and each.quantization.upper() == kind:
                return each.id
    return _usual(kind, dense=dense)


def _usual(kind: str, *, dense: bool) -> str:
    return variant_id(f"{kind}-dense" if dense and kind == NVFP4 else kind)


def _checked(variant: str) -> str:
    if variant and not re.fullmatch(ID_PATTERN, variant):
        raise invalid(
            "variant",
            f"{variant!r} cannot be the id of a variant",
            why="ids consist of a-z, 0-9, '.', '_' and '-', and start with a letter or digit",
        )
    return variant


def _unfit(path: Path, why: str, *, advice: str = "") -> InvalidRequestError:
    return InvalidRequestError(
        f"{path} cannot be quantized to that",
        why=why,
        advice=(advice or f"ls -lL {shlex.quote(str(path))}",),
        metadata={"field": "model", "path": path},
    )
