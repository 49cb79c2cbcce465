"""What other managers do, reduced to their rule of who goes: opponents for `day`.

Everything else is as good as it can be for them: no polling, no lost releases, no crash, lines
without a bound. Both believe what is predicted and see no other program after the first load.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from gemd.hardware import RAM
from tests.support.simulation import GROWING
from tests.support.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.bench.desktop_day import Asked
    from tests.support.machine import Machine
    from tests.support.simulation import Model

FREE_SHARE = 0.8
"""Of what Ollama believes to be free, what a second model may take."""


@dataclass(eq=False)
class _Warm:
    """A model that has a process."""

    model: str
    pid: int
    ready: bool = False
    going: bool = False
    active: int = 0
    last_used: float = 0.0
    line: list[Asked] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """Whether nobody uses it or waits for it."""
        return self.ready and not self.active and not self.line and not self.going


class Peer(Timeline, ABC):
    """A manager of models.

    Args:
        machine: What there is.
        models: By id.
        keep_warm_s: Idle seconds after which a model is unloaded.
        answered: Told the request, and how long it waited.
        refused: Told the request.
        after: Called after every event.

    """

    def __init__(
        self,
        machine: Machine,
        models: Mapping[str, Model],
        *,
        keep_warm_s: float,
        answered: Callable[[Asked, float], None],
        refused: Callable[[Asked], None],
        after: Callable[[], None],
    ) -> None:
        super().__init__()
        self.machine = machine
        self.models = models
        self.loads: list[str] = []
        self.warm: dict[str, _Warm] = {}
        self.line: list[Asked] = []
        self._keep_warm_s = keep_warm_s
        self._answered = answered
        self._refused = refused
        self._after = after
        self._pids = itertools.count(1)

    def ring(self, event: Callable[[], None]) -> None:
        """Let one event happen, and do what it allows."""
        event()
        self._pump()
        self._after()

    def ask(self, asked: Asked) -> None:
        """A request arrives."""
        warm = self.warm.get(asked.model)
        if warm is not None and not warm.going:
            warm.line.append(asked)
            self._serve(warm)
        else:
            self.line.append(asked)

    @abstractmethod
    def _pump(self) -> None:
        """Whom the line allows to load, and who goes for it."""

    @abstractmethod
    def _failed(self, warm: _Warm) -> None:
        """A load found less memory than it needs."""

    def _serve(self, warm: _Warm) -> None:
        while warm.ready and warm.line and warm.active < self.models[warm.model].sequences:
            asked = warm.line.pop(0)
            warm.active += 1
            self._answered(asked, self.clock - asked.time)
            self.at(self.clock + asked.runs_s, lambda: self._done(warm))

    def _done(self, warm: _Warm) -> None:
        warm.active -= 1
        warm.last_used = self.clock
        self._serve(warm)
        self._look_idle(warm)

    def _look_idle(self, warm: _Warm) -> None:
        def idle() -> None:
            if warm.idle and self.clock - warm.last_used >= self._keep_warm_s:
                self._stop(warm)

        self.at(warm.last_used + self._keep_warm_s, idle)

    def _load(self, model: str) -> None:
        pid = next(self._pids)
        self.machine.held[pid] = {}
        warm = self.warm[model] = _Warm(model, pid, last_used=self.clock)
        self.loads.append(model)
        self._take_line(warm)
        self._grow(warm, 1)

    def _take_line(self, warm: _Warm) -> None:
        """Those who wait for this model wait at it from now on."""
        warm.line += [asked for asked in self.line if asked.model == warm.model]
        self.line = [asked for asked in self.line if asked.model != warm.model]

    def _grow(self, warm: _Warm, part: int) -> None:
        known = self.models[warm.model]

        def grown() -> None:
            self.machine.held[warm.pid] |= {
                device: size * part // GROWING for device, size in known.takes.items()
            }
            if self.machine.is_full_for(warm.pid):
                del self.machine.held[warm.pid], self.warm[warm.model]
                self._failed(warm)
            elif part < GROWING:
                self._grow(warm, part + 1)
            else:
                warm.ready, warm.last_used = True, self.clock
                self._serve(warm)
                self._look_idle(warm)

        self.at(self.clock + known.load_s / GROWING, grown)

    def _stop(self, warm: _Warm) -> None:
        warm.going = True

        def ended() -> None:
            del self.machine.held[warm.pid], self.warm[warm.model]

        self.at(self.clock + self.models[warm.model].stop_s, ended)

    def _refuse(self, line: list[Asked]) -> None:
        for asked in line:
            self._refused(asked)

    def _predicted(self, device: str) -> int:
        return sum(self.models[model].predicted.get(device, 0) for model in self.warm)


class LeastRecentlyUsed(Peer):
    """Ollama's: so many models, and four fifths of what is believed to be free; the oldest goes.

    One load at a time, in the order of arrival. A load that fails is tried once more with
    everything else gone.
    """

    def __init__(self, *arguments: object, most: int = 3, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type] # as they are
        self._most = most
        self._snapshot: dict[str, int] = {}
        self._alone = ""

    def _pump(self) -> None:
        if not self.line or any(not each.ready or each.going for each in self.warm.values()):
            return
        model = self.line[0].model
        if model in self.warm:
            self._take_line(self.warm[model])
            self._serve(self.warm[model])
            self._pump()
            return
        if not self.warm:
            # Measured while it holds nothing, and believed from then on.
            self._snapshot = {
                device: memory.capacity - memory.others
                for device, memory in self.machine.devices.items()
            }
        elif len(self.warm) >= self._most or self._alone or not self._fits(model):
            idle = [each for each in self.warm.values() if each.idle]
            if idle:
                self._stop(min(idle, key=lambda each: each.last_used))
            return
        self._load(model)

    def _fits(self, model: str) -> bool:
        return all(
            size <= FREE_SHARE * (self._snapshot[device] - self._predicted(device))
            for device, size in self.models[model].predicted.items()
        )

    def _failed(self, warm: _Warm) -> None:
        if self._alone == warm.model or not self.warm:
            self._alone = ""
            self._refuse(warm.line)
        else:
            self._alone = warm.model
            self.line = [*warm.line, *self.line]

    def _load(self, model: str) -> None:
        super()._load(model)
        if self._alone != model:
            self._alone = ""


class CheapestFirst(Peer):
    """llama-swap's: what may be warm together was written down, and the cheapest set goes.

    What was written down is what is predicted of each model, and the devices less what a desktop
    takes. Loads run beside each other; who needs a busy one waits for it; there is no second try.
    """

    reserve: ClassVar[Mapping[str, int]] = {"gpu0": 3 * 2**29, RAM: 16 * 2**30}
    """Bytes that its user leaves to other programs."""

    def _pump(self) -> None:
        for model in dict.fromkeys(asked.model for asked in self.line):
            if model in self.warm:
                if not self.warm[model].going:
                    self._take_line(self.warm[model])
                    self._serve(self.warm[model])
                continue
            missing = self._missing(model)
            if not missing:
                self._load(model)
            elif not any(each.going for each in self.warm.values()):
                for each in self._cheapest(missing):
                    if each.idle:
                        self._stop(each)

    def _missing(self, model: str) -> dict[str, int]:
        missing = {}
        for device, size in self.models[model].predicted.items():
            left = self.machine.devices[device].capacity - self.reserve[device]
            # A model larger than that is allowed alone.
            left = max(left, size) - self._predicted(device)
            if size > left:
                missing[device] = size - left
        return missing

    def _cheapest(self, missing: Mapping[str, int]) -> tuple[_Warm, ...]:
        warm = list(self.warm.values())
        sets = itertools.chain.from_iterable(
            itertools.combinations(warm, size) for size in range(1, len(warm) + 1)
        )
        enough = (
            chosen
            for chosen in sets
            if all(
                sum(self.models[each.model].predicted.get(device, 0) for each in chosen) >= size
                for device, size in missing.items()
            )
        )
        return min(enough, key=self._cost, default=())

    def _cost(self, chosen: tuple[_Warm, ...]) -> int:
        return sum(sum(self.models[each.model].predicted.values()) for each in chosen)

    def _failed(self, warm: _Warm) -> None:
        self._refuse(warm.line)
