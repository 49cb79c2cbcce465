"""The way of each request: facts are gathered, `gemd.routing` decides, and what comes is kept."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from gemd import wire
from gemd.errors import GemdError
from gemd.residency.decisions import Alternative, Decision, DecisionKind, Reason
from gemd.routing.cascade import Job, Judged, Streams, Tools, plain, run
from gemd.routing.decide import Ask, Choice, Strategy, decide
from gemd.routing.request import Tier
from gemd.routing.route import Pair, route, tier_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from gemd.config import Settings
    from gemd.residency.manager import Manager
    from gemd.routing.cascade.events import Event
    from gemd.routing.decide import Option
    from gemd.routing.prompt import Look
    from gemd.routing.request import Feedback, Request
    from gemd.routing.risk import Judge, Label
    from gemd.routing.route import Default, Route
    from gemd.rpc.learning import Learning
    from gemd.rpc.lessons import Lesson
    from gemd.rpc.library import Library
    from gemd.rpc.pairing import Pairing
    from gemd.rpc.shadow import ShadowRuns
    from gemd.rpc.warming import Warming

NAMED: Final = "MODEL_NAMED"
"""The reason that a client gave itself: it need not be told, and nothing is decided."""

_NEUTRAL: Final = {"repeat_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}


class Router:
    """Gives each request its way, and sees it through.

    Args:
        settings: In force.
        library: What models there are.
        manager: Who is warm.
        pairing: The two tiers.
        default: Who answers if nothing is drafted.
        learning: What earlier requests have taught, and where this one's teachings go.
        warming: Keeps both tiers warm while requests are shared.
        shadow: Takes shipped drafts that the strong model may answer too; None: it never does.

    """

    def __init__(
        self,
        settings: Settings,
        *,
        library: Library,
        manager: Manager,
        pairing: Pairing,
        default: Callable[[], Default],
        learning: Learning,
        warming: Warming,
        shadow: ShadowRuns | None = None,
    ) -> None:
        self._settings = settings
        self._library = library
        self._manager = manager
        self._pairing = pairing
        self._default = default
        self._learning = learning
        self._warming = warming
        self._shadow = shadow
        self._streams = Streams()
        self._plain = self._tools(judge=None)

    @property
    def pair(self) -> Pair:
        """The two tiers; raises ModelNotFoundError as `Pairing.pair`."""
        return self._pairing.pair()

    def default_model(self) -> str:
        """Who answers what names no model and is not drafted."""
        return self._default().candidate.id

    def scoring_model(self) -> str:
        """Who scores texts where no model is named: the checker of drafts, if there is one."""
        checker = self._known_pair().checker
        return self.default_model() if checker is None else checker.id

    def embedding_model(self) -> str:
        """Who embeds texts where no model is named: one that was made for it, if it is here."""
        made_for_it = self._library.on_disk_for("embedding")
        return made_for_it[0].id if made_for_it else self.default_model()

    def job(
        self,
        asked: Request,
        *,
        work_id: str,
        request_id: str,
        seed: int,
        remaining_s: float | None,
        background: bool,
    ) -> Job:
        """A request with its way.

        Raises:
            GemdError: As `gemd.routing.route.route`.

        """
        now = self._manager.time()
        fixed = route(
            asked,
            resolve=self._library.resolve,
            default=self._default,
            fast=self._library.fast_on_disk,
            pair=self._pairing.pair,
        )
        pair = look = None
        if fixed is not None:
            if asked.best_of:
                pair, look = self._known_pair(), _look_at(asked.prompt)
            choice = _fixed(fixed, pair)
        else:
            pair, look = self._pairing.pair(), _look_at(asked.prompt)
            judge = self._learning.of(pair).judge
            tiers = replace(
                self._pairing.tiers(),
                failed_drafts=self._learning.recent.failed_drafts(now),
                judged_drafts=judge.report().judged,
            )
            choice = decide(
                self._ask(asked, remaining_s, pair), look, tiers, self._learning.odds(judge)
            )
            if not tiers.sparing:
                self._warming.used(pair)
        job = Job(
            asked=asked,
            look=look,
            choice=choice,
            work_id=work_id,
            request_id=request_id,
            seed=seed,
            arrived=now,
            pair=pair,
            deadline=None if remaining_s is None else now + remaining_s,
            background=background,
        )
        if choice.reason != NAMED:
            self._manager.decisions.record(_decision(job, now))
        return job

    def run(self, job: Job) -> AsyncGenerator[Event]:
        """What happens to it; close it to cancel.

        Raises:
            GemdError: It cannot be answered, or no longer.

        """
        # Of the pair that it was decided for, whatever is warm by now.
        pair = job.pair if job.choice.drafter else None
        lesson = None if pair is None else self._learning.of(pair)
        tools = self._plain if lesson is None else self._tools(judge=lesson.judge)
        if lesson is None and not job.asked.best_of and not job.fallback:
            return plain(job, tools, lambda ended: self._learning.note(job, ended, None))
        return self._followed(job, tools, lesson)

    async def _followed(
        self, job: Job, tools: Tools, lesson: Lesson | None
    ) -> AsyncGenerator[Event]:
        # As the judge: only where something is drafted.
        from gemd.rpc.outcome import Outcome  # noqa: PLC0415 - see above

        outcome = Outcome(job, self._teach(lesson), self._shadow, wall=self._learning.wall)
        async with aclosing(run(job, tools)) as events:
            async for event in events:
                if isinstance(event, Judged):
                    made = _judged(job, event, self._manager.time())
                    self._manager.decisions.record(made)
                self._learning.note(job, event, lesson)
                outcome.note(event)
                yield event

    def feedback(self, request_id: str, candidate: int, signal: Feedback) -> bool:
        """What became of an answer; whether something could be learnt from it."""
        return self._learning.feedback(request_id, candidate, signal)

    def _tools(self, *, judge: Judge | None) -> Tools:
        return Tools(
            manager=self._manager,
            sampling_defaults=self._library.sampling_defaults,
            tier=self._tier,
            judge=judge,
            speeds=self._learning.speeds,
            recent=self._learning.recent,
            streams=self._streams,
        )

    def _teach(self, lesson: Lesson | None) -> Callable[[Label], None]:
        def add(label: Label) -> None:
            if lesson is not None:
                self._learning.add(label, lesson)

        return add

    def _known_pair(self) -> Pair:
        """The two tiers, for a request that does not depend on them: none if a setting is wrong."""
        try:
            return self._pairing.pair()
        except GemdError:
            return Pair()

    def _tier(self, model: str) -> Tier:
        """The part that a model plays here, and if it plays none, what it was made for."""
        pair = self._known_pair()
        if pair.fast is not None and pair.fast.id == model:
            return Tier.FAST
        if pair.strong is not None and pair.strong.id == model:
            return Tier.STRONG
        return tier_of(self._library.resolve(model))

    def _ask(self, asked: Request, remaining_s: float | None, pair: Pair) -> Ask:
        sampling = asked.sampling
        strong = pair.strong
        usual = {} if strong is None else self._library.sampling_defaults(strong.id)
        return Ask(
            mode=asked.mode,
            thinking=bool(asked.thinking),
            logprobs=sampling.get("logprobs") is not None,
            penalties=_penalizes(sampling),
            max_tokens=sampling.get("max_tokens", usual.get("max_tokens")),
            ignore_eos=bool(sampling.get("ignore_eos")),
            remaining_s=remaining_s,
            draft_prompt_tokens=self._settings.draft_prompt_tokens,
            turns_since_refine=self._learning.recent.turns_since_refine(asked.prompt),
        )


def _look_at(prompt: wire.Prompt) -> Look:
    # Tables of words and patterns, which a daemon without two tiers never needs.
    from gemd.routing.prompt import look_at  # noqa: PLC0415 - see above

    return look_at(prompt)


def _penalizes(sampling: Mapping[str, Any]) -> bool:
    """Whether tokens that were said before are to be less likely."""
    window = sampling.get("penalty_last_n", wire.Sampling().penalty_last_n)
    given = (sampling.get(name, neutral) != neutral for name, neutral in _NEUTRAL.items())
    return bool(window) and any(given)


def _fixed(way: Route, pair: Pair | None) -> Choice:
    checker = "" if pair is None or pair.checker is None else pair.checker.id
    return Choice(
        strategy=Strategy.DIRECT,
        model=way.model,
        tier=way.tier,
        reason=way.reason,
        explanation=way.explanation,
        checker="" if checker == way.model else checker,
    )


def _decision(job: Job, now: float) -> Decision:
    choice = job.choice
    return Decision(
        time=now,
        kind=DecisionKind.ROUTE,
        model=choice.model,
        request_id=job.request_id,
        summary=choice.explanation,
        reasons=tuple(
            Reason(choice.reason, choice.explanation, _figures(each))
            for each in choice.options
            if each.taken
        )
        or (Reason(choice.reason, choice.explanation),),
        alternatives=tuple(
            Alternative(each.subject, Reason(each.code, each.reason, _figures(each)), each.cost)
            for each in choice.options
            if not each.taken
        ),
        inputs=choice.inputs,
    )


def _figures(option: Option) -> dict[str, str]:
    figures = {"way": option.subject, "loss": f"{option.loss:.4f}"}
    if option.latency_s is not None:
        figures["latency_s"] = f"{option.latency_s:.3f}"
    if option.cost is not None:
        figures["cost"] = f"{option.cost:.3f}"
    return figures


def _judged(job: Job, event: Judged, now: float) -> Decision:
    judgement = event.judgement
    by = job.choice.checker if event.checked else "its own signals"
    return Decision(
        time=now,
        kind=DecisionKind.ROUTE,
        model=job.choice.drafter,
        request_id=job.request_id,
        summary=f"the draft of {job.choice.drafter}, judged by {by}: "
        f"{judgement.verdict.value.lower()}, {judgement.explanation}",
        reasons=(
            Reason(judgement.code, judgement.explanation),
            *(Reason(fault.code, fault.message) for fault in event.faults),
        ),
        inputs={
            "risk": judgement.risk,
            "limit": judgement.limit,
            "seconds": event.seconds,
            **{f"signal_{name}": value for name, value in judgement.signals.items()},
            **{f"share_{name}": value for name, value in judgement.shares.items()},
        },
    )
