"""How a model wants to be sampled: its generation_config.json.

The values where it is silent are those of the released model, which transformers has as its own
(``DiffusionGemmaGenerationConfig``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.worker.diffusion.sampler import Schedule

if TYPE_CHECKING:
    from gemd.worker.fields import Fields

_SAMPLER: Final = "EntropyBoundSamplerConfig"
_EOS: Final = 1
"""Of Gemma's vocabulary, where no file names one; transformers has it so."""
_MAX_STEPS: Final = 65_536
_MAX_END_TOKENS: Final = 64
_MAX_TEMPERATURE: Final = 100.0
_MAX_NATS: Final = 1e6
_RELEASED: Final = Schedule()


@dataclass(frozen=True, slots=True)
class SamplerDefaults:
    """What a request leaves open.

    Attributes:
        schedule: How a canvas is denoised. A file has no way to leave a threshold out: null is the
            default there, as in transformers.
        eos: Tokens that end an answer, in the file's order.
        pad: The token that fills a canvas behind the end, if there is one.

    """

    schedule: Schedule = _RELEASED
    eos: tuple[int, ...] = ()
    pad: int | None = None


def sampler_defaults(generation: Fields, config: Fields, *, vocabulary: int) -> SamplerDefaults:
    """The defaults of a model.

    Args:
        generation: Its generation_config.json; without fields if it has none.
        config: Its config.json, whose text part names the special tokens that the other does not.
        vocabulary: Tokens that there are.

    Raises:
        BadModelFileError: A value is absurd, or the sampler another one.

    """
    sampler = generation.table("sampler_config")
    sampler.one_of("_cls_name", {_SAMPLER}, _SAMPLER)
    t_min = generation.number("t_min", least=0, most=_MAX_TEMPERATURE, default=_RELEASED.t_min)
    t_max = generation.number("t_max", least=0, most=_MAX_TEMPERATURE, default=_RELEASED.t_max)
    if t_max <= t_min:
        raise generation.fail("t_max", f"it has to be above t_min, which is {t_min:g}")
    named = (generation, config, config.table("text_config"))
    ends = next((fields for fields in named if fields.has("eos_token_id")), None)
    pads = next((fields for fields in named if fields.has("pad_token_id")), None)
    schedule = Schedule(
        max_steps=generation.integer(
            "max_denoising_steps", most=_MAX_STEPS, default=_RELEASED.max_steps
        ),
        entropy_bound=sampler.number(
            "entropy_bound", least=0, most=_MAX_NATS, default=_RELEASED.entropy_bound
        ),
        t_min=t_min,
        t_max=t_max,
        stability_threshold=generation.integer(
            "stability_threshold",
            least=0,
            most=_MAX_STEPS,
            default=_RELEASED.stability_threshold,
        ),
        confidence_threshold=generation.number(
            "confidence_threshold",
            least=0,
            most=_MAX_NATS,
            default=_RELEASED.confidence_threshold,
        ),
    )
    return SamplerDefaults(
        schedule=schedule,
        eos=_tokens(ends, "eos_token_id", vocabulary) if ends else (_EOS,),
        pad=pads.integer("pad_token_id", least=0, most=vocabulary - 1) if pads else None,
    )


def _tokens(fields: Fields, key: str, vocabulary: int) -> tuple[int, ...]:
    value = fields.values.get(key)
    tokens = value if isinstance(value, list) else [value]
    if not 0 < len(tokens) <= _MAX_END_TOKENS or not all(
        type(token) is int and 0 <= token < vocabulary for token in tokens
    ):
        raise fields.fail(key, f"it has to be one token, or a list, below {vocabulary}")
    return tuple(tokens)
