"""The overload ladder: what a node gives up, step by step, while its depth comes too late.

    change = ladder.frame(latency_ms, values)      # of each published frame; a sentence, or ""
    values = ladder.eased(values)                  # parameters as they hold on this step

It goes down a step where the 95th percentile of the newest frames was above `budget.latency_ms`
for ten frames on end, and up again where the step above would keep the budget, judged by what the
step has saved. A step up that was wrong is tried half as often each time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import numpy as np

from depth_fusion_ros.ros.parameters import Parameter

LATE_FRAMES = 10
WINDOW_FRAMES = 20
"""The newest frames, whose 95th percentile counts: one late frame alone does not."""
CALM_FRAMES = 40
"""Frames on a step before the one above is tried; doubled after each try that failed."""
MOST_CALM_FRAMES = 1280
MARGIN = 0.8
"""Share of the budget that the latency of the step above may be expected to take."""


class Step(IntEnum):
    """Steps, the cheapest loss first; `degrade_level` of a FrameReport is the lowest in force."""

    NONE = 0
    CLOUDS = 1
    RESOLUTION = 2
    RATE = 3


WORDS = {
    Step.NONE: "full quality",
    Step.CLOUDS: "clouds at half their rate",
    Step.RESOLUTION: "inference at half resolution",
    Step.RATE: "every second set is left out",
}
FORBID = {Step.CLOUDS: "budget.degrade_clouds", Step.RESOLUTION: "budget.degrade_resolution",
          Step.RATE: "budget.degrade_rate"}

OVERLOAD_ROWS = (
    Parameter("budget.allow_degrade", True, "Give up something, step by step, while latency is "
              "above `budget.latency_ms` (`degrade_level` of the reports, WARN in diagnostics); "
              "false = only warn. Never under `replay.process_all`.", dynamic=True),
    Parameter(FORBID[Step.CLOUDS], True, "First step: obstacle and clearing clouds and scan at "
              "half of `cloud.max_rate_hz`; false = this step is left out.", dynamic=True),
    Parameter(FORBID[Step.RESOLUTION], True, "Second step: the network sees half the columns and "
              "rows; depth keeps its grid, edges and thin things suffer. false = this step is "
              "left out.", dynamic=True),
    Parameter(FORBID[Step.RATE], True, "Third step: every second set (or sweep) is left out and "
              "counted as dropped (`overload`); false = this step is left out.", dynamic=True),
)


class OverloadLadder:
    """Watches latencies and says which steps are in force. Written by the worker thread only."""

    def __init__(self) -> None:
        self.step = Step.NONE
        self._values: Mapping[str, Any] = {}
        self.reset()

    def reset(self) -> None:
        """Back to full quality, nothing remembered."""
        self.step = Step.NONE
        self._newest: deque[float] = deque(maxlen=WINDOW_FRAMES)
        self._late = self._frames = 0
        self._went_up = self._skip = False
        self._before_ms: dict[Step, float] = {}
        self._saved: dict[Step, float] = {}
        self._calm = dict.fromkeys(Step, CALM_FRAMES)

    @property
    def in_force(self) -> list[Step]:
        """Steps that cost something now."""
        return [step for step in self._allowed() if step <= self.step]

    def frame(self, latency_ms: float, values: Mapping[str, Any]) -> str:
        """Take the latency of a published frame.

        Args:
            latency_ms: last message received → depth published.
            values: parameters of the node.

        Returns:
            What changed and how to forbid it; "" where nothing did.
        """
        self._values = values
        budget_ms = values["budget.latency_ms"]
        allowed = self._allowed()
        if self.step and self.step not in allowed:
            return self._to(max((s for s in allowed if s < self.step), default=Step.NONE),
                            "the parameters say so")
        if not allowed:
            return ""
        self._newest.append(latency_ms)
        self._frames += 1
        p95_ms = float(np.percentile(self._newest, 95))
        self._late = self._late + 1 if p95_ms > budget_ms else 0
        if self._frames == WINDOW_FRAMES and self.step in self._before_ms:
            self._saved[self.step] = max(1.0, self._before_ms.pop(self.step) / p95_ms)
        found = f"latency p95 {p95_ms:.0f} ms, budget.latency_ms = {budget_ms:g}"
        if self._late >= LATE_FRAMES:
            below = [step for step in allowed if step > self.step]
            if not below:
                return ""
            if self._went_up and self._frames < CALM_FRAMES:
                self._calm[below[0]] = min(2 * self._calm[below[0]], MOST_CALM_FRAMES)
            self._before_ms = {below[0]: p95_ms}
            return self._to(below[0], found)
        above_ms = p95_ms * self._saved.get(self.step, 1.0)
        if self.step and self._frames >= self._calm[self.step] and above_ms < MARGIN * budget_ms:
            return self._to(max((s for s in allowed if s < self.step), default=Step.NONE), found)
        return ""

    def eased(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Parameters as they hold on this step."""
        if Step.CLOUDS not in self.in_force:
            return values
        rate_hz = values["cloud.max_rate_hz"]
        return {**values, "cloud.max_rate_hz": rate_hz / 2 if rate_hz else 5.0}

    @property
    def inference_divisor(self) -> int:
        """Divisor of columns and rows that the network sees."""
        return 2 if Step.RESOLUTION in self.in_force else 1

    def leaves_out(self) -> bool:
        """Whether the set that comes now is left out; call once for each set."""
        self._skip = Step.RATE in self.in_force and not self._skip
        return self._skip

    def _allowed(self) -> list[Step]:
        values = self._values
        if (not values or not values["budget.latency_ms"] or not values["budget.allow_degrade"]
                or values["replay.process_all"]):
            return []
        return [step for step, name in FORBID.items() if values[name]]

    def _to(self, step: Step, found: str) -> str:
        down = step > self.step
        self.step, self._went_up = step, not down
        self._newest.clear()
        self._late = self._frames = 0
        words = f"overload step {int(step)} of {int(max(Step))}, {WORDS[step]}: {found}"
        return words + (f"; forbid it with {FORBID[step]} = false" if down else "")
