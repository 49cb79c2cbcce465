"""How many answers a model writes at once."""

from __future__ import annotations

from gemd.routing.cascade import Streams


def test_a_stream_knows_how_many_it_shared_with() -> None:
    """At its beginning or its end; candidates count each, other models not at all."""
    streams = Streams()
    one = streams.begin("a", 1)
    other = streams.begin("a", 3)
    foreign = streams.begin("b", 1)
    one.close()
    assert (one.most, other.most, foreign.most) == (4, 4, 1)
    one.close()
    other.close()
    last = streams.begin("a", 1)
    last.close()
    assert last.most == 1
