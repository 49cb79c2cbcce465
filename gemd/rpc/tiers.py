"""The two tiers as a status tells of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.errors import GemdError
from gemd.routing.speeds import UNKNOWN
from gemd.rpc.convert.fields import duration, model_name
from gemd.v1 import decision_pb2, status_pb2

if TYPE_CHECKING:
    from gemd.routing.decide import Standing
    from gemd.routing.route import Pair
    from gemd.routing.shares import Share
    from gemd.routing.speeds import Speed
    from gemd.rpc.learning import Learning
    from gemd.rpc.pairing import Pairing


class TierStatus:
    """Tells which models share requests, and how well that goes.

    Args:
        pairing: The models.
        learning: What became of requests.
        alone: Whether a setting has one model answer everything that names none.

    """

    def __init__(self, pairing: Pairing, learning: Learning, *, alone: bool) -> None:
        self._pairing = pairing
        self._learning = learning
        self._alone = alone

    @property
    def shares(self) -> list[Share]:
        """The ways that requests took."""
        return self._learning.shares.list()

    def speed_of(self, model: str) -> Speed:
        """What a model was measured to do here, as it is placed now."""
        try:
            return self._learning.speeds.of(model)
        except GemdError:
            # It was made here, and is no more.
            return UNKNOWN

    def message(self) -> status_pb2.Routing | None:
        """As it is now; None if there is nothing to share."""
        if self._alone:
            return None
        try:
            pair = self._pairing.pair()
        except GemdError as error:
            # A setting names nobody: each request says so, and a status has to come anyway.
            off = decision_pb2.Reason(code=error.reason, message=f"{error.message}: {error.why}")
            return status_pb2.Routing(drafts_off=off)
        made = status_pb2.Routing(
            fast=model_name(pair.fast.id) if pair.fast is not None else "",
            strong=model_name(pair.strong.id) if pair.strong is not None else "",
            checker=model_name(pair.checker.id) if pair.checker is not None else "",
            speeds=self._speeds(),
        )
        off_reason = _off(pair)
        if off_reason is not None:
            made.drafts_off.CopyFrom(off_reason)
            return made
        made.judged_drafts = self._learning.shares.judged
        made.refined_drafts = self._learning.shares.refined
        report = self._learning.of(pair).judge.report()
        made.basis = report.basis.value
        made.labels = report.labels
        return made

    def _speeds(self) -> list[status_pb2.Routing.Speed]:
        tiers = self._pairing.tiers()
        found: dict[str, Standing] = {
            each.model: each
            for each in (tiers.fast, tiers.strong, tiers.checker)
            if each is not None
        }
        return [_speed(each) for each in found.values()]


def _off(pair: Pair) -> decision_pb2.Reason | None:
    """Why nothing is drafted."""
    if pair.fast is None:
        return decision_pb2.Reason(code=pair.off_reason, message=pair.off)
    if pair.strong is None:
        return decision_pb2.Reason(
            code="ONLY_TIER",
            message=f"no strong model is on disk, so {pair.fast.id} answers alone",
        )
    return None


def _speed(standing: Standing) -> status_pb2.Routing.Speed:
    speed = standing.speed
    return status_pb2.Routing.Speed(
        model=model_name(standing.model),
        prefill_tokens_per_second=speed.prefill_tps,
        decode_tokens_per_second=speed.decode_tps,
        canvas=None if speed.canvas_s is None else duration(speed.canvas_s),
        load=None if speed.load_s is None else duration(speed.load_s),
        samples=speed.samples,
    )
