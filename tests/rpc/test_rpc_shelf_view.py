"""What of the catalogue is on disk, and what it takes there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from gemd.catalog import LocalSource, Profile, RepositorySource, Variant
from gemd.residency.states import Residence, State
from gemd.rpc.convert.models import ModelView, model
from gemd.rpc.shelf_view import disk_use, on_disk
from gemd.store import Store, Transport
from gemd.store.hub_cache import CachedRepository
from gemd.v1 import model_pb2
from tests.support.stocks import COMMIT, DAY, NOW, blob, snapshot
from tests.support.stores import profile_of

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"a.safetensors": b"a" * 100, "config.json": b"{}"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store beside an empty hub cache."""
    return Store(
        tmp_path / "store", transport=Transport(environ={"HF_HUB_CACHE": str(tmp_path / "hub")})
    )


def _of_several(name: str) -> Profile:
    return Profile(
        id=name,
        display_name=name,
        family="test",
        variants=(
            Variant(
                id="bf16",
                quantization="BF16",
                engine="diffusion",
                size_bytes=102,
                sources=(RepositorySource(repository=f"someone/{name}", files=("*",)),),
            ),
        ),
    )


def _view(profile: Profile, store: Store) -> model_pb2.Model:
    disk = on_disk(store, [profile])[profile.id]
    residence = Residence(profile.id, State.COLD)
    view = ModelView(
        profile, disk, residence, operation="", fetching=False, context_tokens=0, leases=0
    )
    return model(view, wall_of=float)


def test_a_pulled_repository_is_exclusive_until_somebody_links_to_it(
    store: Store, tmp_path: Path
) -> None:
    """Another snapshot of the hub's client needs a blob: removing the variant would not free it."""
    folder = snapshot(store, tmp_path / "hub", "tiny", FILES)
    [variant] = _view(_of_several("tiny"), store).variants
    assert (variant.on_disk, variant.disk_bytes, variant.exclusive_bytes) == (True, 102, 102)
    assert (variant.path, variant.source) == (str(folder), "hub")
    repository = CachedRepository.named(tmp_path / "hub", "someone/tiny")
    repository.link("d" * 40, "config.json", (folder / "config.json").resolve().name)
    [variant] = _view(_of_several("tiny"), store).variants
    assert (variant.disk_bytes, variant.exclusive_bytes) == (102, 100)


def test_what_two_models_share_is_exclusive_to_none(store: Store) -> None:
    """And it is counted once among what all take."""
    data = b"x" * 1000
    profiles = [profile_of(data, LocalSource(path=store.root), model=name) for name in "ab"]
    for profile in profiles:
        blob(store, profile.id, data)
    found = on_disk(store, profiles)
    assert [found[name]["q4"].exclusive_bytes for name in "ab"] == [0, 0]
    use = disk_use(store, profiles, quota_bytes=5)
    assert (use.owned_bytes, use.shared_bytes, use.quota_bytes) == (1000, 0, 5)


def test_what_was_pulled_into_the_hubs_cache_is_counted_once(store: Store, tmp_path: Path) -> None:
    """As gemd's own, though it lies where what others fetched would be found."""
    whole = {"model.safetensors": b"a" * 100, "config.json": b"{}"}
    snapshot(store, tmp_path / "hub", "ours", whole)
    CachedRepository.named(tmp_path / "hub", "someone/ours").point("main", COMMIT)
    profile = _of_several("ours")
    assert store.as_found(profile.variants[0]) is not None
    use = disk_use(store, [profile], quota_bytes=0)
    assert (use.owned_bytes, use.shared_bytes) == (102, 0)


def test_what_others_fetched_is_shared(store: Store, tmp_path: Path) -> None:
    """Recorded after a pull found it in the cache, or used as it was found."""
    snapshot(store, tmp_path / "hub", "theirs", FILES, ours=False)
    profile = _of_several("theirs")
    [variant] = _view(profile, store).variants
    assert (variant.disk_bytes, variant.exclusive_bytes) == (102, 0)
    use = disk_use(store, [profile], quota_bytes=0)
    assert (use.owned_bytes, use.shared_bytes) == (0, 102)


def test_a_rejected_variant_is_not_on_disk_but_takes_room(store: Store) -> None:
    """Its model is absent, and the reason is told."""
    data = b"x" * 1000
    profile = profile_of(data, LocalSource(path=store.root))
    blob(store, "tiny", data)
    entry = store.entry("tiny", "q4")
    assert entry
    store.record(entry.manifest.model_copy(update={"rejection": "3 tensors differ"}))
    shown = _view(profile, store)
    [variant] = shown.variants
    assert shown.state == model_pb2.Model.STATE_ABSENT
    assert (variant.on_disk, variant.disk_bytes) == (False, 1000)
    assert variant.rejection == "3 tensors differ"
    # Whoever damaged it has written to it: that is no reason to say less.
    entry.path.chmod(0o600)
    entry.path.write_bytes(b"other")
    [variant] = [each for each in _view(profile, store).variants if each.rejection]
    assert not variant.on_disk


def test_what_a_pull_has_checked_later_than_a_verification_counts(store: Store) -> None:
    """Of the two times it is the newer one, whatever the clock did in between."""
    data = b"x" * 1000
    profile = profile_of(data, LocalSource(path=store.root))
    blob(store, "tiny", data)
    entry = store.entry("tiny", "q4")
    assert entry
    for shift in (-DAY, DAY):
        verified = datetime.fromtimestamp(NOW + shift, UTC)
        store.record(entry.manifest.model_copy(update={"verified": verified}))
        [variant] = _view(profile, store).variants
        assert variant.verify_time.seconds == max(NOW, NOW + shift)


def test_free_bytes_are_those_of_the_disk_that_the_store_will_be_on(tmp_path: Path) -> None:
    """Though no folder is there yet."""
    assert disk_use(Store(tmp_path / "not" / "yet"), [], quota_bytes=0).free_bytes > 0
