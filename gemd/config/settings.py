"""Every setting, what it means, and the values in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gemd.config.forms import (
    AutoBytes,
    BudgetField,
    Bytes,
    Duration,
    Flag,
    Forever,
    Form,
    GpuBudgetField,
    IdleTimesField,
    Never,
    PathField,
    PromFileField,
    SchedulesField,
    SocketField,
    endpoint,
    ip_address,
    package_index,
    whole,
)
from gemd.quantities import MIB, Budget

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Settings(BaseModel):
    """Every setting of gemd. Durations are seconds, sizes are bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    socket: SocketField = Field(
        default=None,
        description="Unix socket of the daemon. Unset: in the user's runtime directory.",
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Form("debug, info, warning or error")
    ] = Field(
        default="info",
        description="Least severe log lines that are written. Prompts appear in debug only.",
    )
    log_format: Annotated[Literal["auto", "json", "console"], Form("auto, json or console")] = (
        Field(
            default="auto",
            description="Form of the log on stderr; auto is console on a terminal, else json.",
        )
    )
    idle_exit: Never = Field(
        default=1800.0,
        description="Idle time after which a daemon that gemctl started ends by itself.",
    )
    shutdown_grace: Duration = Field(
        default=5.0,
        le=15.0,
        description="Time that running requests get to end at shutdown; at most 15s.",
    )
    default_model: Annotated[
        str, Form("auto, a model's name or a path to a .gguf file or a checkpoint")
    ] = Field(
        default="auto",
        min_length=1,
        description="Who answers a request that names no model; auto: the plan's if it is on disk.",
    )
    fast_model: Annotated[str, Form("auto, none, a model's name or a path to a checkpoint")] = (
        Field(
            default="auto",
            min_length=1,
            description="Who drafts; auto: the planned fast model if it is on disk, none: nobody.",
        )
    )
    strong_model: Annotated[str, Form("auto, a model's name or a path to a .gguf file")] = Field(
        default="auto",
        min_length=1,
        description="Who answers what is hard, and refines drafts; auto: the plan's if on disk.",
    )
    checker_model: Annotated[str, Form("auto, none, a model's name or a path to a .gguf file")] = (
        Field(
            default="auto",
            min_length=1,
            description="Who scores drafts; auto: the strong model; while it is cold, a verifier.",
        )
    )
    draft_prompt_tokens: Annotated[int, *whole(0, 2**24)] = Field(
        default=4096,
        ge=0,
        le=2**24,
        description="Longest prompt that is drafted; a longer one goes to the strong model.",
    )
    refine_percent: Annotated[int, *whole(0, 100)] = Field(
        default=25,
        ge=0,
        le=100,
        description="Share of drafts to refine, as long as nothing is known of their worth.",
    )
    harm_percent: Annotated[int, *whole(0, 100)] = Field(
        default=10,
        ge=0,
        le=100,
        description="Most of the shipped drafts that may be bad, once that can be told.",
    )
    shadow_runs: Flag = Field(
        default=False,
        description="To learn, have the strong model answer a twentieth of what drafts answered.",
    )
    context_tokens: Annotated[int, *whole(256, 2**24)] = Field(
        default=4096,
        ge=256,
        le=2**24,
        description="Cells of a model's KV cache, shared by all requests it decodes together.",
    )
    prompt_cache: Bytes = Field(
        default=256 * MIB,
        ge=0,
        description="RAM per model for prompts that have left the KV cache; 0B keeps none.",
    )
    parallel: Annotated[int, *whole(1, 64)] = Field(
        default=8,
        ge=1,
        le=64,
        description="Requests that one model decodes together.",
    )
    threads: Annotated[int, *whole(0, 1024)] = Field(
        default=0,
        ge=0,
        le=1024,
        description="CPU threads per model; 0 takes the physical cores.",
    )
    ram_budget: BudgetField = Field(
        default=Budget(percent=50.0),
        description="RAM that all warm models together may take.",
    )
    ram_margin: AutoBytes = Field(
        default=None,
        description="RAM that has to stay free for other programs; auto is 5%, 256MiB to 2GiB.",
    )
    gpu_margin: AutoBytes = Field(
        default=None,
        description="The same of each GPU; auto is 8%, at least 1.5GiB; 512MiB without display.",
    )
    gpu_budget: GpuBudgetField = Field(
        default=Budget(percent=100.0),
        description="Memory of each GPU that all warm models together may take.",
    )
    plan_context: Annotated[int, *whole(256, 2**24)] = Field(
        default=16_384,
        ge=256,
        le=2**24,
        description="Tokens of context that a model has to have room for to be planned.",
    )
    plan_min_speed: Annotated[int, *whole(0, 100_000)] = Field(
        default=15,
        ge=0,
        le=100_000,
        description="Tokens per second that a plan wants; the fastest model where none reaches it.",
    )
    cpu_consent: Flag = Field(
        default=False,
        description="Let models compute on the processor of a machine whose GPU they cannot use.",
    )
    devices_file: PathField = Field(
        default=None,
        description="Rehearse on the GPUs that this file describes instead of the real ones.",
    )
    parking: Bytes = Field(
        default=0,
        ge=0,
        description="Unused RAM that files of models that were used are read back into; 0B is off.",
    )
    keep_warm: Forever = Field(
        default=1800.0,
        description="Idle time after which a model that is not pinned is unloaded.",
    )
    keep_warm_models: IdleTimesField = Field(
        default=(),
        description="The same for single models, where it differs.",
    )
    schedules: SchedulesField = Field(
        default=(),
        description="What shall be warm, or never be, and when: see Schedules below.",
    )
    queue_limit: Annotated[int, *whole(1, 100_000)] = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Requests that may wait; one more is refused with QUEUE_FULL.",
    )
    load_stall_timeout: Duration = Field(
        default=60.0,
        gt=0,
        description="Time without progress after which loading a model is given up.",
    )
    answer_stall_timeout: Duration = Field(
        default=300.0,
        gt=0,
        description="Time without a sign of life after which a worker with requests is ended.",
    )
    engine_backend: Annotated[
        Literal["auto", "cuda", "hip", "vulkan", "metal", "cpu"],
        Form("auto, cuda, hip, vulkan, metal or cpu"),
    ] = Field(
        default="auto",
        description="Engine build that workers use; auto is the best that the GPU can run.",
    )
    engine_index: Annotated[str, BeforeValidator(package_index), Form("an http(s) address")] = (
        Field(
            default="https://abetlen.github.io/llama-cpp-python/whl",
            description="Where `gemctl engine install` finds compiled engines, by backend.",
        )
    )
    torch_index: Annotated[str, BeforeValidator(package_index), Form("an http(s) address")] = Field(
        default="https://download.pytorch.org/whl",
        description="The same for torch, by CUDA version.",
    )
    hub_endpoint: Annotated[str, BeforeValidator(endpoint), Form("an http(s) address")] = Field(
        default="https://huggingface.co",
        description="Model hub; HF_ENDPOINT is honoured too.",
    )
    hub_timeout: Duration = Field(
        default=5.0,
        gt=0,
        description="Time the hub gets to answer before another source is tried.",
    )
    hub_transfer: Annotated[Literal["http", "xet"], Form("http or xet")] = Field(
        default="http",
        description="How large files come from the hub; xet takes several connections.",
    )
    offline: Flag = Field(
        default=False,
        description="Never use the network. HF_HUB_OFFLINE only keeps from the hub.",
    )
    store_dir: PathField = Field(
        default=None,
        description="Directory of downloaded models. Unset: `models` in the cache directory.",
    )
    store_quota: Bytes = Field(
        default=0,
        ge=0,
        description="Most that models may take on disk; the longest unused give way. 0B: no limit.",
    )
    tcp_port: Annotated[int, *whole(0, 65535)] = Field(
        default=0,
        ge=0,
        le=65535,
        description="Also listen on this TCP port, where every call needs a token; 0 is off.",
    )
    tcp_address: Annotated[str, BeforeValidator(ip_address), Form("an IP address")] = Field(
        default="127.0.0.1",
        description="Where that port is; beyond loopback it needs TLS.",
    )
    tls_certificate: PathField = Field(
        default=None,
        description="PEM file with the certificate that the TCP port shows, and its chain.",
    )
    tls_key: PathField = Field(
        default=None,
        description="PEM file with its private key, which only you can read.",
    )
    max_message_bytes: Bytes = Field(
        default=32 * MIB,
        ge=64 * 1024,
        le=2**31 - 1,
        description="Largest request the daemon takes, from 64KiB to below 2GiB.",
    )
    metrics_port: Annotated[int, *whole(0, 65535)] = Field(
        default=0,
        ge=0,
        le=65535,
        description="Also tell Prometheus figures on this port, only on 127.0.0.1; 0 is off.",
    )
    metrics_file: PromFileField = Field(
        default=None,
        description="Write the same to this file each 15s, for node_exporter's textfile collector.",
    )

    @classmethod
    def describe(cls) -> tuple[SettingDescription, ...]:
        """Every setting in the order of declaration."""
        return tuple(described(key) for key in cls.model_fields)


@dataclass(frozen=True)
class SettingDescription:
    """What a user has to know about one setting."""

    key: str
    meaning: str
    accepts: str
    default: str
    """As it would be written in the file; empty where the setting is unset by default."""

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return variable_of(self.key)

    @property
    def flag(self) -> str:
        """The command-line option that sets it, where a program has one."""
        return flag_of(self.key)


@dataclass(frozen=True)
class SettingValue:
    """One setting in force."""

    description: SettingDescription
    value: str
    """As it would be written in the file; empty where it is unset."""
    origin: str
    """``default``, a variable, a flag, or the path of the configuration file."""


@dataclass(frozen=True)
class Resolved:
    """The settings in force and where each came from."""

    settings: Settings
    origins: Mapping[str, str]

    def describe(self) -> Iterator[SettingValue]:
        """Every setting with its value and origin, in the order of declaration."""
        for description in Settings.describe():
            key = description.key
            value = form_of(key).write(getattr(self.settings, key))
            yield SettingValue(description, value, self.origins[key])


def described(key: str) -> SettingDescription:
    """What a user has to know about the setting."""
    field = Settings.model_fields[key]
    form = form_of(key)
    return SettingDescription(key, field.description or "", form.accepts, form.write(field.default))


def form_of(key: str) -> Form:
    """How the setting is written."""
    return next(item for item in Settings.model_fields[key].metadata if isinstance(item, Form))


def variable_of(key: str) -> str:
    """The environment variable that sets it."""
    return f"GEMD_{key.upper()}"


def flag_of(key: str) -> str:
    """The command-line option that sets it, where a program has one."""
    return f"--{key.replace('_', '-')}"
