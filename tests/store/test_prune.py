"""What a clean-up removes, and what it leaves alone."""

from __future__ import annotations

import fcntl
import hashlib
from typing import TYPE_CHECKING

import pytest

from gemd.store.hub_cache import CachedRepository
from gemd.store.layout import Layout
from gemd.store.leftovers import Leftover, Places, find_leftovers, remove, sweep_empty_folders
from gemd.store.notes import Begun, Note, write_note
from gemd.store.prune import Spared, Stock, Wish, foretold, plan, take_stock
from gemd.store.quota import Holding
from gemd.store.shelf import Shelf
from gemd.store.usage import Usage
from tests.support.stocks import COMMIT, DAY, NOW, aged, blob, left, snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.store.prune import Going

A, B = "a" * 64, "b" * 64


@pytest.fixture
def store(tmp_path: Path) -> Shelf:
    """An empty store beside an empty hub cache."""
    shelf = Shelf(tmp_path / "store", tmp_path / "hub")
    Layout(shelf.root).make()
    return shelf


def _places(store: Shelf) -> Places:
    return Places(store.root, store.hub_cache)


def _stock(store: Shelf) -> Stock:
    return take_stock(store.entries(), Usage(store.root, wall=lambda: NOW), _places(store))


def _paths(found: list[Leftover] | list[Going]) -> set[str]:
    return {
        path.name
        for each in found
        for leftover in [each if isinstance(each, Leftover) else each.leftover]
        if leftover
        for path in leftover.paths
    }


def _remove(store: Shelf, leftover: Leftover) -> int | None:
    return remove(leftover, _places(store), store.discard_unfinished)


def test_unfinished_files_of_yesterday_go_and_those_of_today_stay(store: Shelf) -> None:
    """Who pulled yesterday may go on today; all files of one download go together."""
    left(store.root / "partial" / f"{A}.part")
    left(store.root / "partial" / f"{A}.0123456789abcdef.whl")
    left(store.root / "partial" / f"{B}.part", age_s=DAY / 2)
    left(store.root / "work" / "tiny" / "q4" / "files" / "tiny.gguf")
    left(store.root / "manifests" / "tiny" / ".q4.json.x1y2")
    going = plan(_stock(store), Wish(), now=NOW)
    assert {each.item.reason for each in going} == {"unfinished"}
    assert f"{B}.part" not in _paths(going)
    for each in going:
        assert each.leftover
        assert _remove(store, each.leftover)
    sweep_empty_folders(store.root)
    assert [path.name for path in (store.root / "partial").iterdir()] == [f"{B}.part"]
    assert list((store.root / "work").iterdir()) == []
    assert list((store.root / "manifests").iterdir()) == []


def test_what_somebody_works_on_stays(store: Shelf) -> None:
    """Whoever holds the lock goes on with the file, however old it is; so does an operation."""
    layout = Layout(store.root)
    left(layout.part(A))
    work = left(layout.work("tiny", "q4") / "files" / "x").parent.parent
    aged(work, 2 * DAY)
    aged(work / "files", 2 * DAY)
    [part, folder] = find_leftovers(_places(store))
    with layout.lock(A).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert _remove(store, part) is None
    assert layout.part(A).exists()
    spared = Spared(busy={("tiny", "q4")})
    assert folder.model == "tiny"
    assert [each.leftover for each in plan(_stock(store), Wish(), now=NOW, spared=spared)] == [part]


def test_what_was_written_to_since_the_plan_stays(store: Shelf) -> None:
    """A pull that has begun again and ended in between took it up."""
    part = left(Layout(store.root).part(A))
    [found] = find_leftovers(_places(store))
    aged(part, 0)
    assert _remove(store, found) is None
    assert part.exists()


def test_a_blob_that_no_manifest_names_goes(store: Shelf) -> None:
    """One that a manifest names stays, and one that has got a manifest since the plan."""
    kept = blob(store, "tiny", b"kept", age_s=2 * DAY)
    data = b"nobody's"
    orphan = left(Layout(store.root).blob(hashlib.sha256(data).hexdigest(), ".gguf"), data)
    [found] = find_leftovers(_places(store))
    assert (found.reason, found.paths, found.size_bytes) == ("orphaned", (orphan,), len(data))
    blob(store, "other", data, age_s=2 * DAY)
    assert _remove(store, found) is None
    store.entry("other", "q4")
    (store.root / "manifests" / "other" / "q4.json").unlink()
    assert _remove(store, found)
    assert not orphan.exists()
    assert kept.exists()


def test_nothing_is_an_orphan_while_a_manifest_cannot_be_read(store: Shelf) -> None:
    """Nobody knows which file the damaged one names."""
    left(Layout(store.root).blob(A, ".gguf"))
    left(store.root / "manifests" / "tiny" / "q4.json", b"{")
    assert find_leftovers(_places(store)) == []


def test_made_directories_without_a_manifest_go(store: Shelf) -> None:
    """What was killed before its last step and not gone on with."""
    folder = left(Layout(store.root).made("tiny", "q8_0-local") / "tiny.gguf").parent
    aged(folder, 2 * DAY)
    [going] = plan(_stock(store), Wish(), now=NOW)
    assert going.leftover
    assert _remove(store, going.leftover)
    assert not folder.exists()


def test_other_tools_files_in_the_hub_cache_stay(store: Shelf, tmp_path: Path) -> None:
    """Neither their unfinished files nor their blobs are looked at; ours without a note go."""
    blobs = tmp_path / "hub" / "models--someone--tiny" / "blobs"
    theirs = left(blobs / f"{A}.0f0f.incomplete")
    whole = left(blobs / B)
    ours = left(blobs / f"{A}.gemd.part")
    [found] = find_leftovers(_places(store))
    assert found.paths == (ours,)
    assert _remove(store, found)
    assert theirs.exists()
    assert whole.exists()


def test_an_unfinished_pull_of_several_files_goes_as_a_whole(store: Shelf, tmp_path: Path) -> None:
    """Its parts and the files that it has brought, but not those that were there before."""
    repository = CachedRepository.named(tmp_path / "hub", "someone/tiny")
    repository.make(COMMIT)
    brought, found_there, begun = "1" * 64, "2" * 64, "3" * 64
    left(repository.blob(brought), b"brought")
    left(repository.blob(found_there), b"theirs")
    left(repository.part(begun), b"begun")
    repository.link(COMMIT, "a.safetensors", brought)
    files = (
        Begun(name="a.safetensors", etag=brought, size_bytes=7, ours=True, linked=True),
        Begun(name="b.safetensors", etag=found_there, size_bytes=6),
        Begun(name="c.safetensors", etag=begun, size_bytes=99, ours=True),
    )
    place = Layout(store.root).begun("tiny", "bf16")
    write_note(
        place,
        Note(cache=str(tmp_path / "hub"), repository="someone/tiny", commit=COMMIT, files=files),
    )
    aged(place, 2 * DAY)
    [going] = plan(_stock(store), Wish(), now=NOW)
    assert going.item.size_bytes == len("brought") + len("begun") + place.stat().st_size
    assert (going.item.model, going.item.path) == ("", str(place))
    assert going.leftover
    assert _remove(store, going.leftover)
    assert not place.exists()
    assert not repository.blob(brought).exists()
    assert not repository.part(begun).exists()
    assert repository.blob(found_there).exists()


def test_a_manifest_whose_files_are_gone_goes_too(store: Shelf, tmp_path: Path) -> None:
    """What is left of its files is counted; a disk that is away is no reason."""
    folder = snapshot(store, tmp_path / "hub", "tiny", {"a": b"first", "b": b"second"})
    assert plan(_stock(store), Wish(), now=NOW) == []
    (folder / "a").resolve().unlink()
    [going] = plan(_stock(store), Wish(), now=NOW)
    assert (going.item.reason, going.item.model, going.item.size_bytes) == ("orphaned", "tiny", 6)
    assert plan(_stock(store), Wish(), now=NOW, spared=Spared(models={"tiny"})) == []
    (tmp_path / "hub").rename(tmp_path / "away")
    assert plan(_stock(store), Wish(), now=NOW) == []


def test_only_what_gemd_put_there_counts(store: Shelf, tmp_path: Path) -> None:
    """Files of others, and files that somebody changed since, are never freed."""
    snapshot(store, tmp_path / "hub", "theirs", {"a": b"x" * 100}, ours=False)
    changed = blob(store, "changed", b"y" * 10, age_s=90 * DAY)
    changed.write_bytes(b"z" * 10)
    assert _stock(store).owned_bytes == 0
    assert plan(_stock(store), Wish(unused_for_s=0.0, keep_bytes=0), now=NOW) == []


def test_variants_go_by_their_last_use(store: Shelf) -> None:
    """Leftovers first, then what was not used for long, then what is over the limit."""
    left(Layout(store.root).part(A), b"x" * 5)
    blob(store, "old", b"o" * 100, age_s=40 * DAY)
    blob(store, "used", b"u" * 100, age_s=60 * DAY)
    blob(store, "new", b"n" * 100, age_s=DAY)
    Usage(store.root, wall=lambda: NOW - 2 * DAY).touch("used", "q4")
    stock = _stock(store)
    going = plan(stock, Wish(unused_for_s=30 * DAY, keep_bytes=150), now=NOW)
    assert [(each.item.reason, each.item.model) for each in going] == [
        ("unfinished", ""),
        ("unused", "old"),
        ("over-limit", "used"),
    ]
    told = foretold(stock, going)
    assert (told.freed_bytes, told.kept_bytes) == (205, 100)
    spared = Spared(models={"old", "used"})
    assert [
        each.item.model for each in plan(stock, Wish(keep_bytes=0), now=NOW, spared=spared)
    ] == [
        "",
        "new",
    ]


def test_unfinished_files_that_stay_count_against_the_limit() -> None:
    """A download that runs takes its room, though no variant can be found for it."""
    fresh = Leftover((), "unfinished", 60, NOW)
    stock = Stock((Holding("tiny", "q4", 0.0, {"a": 50}),), (), (fresh,))
    assert [each.item.model for each in plan(stock, Wish(keep_bytes=100), now=NOW)] == ["tiny"]
    assert plan(stock, Wish(keep_bytes=110), now=NOW) == []
