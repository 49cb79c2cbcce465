"""What a repository of the hub holds at one commit, and which of its files a source means."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from gemd.catalog.sources import HubSource
from gemd.errors import ContentMismatchError, ModelNotFoundError
from gemd.footprint.checkpoint import INDEX, safetensors_index
from gemd.footprint.diffusion_config import CONFIG
from gemd.footprint.diffusion_files import SINGLE
from gemd.footprint.source import open_local
from gemd.store import hub
from gemd.store.hub_cache import COMMIT, ETAG, is_safe_name, unsafe

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog import RepositorySource
    from gemd.errors import GemdError
    from gemd.store.hub import HubFile
    from gemd.store.transport import Transport

MAX_FILES: Final = 10_000
"""Of one pull; a checkpoint has some hundred."""
_SPLIT: Final = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_SHOWN: Final = 5


def split_names(file: str) -> tuple[str, ...]:
    """Names of all parts of a split GGUF file, by its first one; empty if it is none.

    The form is llama.cpp's (`llama_split_path`): ``name-00001-of-00003.gguf``.
    """
    found = _SPLIT.fullmatch(file)
    if not found or int(found[2]) != 1 or not 1 < int(found[3]) <= MAX_FILES:
        return ()
    return tuple(
        f"{found[1]}-{number:05}-of-{found[3]}.gguf" for number in range(1, int(found[3]) + 1)
    )


async def ask_tree(
    source: HubSource | RepositorySource, transport: Transport
) -> tuple[HubFile, ...]:
    """Asks the hub once, within `transport.hub_timeout_s`, which files a source means.

    They come in the order in which they are to be fetched: an index first, then the small ones.

    Raises:
        HubUnreachableError: No sensible answer in time.
        AuthRequiredError: A token is needed, or the one there is does not do.
        RepoGatedError: The terms have to be accepted on the hub first.
        ModelNotFoundError: No such repository or revision, or it lacks files.
        ContentMismatchError: Its names or hashes are none that could be used here.

    """
    found = await hub.within(transport, lambda: _listed(source, transport))
    page = f"{transport.hub_endpoint}/{source.repository}"
    chosen = (
        _split(source, found, page)
        if isinstance(source, HubSource)
        else (_matching(source, found, page))
    )
    return tuple(sorted(chosen, key=lambda each: (each.name != INDEX, each.size_bytes, each.name)))


def check_index(index: Path, names: frozenset[str], source: RepositorySource) -> None:
    """Checks that every file that an index names is among those to be fetched. Blocks.

    Raises:
        ModelNotFoundError: One is not.
        BadModelFileError: It is no index.

    """
    with open_local(index) as file:
        missing = [name for name in safetensors_index(file).files if name not in names]
    if missing:
        raise _lacking(
            source,
            f"its {INDEX} names {_shown(missing)}, and there is no such file among those that are "
            "to be fetched",
        )


def _listed(
    source: HubSource | RepositorySource, transport: Transport
) -> tuple[HubFile, ...] | GemdError:
    endpoint = transport.hub_endpoint

    def question(token: str) -> tuple[HubFile, ...] | GemdError:
        from huggingface_hub import HfApi  # noqa: PLC0415 - as in `hub.client_asks`

        api = HfApi(endpoint=endpoint, token=token or False, library_name="gemd")
        info = api.model_info(
            source.repository,
            revision=source.revision,
            files_metadata=True,
            timeout=transport.hub_timeout_s,
        )
        commit = info.sha or ""
        if not COMMIT.fullmatch(commit) or info.siblings is None:
            return hub.unreachable(endpoint, "the answer is not that of a model hub")
        return tuple(
            _file(source.repository, sibling, commit, token, endpoint) for sibling in info.siblings
        )

    return hub.client_asks(source, transport, question)


def _file(repository: str, sibling: Any, commit: str, token: str, endpoint: str) -> HubFile:
    """One file of the listing; what makes it unusable is told when it is chosen."""
    name = str(sibling.rfilename)
    lfs = sibling.lfs
    return hub.HubFile(
        hub.address(repository, name, commit, endpoint),
        token,
        commit,
        int((lfs.size if lfs else sibling.size) or 0),
        str(lfs.sha256) if lfs else "",
        "" if lfs else str(sibling.blob_id or ""),
        name,
    )


def _matching(
    source: RepositorySource, found: tuple[HubFile, ...], page: str
) -> tuple[HubFile, ...]:
    chosen = tuple(
        _usable(each, source)
        for each in found
        if any(fnmatchcase(each.name, pattern) for pattern in source.files)
    )
    names = {each.name for each in chosen}
    if not chosen:
        why = f"none of its {len(found)} files is one of {_shown(source.files)}"
        raise _lacking(source, why, page)
    if len(chosen) > MAX_FILES:
        why = f"{len(chosen)} of its files are wanted; {MAX_FILES} is the limit"
        raise _lacking(source, why, page)
    if CONFIG not in names or not {SINGLE, INDEX} & names:
        missing = CONFIG if CONFIG not in names else f"{SINGLE}, nor {INDEX}"
        raise _lacking(source, f"it is no checkpoint: it has no {missing}", page)
    return chosen


def _split(source: HubSource, found: tuple[HubFile, ...], page: str) -> tuple[HubFile, ...]:
    there = {each.name: each for each in found}
    wanted = split_names(source.file)
    if missing := [name for name in wanted if name not in there]:
        raise _lacking(source, f"it has no {_shown(missing)}", page)
    return tuple(_usable(there[name], source) for name in wanted)


def _usable(file: HubFile, source: HubSource | RepositorySource) -> HubFile:
    if not is_safe_name(file.name):
        raise unsafe("file name", file.name, source.repository)
    if not ETAG.fullmatch(file.etag) or file.size_bytes < 0:
        raise ContentMismatchError(
            f"{file.name} of {source.origin} cannot be verified",
            why="the hub did not say its hash",
            metadata={"repository": source.repository, "file": file.name, "commit": file.commit},
        )
    return file


def is_split(source: object) -> bool:
    """Whether a source is the first part of a split GGUF file."""
    return isinstance(source, HubSource) and bool(split_names(source.file))


def _lacking(source: HubSource | RepositorySource, why: str, page: str = "") -> ModelNotFoundError:
    return ModelNotFoundError(
        f"{source.origin} does not have the files of this model",
        why=why,
        advice=(f"open {page}",) if page else (),
        metadata={"repository": source.repository, "revision": source.revision},
    )


def _shown(names: list[str] | tuple[str, ...]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
