"""Counts and times of a depth node: every input set ends as estimated or dropped with a cause.

    estimated + sum(drops) + pending = received          always, after any reset too

`Accounts` is shared by the executor thread and the worker thread and locks for itself.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

UNSYNCED_PREFIX = "missing_"
"""Causes ``missing_<part>`` and ``unmatched`` are sets whose parts did not come together."""


@dataclass(frozen=True)
class Totals:
    """A consistent reading of `Accounts`; pending sets wait for their parts or for the worker."""

    received: int
    estimated: int
    drops: dict[str, int]

    @property
    def pending(self) -> int:
        """Sets that are neither estimated nor dropped yet."""
        return self.received - self.estimated - sum(self.drops.values())

    @property
    def busy(self) -> int:
        """Sets replaced by a newer one while the worker was busy, or left out under overload."""
        return self.drops.get("busy", 0) + self.drops.get("overload", 0)

    @property
    def stale(self) -> int:
        """Sets older than input.max_age_s when their turn came."""
        return self.drops.get("stale", 0)

    @property
    def unsynced(self) -> int:
        """Sets whose parts did not come together."""
        return self.drops.get("unmatched", 0) + sum(
            count for cause, count in self.drops.items() if cause.startswith(UNSYNCED_PREFIX)
        )

    @property
    def invalid(self) -> int:
        """All other drops."""
        return sum(self.drops.values()) - self.busy - self.stale - self.unsynced


class Accounts:
    """Counters of input sets."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._received = 0
        self._estimated = 0
        self._drops: Counter[str] = Counter()

    def receive(self) -> None:
        """A set was opened by the first of its views."""
        with self._lock:
            self._received += 1

    def estimate(self) -> int:
        """A set became depth; return its number, from 0."""
        with self._lock:
            self._estimated += 1
            return self._estimated - 1

    def drop(self, cause: str) -> None:
        """A set ended without depth."""
        with self._lock:
            self._drops[cause] += 1

    def reset(self) -> None:
        """Start again from zero; sets that are pending now count as received."""
        with self._lock:
            self._received -= self._estimated + sum(self._drops.values())
            self._estimated = 0
            self._drops.clear()

    def totals(self) -> Totals:
        """Return all counters at one moment."""
        with self._lock:
            return Totals(self._received, self._estimated, dict(self._drops))


@dataclass
class Window:
    """The last samples of a time in milliseconds."""

    samples: deque[float] = field(default_factory=lambda: deque(maxlen=512))

    def add(self, value: float) -> None:
        """Append one sample; the oldest of 512 goes."""
        self.samples.append(value)

    def percentiles(self) -> tuple[float, float, float] | None:
        """Return p50, p95 and p99, or None without samples."""
        samples = list(self.samples)
        if not samples:
            return None
        p50, p95, p99 = np.percentile(samples, (50, 95, 99))
        return float(p50), float(p95), float(p99)


class ThrottledLog:
    """Logs a line at once, then at most one per ``period_s`` and key, saying how many it left out.

    Wall time, so that it also holds while bag time stands still.
    """

    def __init__(self, write: Callable[[str], None], period_s: float = 5.0) -> None:
        self._write = write
        self._period_s = period_s
        self._last: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()
        self._lock = Lock()

    def line(self, key: str, text: str) -> None:
        """Write ``text`` unless a line of the same key was written within the period."""
        now = time.monotonic()
        with self._lock:
            if now - self._last.get(key, -self._period_s) < self._period_s:
                self._left_out[key] += 1
                return
            self._last[key] = now
            left_out = self._left_out.pop(key, 0)
        self._write(f"{text} (and {left_out} more since the last line)" if left_out else text)
