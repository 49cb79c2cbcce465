"""Sources, origins and refusals of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.config import Resolved, Settings, load_settings
from gemd.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

OTHER_VALUES = {
    "socket": "/x/gemd.sock",
    "log_level": "debug",
    "log_format": "json",
    "idle_exit": "never",
    "shutdown_grace": "7s",
    "default_model": "gemma3-270m",
    "fast_model": "none",
    "strong_model": "smollm2-135m",
    "checker_model": "none",
    "draft_prompt_tokens": "1000",
    "refine_percent": "30",
    "harm_percent": "5",
    "shadow_runs": "true",
    "context_tokens": "2048",
    "prompt_cache": "0B",
    "parallel": "2",
    "threads": "3",
    "ram_budget": "3GiB",
    "ram_margin": "1GiB",
    "gpu_budget": "90%",
    "gpu_margin": "2GiB",
    "plan_context": "8192",
    "plan_min_speed": "7",
    "cpu_consent": "true",
    "devices_file": "/x/devices.toml",
    "keep_warm": "forever",
    "keep_warm_models": "gemma3-270m=2h; smollm2-135m=forever",
    "schedules": "saver=never gemma3-270m on battery",
    "parking": "4GiB",
    "queue_limit": "7",
    "load_stall_timeout": "90s",
    "answer_stall_timeout": "10m",
    "engine_backend": "vulkan",
    "engine_index": "http://127.0.0.1:9/whl",
    "torch_index": "http://127.0.0.1:9/torch",
    "hub_endpoint": "http://127.0.0.1:9",
    "hub_timeout": "0.5s",
    "hub_transfer": "xet",
    "offline": "true",
    "store_dir": "/x/models",
    "store_quota": "50GiB",
    "tcp_port": "50051",
    "tcp_address": "::1",
    "tls_certificate": "/etc/gemd/chain.pem",
    "tls_key": "/etc/gemd/key.pem",
    "max_message_bytes": "1MiB",
    "metrics_port": "9464",
    "metrics_file": "/x/gemd.prom",
}


def _values(resolved: Resolved) -> dict[str, str]:
    return {item.description.key: item.value for item in resolved.describe()}


def _refused(**sources: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_settings(**{"environ": {}, **sources})  # type: ignore[arg-type]  # one source of several
    assert caught.value.why
    assert caught.value.advice
    return caught.value


def test_the_table_of_values_is_complete() -> None:
    """Every setting is tried by the tests below."""
    assert OTHER_VALUES.keys() == Settings.model_fields.keys()


def test_defaults_say_so() -> None:
    """Without any source every origin is `default` and every value is the documented one."""
    resolved = load_settings(environ={})
    assert set(resolved.origins.values()) == {"default"}
    for item in resolved.describe():
        assert item.value == item.description.default
    assert resolved.settings.keep_warm == 1800
    assert resolved.settings.max_message_bytes == 32 * 1024**2
    assert resolved.settings.ram_budget.of(100) == 50


def test_every_setting_is_described() -> None:
    """Each has a sentence, what it accepts, and names for both kinds of sources."""
    for description in Settings.describe():
        assert description.meaning.endswith(".")
        assert description.accepts
        assert description.variable == f"GEMD_{description.key.upper()}"
        assert description.flag.startswith("--")
        assert "_" not in description.flag


@pytest.mark.parametrize("key", OTHER_VALUES)
def test_every_setting_comes_from_every_source(key: str, tmp_path: Path) -> None:
    """The same text works as flag, variable and in the file, and the origin names it."""
    text = OTHER_VALUES[key]
    file = tmp_path / "config.toml"
    file.write_text(f'{key} = "{text}"\n')
    variable = f"GEMD_{key.upper()}"
    flag = f"--{key.replace('_', '-')}"
    for resolved, origin in (
        (load_settings(environ={}, file=file), str(file)),
        (load_settings(environ={variable: text}), variable),
        (load_settings(environ={}, flags={key: text}), flag),
    ):
        assert _values(resolved)[key] == text
        assert resolved.origins[key] == origin


def test_the_stronger_source_wins(tmp_path: Path) -> None:
    """Flag over variable over file over default."""
    file = tmp_path / "config.toml"
    file.write_text("parallel = 2\nthreads = 2\nqueue_limit = 2\n")
    resolved = load_settings(
        environ={"GEMD_PARALLEL": "3", "GEMD_THREADS": "3"}, file=file, flags={"parallel": "4"}
    )
    settings = resolved.settings
    assert (settings.parallel, settings.threads, settings.queue_limit) == (4, 3, 2)
    assert resolved.origins["parallel"] == "--parallel"


def test_the_file_takes_toml_types(tmp_path: Path) -> None:
    """Numbers and booleans need no quotes; a tilde is the user's home."""
    file = tmp_path / "config.toml"
    file.write_text('offline = true\nparallel = 3\nstore_dir = "~/models"\n')
    settings = load_settings(environ={"HOME": "/home/u"}, file=file).settings
    assert settings.offline
    assert settings.parallel == 3
    assert str(settings.store_dir) == "/home/u/models"


def test_the_hub_clients_variables_count_below_ours(tmp_path: Path) -> None:
    """HF_ENDPOINT beats the file and yields to ours; HF_HUB_OFFLINE is the client's own affair.

    That client refuses by itself then, and a package index is still asked.
    """
    file = tmp_path / "config.toml"
    file.write_text('hub_endpoint = "https://file.example"\n')
    environ = {"HF_ENDPOINT": "https://hf.example/", "HF_HUB_OFFLINE": "1"}
    resolved = load_settings(environ=environ, file=file)
    assert resolved.settings.hub_endpoint == "https://hf.example"
    assert resolved.origins["hub_endpoint"] == "HF_ENDPOINT"
    assert not resolved.settings.offline
    resolved = load_settings(environ={**environ, "GEMD_HUB_ENDPOINT": "https://our.example"})
    assert resolved.settings.hub_endpoint == "https://our.example"
    assert resolved.origins["hub_endpoint"] == "GEMD_HUB_ENDPOINT"


def test_an_empty_variable_and_an_absent_file_say_nothing(tmp_path: Path) -> None:
    """Both leave the default in force."""
    resolved = load_settings(environ={"GEMD_THREADS": ""}, file=tmp_path / "none.toml")
    assert resolved.origins["threads"] == "default"


@pytest.mark.parametrize(
    "key, value",
    [
        ("socket", "gemd.sock"),
        ("socket", "/"),
        ("socket", "/run/.."),
        ("log_level", "loud"),
        ("keep_warm", "soon"),
        ("shutdown_grace", "1h"),
        ("context_tokens", "0"),
        ("parallel", "many"),
        ("threads", "-1"),
        ("ram_budget", "200%"),
        ("hub_endpoint", "ftp://x"),
        ("hub_endpoint", "https://"),
        ("hub_endpoint", "https://:80/x"),
        ("hub_endpoint", "https://a.example:99999"),
        ("hub_endpoint", "https://[a.example"),
        ("hub_endpoint", "https://a.example/x?y"),
        ("hub_endpoint", "https://a.example/x y"),
        ("hub_timeout", "0s"),
        ("offline", "perhaps"),
        ("tcp_port", "65536"),
        ("tcp_address", "localhost"),
        ("tcp_address", "127.0.0.1:80"),
        ("max_message_bytes", "1B"),
        ("metrics_port", "-1"),
        ("metrics_port", "65536"),
        ("metrics_file", "gemd.prom"),
        ("metrics_file", "/x/gemd.txt"),
        ("metrics_file", "/x/.prom"),
        ("default_model", ""),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(key: str, value: str) -> None:
    """The error names the source, the key, the value and the allowed values."""
    error = _refused(flags={key: value})
    assert f"--{key.replace('_', '-')}" in error.message
    assert repr(value) in error.message
    assert error.metadata["key"] == key
    assert error.metadata["value"] == value
    assert error.metadata["allowed"]
    assert error.metadata["allowed"] in error.why


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    """The hub takes a token; what stands in a setting is shown, logged and told."""
    error = _refused(environ={"GEMD_HUB_ENDPOINT": "https://me:secret@a.example/hf"})
    assert "HF_TOKEN" in error.why
    assert "a.example" in error.message
    assert "secret" not in f"{error} {error.metadata} {error.advice}"


def test_the_advice_mends_the_setting_where_it_is(tmp_path: Path) -> None:
    """A command that shows the settings would meet the same error."""
    assert _refused(environ={"GEMD_PARALLEL": "99"}).advice == ("unset GEMD_PARALLEL",)
    assert _refused(environ={"HF_ENDPOINT": "x"}).advice == ("unset HF_ENDPOINT",)
    assert _refused(environ={"GEMD_SOCKT": "/x"}).advice[-1] == "unset GEMD_SOCKT"
    assert _refused(flags={"log_level": "loud"}).advice == ("gemd --log-level info",)
    assert _refused(flags={"socket": "x"}).advice == ("gemd --help",)
    file = tmp_path / "config.toml"
    for text in ("parallel = 99\n", "parallel", "nonsense = 1\n"):
        file.write_text(text)
        assert f"${{EDITOR:-vi}} {file}" in _refused(file=file).advice


def test_a_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    """Who sets GEMD_CONFIG does not want the defaults."""
    file = tmp_path / "typo.toml"
    error = _refused(environ={"GEMD_CONFIG": str(file)}, file=file)
    assert error.metadata["file"] == str(file)
    assert error.advice[0] == "unset GEMD_CONFIG"


@pytest.mark.parametrize("line", ["keep_warm = 30", "parallel = true", "socket = 5"])
def test_a_bad_type_in_the_file_is_refused(line: str, tmp_path: Path) -> None:
    """A bare number is no duration, a boolean no number, a number no path."""
    file = tmp_path / "config.toml"
    file.write_text(line)
    error = _refused(file=file)
    assert str(file) in error.message
    assert error.metadata["key"] == line.split(maxsplit=1)[0]


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    """In the file, among the flags and in the environment alike."""
    file = tmp_path / "config.toml"
    file.write_text('keep_wram = "1m"\n')
    assert _refused(file=file).metadata["nearest"] == "keep_warm"
    assert _refused(flags={"paralel": "1"}).metadata["nearest"] == "parallel"
    assert _refused(environ={"GEMD_SOCKT": "/x"}).metadata["nearest"] == "GEMD_SOCKET"
    file.write_text("[qqqq]\n")
    assert _refused(file=file).metadata["nearest"] == ""


def test_variables_of_others_are_left_alone() -> None:
    """GEMD_AUTOSTART is read elsewhere, and a name unlike any setting is not ours."""
    resolved = load_settings(environ={"GEMD_AUTOSTART": "0", "GEMD_ZZZ": "1", "SOCKET": "x"})
    assert set(resolved.origins.values()) == {"default"}


@pytest.mark.parametrize(
    "content",
    [b"a = = 1", b"\xff\xfe", b'a = 1\na = "x"', b"a = " + b"[" * 10_000, b"a = " + b"9" * 5000],
    ids=["syntax", "bytes", "twice", "deep", "digits"],
)
def test_a_file_that_is_no_toml_is_refused(content: bytes, tmp_path: Path) -> None:
    """The error names the file and says where it goes wrong."""
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    assert _refused(file=file).metadata["file"] == str(file)


def test_a_directory_is_no_configuration_file(tmp_path: Path) -> None:
    """What cannot be read is an error, not an empty file."""
    assert _refused(file=tmp_path).metadata["file"] == str(tmp_path)
