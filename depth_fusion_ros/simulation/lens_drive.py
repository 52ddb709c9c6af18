"""How a focus actuator follows its commands: late, at a limited speed, and not all the way.

    drive = LensDrive(LensDriveOptions(latency_s=0.05), start_diopters=1.0)
    drive.command(2.0, now_s=0.0)
    position, moving = drive.advance(now_s=0.1)

Time is the caller's; any clock that does not run backwards will do.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class LensDriveOptions:
    """What is wrong with the actuator.

    Attributes:
        latency_s: from a command to the first movement.
        slew_diopters_per_s: speed, 1/m per second.
        hysteresis_diopters: the lens stops so far short of its target, on the side it comes from,
            and does not leave its place for a target that is no further away.
        far_diopters, near_diopters: end stops, 1/m.

    Raises:
        ValueError: a value outside its range; the text names it and the rule.
    """

    latency_s: float = 0.05
    slew_diopters_per_s: float = 30.0
    hysteresis_diopters: float = 0.0
    far_diopters: float = 0.0
    near_diopters: float = 4.0

    def __post_init__(self) -> None:
        rules = (
            ("latency_s", 0 <= self.latency_s < math.inf, "finite and >= 0"),
            ("slew_diopters_per_s", self.slew_diopters_per_s > 0, "> 0"),
            ("hysteresis_diopters", 0 <= self.hysteresis_diopters < math.inf, "finite and >= 0"),
            ("far_diopters", 0 <= self.far_diopters < math.inf, "finite and >= 0 (0 = infinity)"),
            ("near_diopters", self.far_diopters < self.near_diopters < math.inf,
             "finite and larger than far_diopters"))
        for name, holds, rule in rules:
            if not holds:
                raise ValueError(f"lens {name} = {getattr(self, name)!r}: must be {rule}; "
                                 f"set lens.{name}")


class LensDrive:
    """The actuator; see the module's text.

    Attributes:
        commanded_diopters: the last command, 1/m, whether or not it has had an effect.
    """

    def __init__(self, options: LensDriveOptions, start_diopters: float) -> None:
        """Stand still at `start_diopters`, or at the end stop nearest to it."""
        self.options = options
        self.commanded_diopters = float(start_diopters)
        self._position = min(max(start_diopters, options.far_diopters), options.near_diopters)
        self._goal = self._position
        self._now_s = -math.inf
        self._pending: deque[tuple[float, float]] = deque()

    def command(self, diopters: float, now_s: float) -> None:
        """Ask for a focus (1/m); it takes effect after the latency.

        Raises:
            ValueError: not finite, or negative.
        """
        if not (math.isfinite(diopters) and diopters >= 0):
            raise ValueError(f"commanded focus = {diopters!r}: must be finite and >= 0 "
                             "(0 = infinity); command dioptres")
        self.commanded_diopters = float(diopters)
        self._pending.append((now_s + self.options.latency_s, float(diopters)))

    def advance(self, now_s: float) -> tuple[float, bool]:
        """Return the focus at `now_s` (1/m) and whether the lens has moved since the last call.

        Raises:
            ValueError: the clock runs backwards.
        """
        if now_s < self._now_s:
            raise ValueError(f"time = {now_s!r} s: must not fall behind {self._now_s!r} s; "
                             "use a steady clock")
        moved = False
        while self._pending and self._pending[0][0] <= now_s:
            effective_s, target = self._pending.popleft()
            moved |= self._travel(max(effective_s, self._now_s))
            self._aim(target)
        moved |= self._travel(now_s)
        return self._position, moved

    def _aim(self, target: float) -> None:
        """Choose where the lens will stop, coming from where it is now."""
        options = self.options
        away = target - self._position
        if abs(away) <= options.hysteresis_diopters:
            self._goal = self._position
            return
        goal = target - math.copysign(options.hysteresis_diopters, away)
        self._goal = min(max(goal, options.far_diopters), options.near_diopters)

    def _travel(self, now_s: float) -> bool:
        passed_s, self._now_s = now_s - self._now_s, now_s
        away = self._goal - self._position
        if away == 0.0:
            return False
        reach = self.options.slew_diopters_per_s * passed_s
        self._position = (self._goal if reach >= abs(away)
                          else self._position + math.copysign(reach, away))
        return True
