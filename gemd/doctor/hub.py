"""`hub`: whether the model hub answers, and whether there is a token for gated models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.doctor.diagnosis import CannotCheckError, conclude, warning
from gemd.doctor.network import reach, unset_proxies
from gemd.doctor.words import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gemd.doctor.diagnosis import Diagnosis, Finding
    from gemd.doctor.network import Reached
    from gemd.doctor.surroundings import Errand, Surroundings

NAME: Final = "hub"
_UNAUTHORIZED: Final = 401
_SERVER_ERRORS: Final = 500
_TRUE: Final = frozenset({"1", "on", "yes", "true"})
"""What the hub's client takes for a yes."""
_LONGEST_TOKEN: Final = 4096


@dataclass(frozen=True, slots=True)
class HubFacts:
    """The hub.

    Attributes:
        endpoint: Its address.
        endpoint_origin: What set that.
        reached: How it answered.
        token_origin: Where a token comes from; empty if there is none.
        token_is_odd: Whether it has characters that no header can hold, so that it is never sent.
        token_status: Status of a request with the token; 0 if none was made.
        unset_proxies: The command that takes proxies away; empty where none is set.

    """

    endpoint: str
    reached: Reached
    endpoint_origin: str = "default"
    token_origin: str = ""
    token_is_odd: bool = False
    token_status: int = 0
    unset_proxies: str = ""


def examine_hub(around: Surroundings, errand: Errand) -> Diagnosis:
    """Ask it once and judge; a thorough look also asks whether it takes the token."""
    settings, environ = around.settings, around.environ
    if settings.offline:
        raise CannotCheckError("not asked: the setting offline keeps gemd from the network")
    if environ.get("HF_HUB_OFFLINE", "").strip().lower() in _TRUE:
        raise CannotCheckError("not asked: HF_HUB_OFFLINE keeps gemd from the hub")
    endpoint, limit = settings.hub_endpoint, settings.hub_timeout
    token, origin = find_token(environ, home=around.home)
    reached = reach(endpoint, environ, limit_s=limit)
    status, odd = 0, not (token.isascii() and token.isprintable())
    if errand.thorough and token and not odd and not reached.problem:
        whoami = f"{endpoint}/api/whoami-v2"
        status = reach(whoami, environ, limit_s=limit, token=token).status
    return check_hub(
        HubFacts(
            endpoint=endpoint,
            endpoint_origin=around.resolved.origins["hub_endpoint"],
            reached=reached,
            token_origin=origin,
            token_is_odd=odd,
            token_status=status,
            unset_proxies=unset_proxies(environ),
        )
    )


def check_hub(facts: HubFacts) -> Diagnosis:
    """Judge it."""
    seen = [f"{facts.endpoint} answers"] if _is_fine(facts.reached) else []
    if facts.endpoint_origin != "default":
        seen.append(f"as {facts.endpoint_origin} has it")
    if facts.reached.proxy:
        seen.append(f"through the proxy {facts.reached.proxy}")
    seen.append(f"token from {facts.token_origin}" if facts.token_origin else "no token")
    return conclude(NAME, _findings(facts), facts=", ".join(seen))


def _is_fine(reached: Reached) -> bool:
    return not reached.problem and reached.status < _SERVER_ERRORS


def _findings(facts: HubFacts) -> Iterator[Finding]:
    if not _is_fine(facts.reached):
        why = facts.reached.problem or f"it answered {facts.reached.status}"
        fixes = [f"curl -I {quoted(facts.endpoint)}"]
        if facts.unset_proxies:
            fixes.append(facts.unset_proxies)
        if facts.endpoint_origin == "default":
            fixes.append("export HF_ENDPOINT=https://MIRROR")
        else:
            fixes.append("gemctl config show --origin")
        yield warning(
            f"{facts.endpoint} cannot be reached ({why}): only models with another source can be "
            "pulled",
            *fixes,
        )
    if facts.token_is_odd:
        yield warning(
            f"the token from {facts.token_origin} is none: it has characters that cannot be sent, "
            "so that nothing can be pulled with it",
            "hf auth login",
        )
    if facts.token_status == _UNAUTHORIZED:
        yield warning(
            f"it does not take the token from {facts.token_origin}: gated models cannot be pulled",
            "hf auth login",
        )


def find_token(environ: Mapping[str, str], *, home: Path) -> tuple[str, str]:
    """The user's token and where it is from, as the hub's client looks for it; empty if none is.

    Its own function for that would cost the import of the whole client.
    """
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := _bare(environ.get(variable, "")):
            return token, variable
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    base = Path(environ.get("HF_HOME") or cache / "huggingface").expanduser()
    file = Path(environ.get("HF_TOKEN_PATH") or base / "token").expanduser()
    try:
        with file.open(encoding="utf-8") as opened:
            token = _bare(opened.read(_LONGEST_TOKEN))
    except (OSError, UnicodeDecodeError):
        return "", ""
    return (token, str(file)) if token else ("", "")


def _bare(token: str) -> str:
    """Without line breaks, which the hub's client takes out wherever they are."""
    return token.replace("\r", "").replace("\n", "").strip()
