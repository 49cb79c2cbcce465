"""How a tensor is cut."""

from __future__ import annotations

from math import prod

from hypothesis import given
from hypothesis import strategies as st

from gemd.worker.quantize.gguf.slabs import cut

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


@given(shape=shapes, slab_bytes=st.integers(1, 200), by_expert=st.booleans())
def test_every_row_once_in_order_and_no_slab_too_large(
    shape: tuple[int, ...], slab_bytes: int, *, by_expert: bool
) -> None:
    """A slab is at most as large as allowed, or one row."""
    at = 0
    for slab in cut(shape, slab_bytes, by_expert=by_expert):
        assert slab.start == at
        assert slab.count == 1 or 4 * shape[0] * slab.count <= slab_bytes
        at += slab.count
    assert at == prod(shape[1:])


@given(shapes.filter(lambda shape: len(shape) > 1), st.integers(1, 200))
def test_no_slab_has_rows_of_two_experts(shape: tuple[int, ...], slab_bytes: int) -> None:
    """An importance matrix has other weights for each."""
    for slab in cut(shape, slab_bytes, by_expert=True):
        first, last = slab.start // shape[1], (slab.start + slab.count - 1) // shape[1]
        assert first == last == slab.expert
