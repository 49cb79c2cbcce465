"""What a draft of an answer saves or costs."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from tests.bench import machine
from tests.bench.report import Check, Section, spread
from tests.bench.rounds import Samples
from tests.support.drafting import PROMPTS, Tally, drafts
from tests.support.engine_host import chat
from tests.support.llama import CHATML, Answer, Bench, loaded

if TYPE_CHECKING:
    from gemd import wire
    from tests.bench.setting import Setting

ANSWER_TOKENS: Final = 64
PROMPTS_A_ROUND: Final = 2
NAMES: Final = {
    "same": "the answer itself",
    "changed": "a tenth of its words changed",
    "unrelated": "another text",
}


async def measure(setting: Setting) -> Section:
    """Greedy answers with drafts of three kinds, each against the same answer without one."""
    prompts = PROMPTS[:: len(PROMPTS) // (setting.rounds * PROMPTS_A_ROUND)]
    section = Section(
        title="A draft of the answer",
        how=f"{len(prompts)} prompts, greedy answers of up to {ANSWER_TOKENS} tokens, each from an "
        "empty cache: without a draft, then with each, one thread. Time is that of the whole "
        "request over that of the same answer without a draft, prompt by prompt. On the processor "
        "a decode takes two guesses, of which no kernel makes another answer. "
        + machine.describe(threads=1)[0]
        + ".",
        head=("draft", "put to evaluation", "accepted", "time ratio", "min – max", "other answers"),
    )
    tallies: dict[str, Tally] = defaultdict(Tally)
    ratios: dict[str, list[float]] = defaultdict(list)
    with loaded(setting.model, chat_template=CHATML) as bench:
        for seed, prompt in enumerate(prompts):
            plain, alone = _timed(bench, _request(bench, prompt))
            for kind, draft in drafts(plain, seed).items():
                request = _request(bench, prompt).model_copy(update={"draft": draft})
                answer, seconds = _timed(bench, request)
                tallies[kind].add(prompt, _known(bench, plain, answer, prompt), answer)
                ratios[kind].append(seconds / alone)
    for kind, name in NAMES.items():
        tally, samples = tallies[kind], Samples(tuple(ratios[kind]))
        section.rows.append(
            (
                name,
                f"{tally.drafted} of {tally.tokens} tokens",
                f"{tally.accepted / tally.drafted:.0%}" if tally.drafted else "none",
                *spread(samples, digits=2),
                f"{tally.ties} at ties, {len(tally.wrong)} elsewhere",
            )
        )
    wrong = sum(len(tally.wrong) for tally in tallies.values())
    section.checks += [
        Check("answers that a draft changed", wrong, 0, at_least=False, digits=0),
        Check("time with the answer itself", _median(ratios["same"]), 0.9, at_least=False),
        Check("time with another text", _median(ratios["unrelated"]), 1.1, at_least=False),
    ]
    return section


def _request(bench: Bench, prompt: str, **sampling: object) -> wire.Generate:
    return bench.generate(chat(prompt), max_tokens=ANSWER_TOKENS, **sampling)


def _known(bench: Bench, plain: Answer, other: Answer, prompt: str) -> Answer:
    """The plain answer; where the other differs, with how sure the model was of it."""
    if plain.tokens == other.tokens:
        return plain
    return _timed(bench, _request(bench, prompt, logprobs=2))[0]


def _timed(bench: Bench, request: wire.Generate) -> tuple[Answer, float]:
    bench.forget()
    began = time.perf_counter()
    bench.run(request)
    return bench.of(request), time.perf_counter() - began


def _median(ratios: list[float]) -> float:
    return Samples(tuple(ratios)).median
