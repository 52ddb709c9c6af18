"""Joins the messages of one exposure by stamp and accounts for every set that does not join.

    synchroniser = SetSynchroniser(openers, others, accounts, on_set, on_drop, ...)
    synchroniser.add("dp/left/image_raw", msg, received_ns)    # from the subscriptions
    synchroniser.expire()                                      # from a timer

The joining itself is message_filters' (or `ros/compat.py`'s equivalent). Around it stands the
ledger that message_filters lacks. A *set* is opened by the first dual-pixel view with its stamp;
it ends complete, or dropped with the cause of the first part it lacks, when

* a newer set is complete (topics keep their order, so its parts cannot come any more),
* more than ``queue_size`` sets are incomplete, or
* it is incomplete for ``timeout_s``.

A stamp that was there already is a ``repeated_stamp`` drop, an older one ``stamp_backwards``;
three such sets with rising stamps are taken for a source that was restarted, and followed.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from depth_fusion_ros.ros import compat
from depth_fusion_ros.ros.accounting import Accounts
from depth_fusion_ros.ros.messages import stamp_to_ns

RESTART_AFTER_SETS = 3
_REMEMBERED_SETS = 64


@dataclass(frozen=True)
class InputSet:
    """The messages of one exposure.

    Attributes:
        messages: topic -> message, of all required topics.
        stamp_ns: stamp of the first opener's message.
        first_received_ns, last_received_ns: when the middleware received the first and the last
            message of the set, system time.
    """

    messages: dict[str, Any]
    stamp_ns: int
    first_received_ns: int
    last_received_ns: int


@dataclass
class _Entry:
    stamp_ns: int
    opened_s: float
    pending: bool
    seen: Counter[str] = field(default_factory=Counter)
    repeats: int = 0


class SetSynchroniser:
    """Ledger around a time synchroniser. All calls from one thread (the executor's)."""

    def __init__(
        self,
        openers: Sequence[str],
        others: Sequence[str],
        accounts: Accounts,
        on_set: Callable[[InputSet], None],
        on_drop: Callable[[str, str], None],
        *,
        queue_size: int,
        tolerance_s: float,
        timeout_s: float,
        back_pressure: bool = False,
    ) -> None:
        """Join ``openers`` (the views) with ``others``.

        Args:
            openers: topics whose messages open a set.
            others: further topics a set needs; changed later with `require`.
            accounts: gets every set received; drops are the business of ``on_drop``.
            on_set: called with each complete set.
            on_drop: called with cause and sentence for each set that ends here.
            queue_size: incomplete sets kept.
            tolerance_s: 0 = equal stamps.
            timeout_s: wall time after which an incomplete set ends.
            back_pressure: ``on_set`` may block (replay). Parts of older sets then still wait in the
                middleware, so sets end by time only after ``timeout_s`` without any message.
        """
        self._openers = tuple(openers)
        self._others: tuple[str, ...] = ()
        self._accounts = accounts
        self._on_set, self._on_drop = on_set, on_drop
        self._queue_size = queue_size
        self._tolerance_s, self._tolerance_ns = tolerance_s, round(tolerance_s * 1e9)
        self._timeout_s = timeout_s
        self._back_pressure = back_pressure
        self._last_add_s = time.monotonic()
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._waiting: dict[str, OrderedDict[int, tuple[Any, int, float]]] = {}
        self._newest_ns: int | None = None
        self._backwards: list[int] = []
        self.unsynced: Counter[str] = Counter()
        """Messages that ended without a set, by topic."""
        self.messages: Counter[str] = Counter()
        """Messages received, by topic."""
        self.max_skew_ms = 0.0
        """Largest difference of stamps within a set so far."""
        self.require(others)

    @property
    def required(self) -> tuple[str, ...]:
        """Topics a set consists of."""
        return self._openers + self._others

    def require(self, others: Sequence[str]) -> None:
        """Change which further topics a set needs; messages that wait are kept."""
        if tuple(others) == self._others and self._waiting:
            return
        self._others = tuple(others)
        self._join_anew()

    def _join_anew(self) -> None:
        """Make the time synchroniser afresh; it gets what waits."""
        kept = self._waiting
        self._waiting = {topic: kept.get(topic, OrderedDict()) for topic in self.required}
        self._filters = {topic: compat.SimpleFilter() for topic in self.required}
        sources = list(self._filters.values())
        if self._tolerance_s > 0.0:
            joint: Any = compat.ApproximateTimeSynchronizer(
                sources, self._queue_size, self._tolerance_s
            )
        else:
            joint = compat.TimeSynchronizer(sources, self._queue_size)
        joint.registerCallback(self._joined)
        for topic, waiting in self._waiting.items():
            for message, _, _ in list(waiting.values()):
                self._filters[topic].signalMessage(message)

    def add(self, topic: str, message: Any, received_ns: int) -> None:
        """Take one message; may call on_set and on_drop. Topics not required are ignored.

        Args:
            topic: where it came from.
            message: any message with a header; kept by reference until its set ends.
            received_ns: when the middleware received it, system time.
        """
        if topic not in self._filters:
            return
        self.messages[topic] += 1
        stamp_ns = stamp_to_ns(message.header.stamp)
        if topic in self._openers:
            if not self._open(topic, stamp_ns):
                return
        elif stamp_ns < 0:
            self.unsynced[topic] += 1
            return
        now_s = time.monotonic()
        waiting = self._waiting[topic]
        waiting[stamp_ns] = (message, received_ns, now_s)
        self._filters[topic].signalMessage(message)
        while len(waiting) > _REMEMBERED_SETS:
            waiting.popitem(last=False)
            self.unsynced[topic] += 1
        # By stamp, not by arrival: after a standstill one view's queue may bring the newest set
        # before the other view's brings older ones.
        pending = sorted((entry for entry in self._entries.values() if entry.pending),
                         key=lambda entry: entry.stamp_ns)
        for entry in pending[: -self._queue_size]:
            self._end_incomplete(entry, f"{self._queue_size} newer sets are waiting")
        self._last_add_s = time.monotonic()

    def expire(self) -> None:
        """End sets and forget messages that have waited for longer than the timeout."""
        limit_s = time.monotonic() - self._timeout_s
        if self._back_pressure and self._last_add_s > limit_s:
            return
        for entry in [e for e in self._entries.values() if e.pending and e.opened_s < limit_s]:
            self._end_incomplete(entry, f"waited for {self._timeout_s:g} s")
        limit_s -= self._timeout_s  # later than the sets, so that these know what they had
        for topic, waiting in self._waiting.items():
            for stamp_ns in [s for s, (_, _, at_s) in waiting.items() if at_s < limit_s]:
                del waiting[stamp_ns]
                self.unsynced[topic] += 1

    def finish(self) -> None:
        """End all incomplete sets by what they lack: the source has ended."""
        for entry in [entry for entry in self._entries.values() if entry.pending]:
            self._end_incomplete(entry, "the recording has ended")

    def end_all(self, cause: str, sentence: str) -> None:
        """End all incomplete sets with one cause and forget everything, stamps included."""
        for entry in self._entries.values():
            if entry.pending:
                self._on_drop(cause, sentence)
        self._entries.clear()
        self._waiting = {}
        self._newest_ns = None
        self._backwards.clear()
        self._join_anew()

    # -- the ledger -----------------------------------------------------------------------------

    def _open(self, topic: str, stamp_ns: int) -> bool:
        """Enter a view; True if it is the first of its set and topic and the set is pending."""
        entry = self._entry_near(topic, stamp_ns)
        if entry is None:
            entry = _Entry(stamp_ns, time.monotonic(), pending=True)
            self._entries[stamp_ns] = entry
            self._forget_old_entries()
            self._accounts.receive()
            if stamp_ns < 0:  # rclpy's Time refuses it
                entry.pending = False
                self._on_drop("bad_stamp", f"{topic}: stamp = {_text(stamp_ns)}: must not be "
                              "negative; check the driver's clock")
            elif self._newest_ns is not None and stamp_ns <= self._newest_ns:
                self._refuse_backwards(entry)
            else:
                self._backwards.clear()
        entry.seen[topic] += 1
        if entry.seen[topic] - 1 > entry.repeats:
            entry.repeats += 1
            self._accounts.receive()
            self._on_drop("repeated_stamp",
                          f"{topic}: stamp = {_text(stamp_ns)}: was there already, each exposure "
                          "needs a stamp of its own; check the driver or whether two play one bag")
        return entry.pending and entry.seen[topic] == 1

    def _entry_near(self, topic: str, stamp_ns: int) -> _Entry | None:
        exact = self._entries.get(stamp_ns)
        if exact is not None or self._tolerance_ns == 0:
            return exact
        near = [entry for entry in self._entries.values() if entry.pending
                and not entry.seen[topic] and abs(entry.stamp_ns - stamp_ns) < self._tolerance_ns]
        return min(near, key=lambda entry: abs(entry.stamp_ns - stamp_ns), default=None)

    def _refuse_backwards(self, entry: _Entry) -> None:
        newest_ns, stamps = self._newest_ns, self._backwards
        assert newest_ns is not None
        if stamps and entry.stamp_ns <= stamps[-1]:
            stamps.clear()
        stamps.append(entry.stamp_ns)
        if len(stamps) >= RESTART_AFTER_SETS:
            stamps.clear()
            self._newest_ns = None
            self._end_newer_than(entry.stamp_ns)
            return
        entry.pending = False
        self._on_drop("stamp_backwards",
                      f"{self._openers[0]}: stamp = {_text(entry.stamp_ns)}: is older than "
                      f"{_text(newest_ns)} of the newest set, stamps must rise; check the "
                      f"driver's clock ({RESTART_AFTER_SETS} rising sets are taken for a restart)")

    def _end_newer_than(self, stamp_ns: int) -> None:
        """After a restart: the remains of before would push out everything, being newer."""
        for entry in [e for e in self._entries.values() if e.pending and e.stamp_ns > stamp_ns]:
            self._end_incomplete(entry, "the source was restarted")
        for topic, waiting in self._waiting.items():
            for newer_ns in [s for s in waiting if s > stamp_ns + self._tolerance_ns]:
                del waiting[newer_ns]
                self.unsynced[topic] += 1
        self._join_anew()

    def _joined(self, *messages: Any) -> None:
        """Callback of the time synchroniser."""
        stamps = [stamp_to_ns(message.header.stamp) for message in messages]
        taken = [self._waiting[topic].pop(stamp_ns, None)
                 for topic, stamp_ns in zip(self.required, stamps)]
        owners = {entry.stamp_ns: entry for topic, stamp_ns in zip(self._openers, stamps)
                  for entry in self._entries.values() if entry.pending and entry.seen[topic]
                  and abs(entry.stamp_ns - stamp_ns) <= self._tolerance_ns}
        if not owners or any(item is None for item in taken):
            return  # a part of it was dropped and counted before
        entry = owners.pop(min(owners, key=lambda stamp_ns: abs(stamp_ns - stamps[0])))
        entry.pending = False
        for other in owners.values():
            if other.stamp_ns in stamps:
                self._end_incomplete(other, "its view was nearer to another set")
        self.max_skew_ms = max(self.max_skew_ms, (max(stamps) - min(stamps)) * 1e-6)
        received = [item[1] for item in taken if item is not None]
        self._end_older_than(min(stamps))
        self._newest_ns = max(self._newest_ns or 0, entry.stamp_ns)
        self._on_set(InputSet(dict(zip(self.required, messages)), stamps[0],
                              min(received), max(received)))

    def _end_older_than(self, stamp_ns: int) -> None:
        for entry in [e for e in self._entries.values() if e.pending and e.stamp_ns < stamp_ns]:
            self._end_incomplete(entry, "a newer set is complete")
        for topic, waiting in self._waiting.items():
            for old_ns in [old for old in waiting if old < stamp_ns]:
                del waiting[old_ns]
                self.unsynced[topic] += 1

    def _end_incomplete(self, entry: _Entry, why: str) -> None:
        entry.pending = False
        missing = [topic for topic in self.required if not self._has(topic, entry)]
        for topic in self._openers:
            if self._waiting[topic].pop(entry.stamp_ns, None) is not None:
                self.unsynced[topic] += 1
        if not missing:
            self._on_drop("unmatched",
                          f"set {_text(entry.stamp_ns)}: its parts did not match within "
                          f"{self._tolerance_s:g} s ({why}); raise input.sync_tolerance_s")
            return
        self._on_drop(_cause(missing[0]),
                      f"{missing[0]}: no message with stamp {_text(entry.stamp_ns)} ({why}): each "
                      "set needs one; check that it is published with the image's stamp, or "
                      + ("set input.use_rgb to false" if missing[0].startswith("rgb/")
                         else "raise input.sync_tolerance_s"))

    def _has(self, topic: str, entry: _Entry) -> bool:
        if topic in self._openers:
            return entry.seen[topic] > 0
        return any(abs(stamp_ns - entry.stamp_ns) <= self._tolerance_ns
                   for stamp_ns in self._waiting[topic])

    def _forget_old_entries(self) -> None:
        while len(self._entries) > _REMEMBERED_SETS:
            oldest = next(iter(self._entries.values()))
            if oldest.pending:
                self._end_incomplete(oldest, f"{_REMEMBERED_SETS} newer sets came")
            self._entries.popitem(last=False)


def _cause(topic: str) -> str:
    parts = {"dp/left/image_raw": "left", "dp/right/image_raw": "right", "rgb/image_rect": "rgb"}
    return "missing_" + parts.get(topic, topic.rsplit("/", 1)[-1])


def _text(stamp_ns: int) -> str:
    return f"{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d}"
