"""The diagnostics task `inputs`: does anything come, how often, and why is it dropped?"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from depth_fusion_ros.ros.diagnostics import ERROR, OK, WARN, Status

BENIGN_CAUSES = frozenset({"busy", "disabled", "inactive", "overload"})
"""Drops that are by design or asked for, or have a warning of their own."""
QUIET_PERIODS = 3
"""Periods of diagnostics without a set after which its absence is an error."""
_MESSAGES, _INCOMPATIBLE, _SLICES = "messages.", "incompatible_publishers.", "slices.dropped."
_LOST = "lost."


class InputTask:
    """Compares the counters of a node with those of the period before.

    Args:
        node: with `accounts` and `values`.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self.details: Callable[[], dict[str, Any]] = dict
        """Further KeyValues: ``messages.TOPIC``, ``incompatible_publishers.TOPIC``,
        ``slices.dropped.CAUSE``, ``lost.TOPIC`` are understood."""
        self.why_dropped: dict[str, str] = {}
        """Newest sentence by cause, of sets and of slices."""
        self.reset()

    def reset(self) -> None:
        """Forget counts and times."""
        self._last_received, self._last_s = 0, time.monotonic()
        self._last_set_s = self._last_s
        self._last_drops: Counter[str] = Counter()
        self._last_slices: Counter[str] = Counter()
        self._last_lost: Counter[str] = Counter()
        self._last_messages: dict[str, int] = {}

    def status(self, active: bool) -> Status:
        """What came since the last call."""
        totals, now_s = self._node.accounts.totals(), time.monotonic()
        elapsed_s = max(1e-3, now_s - self._last_s)
        rate_hz = max(0, totals.received - self._last_received) / elapsed_s
        if rate_hz:
            self._last_set_s = now_s
        new_drops = +(Counter(totals.drops) - self._last_drops)
        self._last_received, self._last_s = totals.received, now_s
        self._last_drops = Counter(totals.drops)

        details = self.details() if active else {}
        messages = _counts(details, _MESSAGES)
        rates_hz = {topic: max(0, n - self._last_messages.get(topic, 0)) / elapsed_s
                    for topic, n in messages.items()}
        self._last_messages = messages
        slices = Counter(_counts(details, _SLICES))
        new_slices, self._last_slices = +(slices - self._last_slices), slices
        lost = Counter(_counts(details, _LOST))
        new_lost, self._last_lost = +(lost - self._last_lost), lost
        values: dict[str, Any] = {
            "rate_hz": rate_hz, "received": totals.received, "estimated": totals.estimated,
            "pending": totals.pending,
            **{f"dropped.{cause}": n for cause, n in sorted(totals.drops.items())},
            **{f"rate_hz.{topic}": each_hz for topic, each_hz in rates_hz.items()}, **details}
        if not active:
            return Status(OK, "not active: no input is read", values)
        deaf = [f"{key.removeprefix(_INCOMPATIBLE)} of {names}"
                for key, names in details.items() if key.startswith(_INCOMPATIBLE)]
        if deaf:
            return Status(WARN, f"not heard: {', '.join(deaf)}; set input.reliability to auto or "
                          "best_effort", values)
        quiet_s = QUIET_PERIODS * self._node.values["diagnostics.period_s"]
        if now_s - self._last_set_s >= quiet_s:
            return Status(ERROR, f"no input sets; {self._absence(messages, rates_hz, new_slices)}",
                          values)
        if new_lost:  # before drops: a set that lacks a lost message is its consequence
            topic, count = new_lost.most_common(1)[0]
            others = f" (and of {len(new_lost) - 1} other topics)" if len(new_lost) > 1 else ""
            return Status(WARN, f"{count} messages of {topic}{others} lost before the node could "
                          "take them: lower the camera's rate, give the machine less to do, or "
                          "mend the link", values)
        bad = {cause: n for cause, n in new_drops.items() if cause not in BENIGN_CAUSES}
        if bad:
            return Status(WARN, f"{sum(bad.values())} sets dropped, {self._mostly(bad)}", values)
        return Status(OK, f"{rate_hz:.1f} sets/s", values)

    def _absence(self, messages: Mapping[str, int], rates_hz: Mapping[str, float],
                 new_slices: Mapping[str, int]) -> str:
        """Why no set comes."""
        if silent := [topic for topic, n in messages.items() if not n]:
            return f"nothing ever came on {', '.join(silent)}: check names and namespace"
        if new_slices:
            return f"{sum(new_slices.values())} slices dropped, {self._mostly(new_slices)}"
        stopped = [topic for topic, rate_hz in rates_hz.items() if not rate_hz]
        if not stopped:
            return "images come and make none: see the other values and the log"
        if len(stopped) == len(messages):
            return "the source has stopped"
        return f"{', '.join(stopped)} stopped: check that part of the driver"

    def _mostly(self, causes: Mapping[str, int]) -> str:
        worst = max(causes, key=lambda cause: causes[cause])
        return f"mostly {worst}: {self.why_dropped.get(worst, 'see the log')}"


def _counts(details: Mapping[str, Any], prefix: str) -> dict[str, int]:
    return {key.removeprefix(prefix): int(n) for key, n in details.items()
            if key.startswith(prefix)}
