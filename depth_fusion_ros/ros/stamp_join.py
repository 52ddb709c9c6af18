"""Gives each image the report that belongs to it, in the order of the images.

    join = StampJoin(latency_frames=0, timeout_s=0.2)
    join.report(stamp_ns, report)           # reports and images in any order
    join.image(stamp_ns, frame_id, now_s)
    for image in join.due(now_s, wait=True): ...

A report belongs to the image of its stamp, or, where the camera applies what it reports so much
later, to the image `latency_frames` after that one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

RESTART_NS = 500_000_000
"""Stamps that fall back by more are a restarted source (bag loop)."""
_REPORTS_KEPT = 256

Report = TypeVar("Report")


@dataclass(frozen=True)
class JoinedImage(Generic[Report]):
    """An image: its stamp in ns, its optical frame, its report.

    Attributes:
        report: None where there is none.
        awaited: whether one could have been expected; False before the first `latency_frames`.
    """

    stamp_ns: int
    frame_id: str
    report: Report | None
    awaited: bool = True


@dataclass(frozen=True)
class _Waiting:
    stamp_ns: int
    frame_id: str
    key_ns: int | None
    since_s: float


class StampJoin(Generic[Report]):
    """See the module's text. One thread.

    Attributes:
        images: entered. duplicates: images left out because their stamp was not newer.
        restarts: how often the stamps fell back by more than `RESTART_NS`.
    """

    def __init__(self, latency_frames: int = 0, timeout_s: float = 0.2) -> None:
        """Join with the image `latency_frames` after a report; wait at most `timeout_s` for one."""
        self.images = self.duplicates = self.restarts = 0
        self._timeout_s = timeout_s
        self._stamps: deque[int] = deque(maxlen=latency_frames + 1)
        self._reports: dict[int, Report] = {}
        self._newest_report_ns = -1
        self._waiting: deque[_Waiting] = deque()

    def image(self, stamp_ns: int, frame_id: str, now_s: float) -> None:
        """Enter an image."""
        if self._stamps and stamp_ns < self._stamps[-1] - RESTART_NS:
            self.restarts += 1
            self._stamps.clear()
            # Reports of the new run may have come before its first image.
            self._reports = {k: v for k, v in self._reports.items() if k < stamp_ns + RESTART_NS}
            self._newest_report_ns = max(self._reports, default=-1)
        elif self._stamps and stamp_ns <= self._stamps[-1]:
            self.duplicates += 1
            return
        self.images += 1
        self._stamps.append(stamp_ns)
        full = len(self._stamps) == self._stamps.maxlen
        self._waiting.append(_Waiting(stamp_ns, frame_id, self._stamps[0] if full else None, now_s))

    def report(self, stamp_ns: int, report: Report) -> None:
        """Enter a report."""
        if stamp_ns < self._newest_report_ns - RESTART_NS:
            self._newest_report_ns = stamp_ns
        self._newest_report_ns = max(self._newest_report_ns, stamp_ns)
        self._reports[stamp_ns] = report
        if len(self._reports) > _REPORTS_KEPT:
            self._reports.pop(next(iter(self._reports)))

    def due(self, now_s: float, *, wait: bool) -> list[JoinedImage[Report]]:
        """Return the images whose report is there, or does not come any more, in order.

        Args:
            now_s: the clock given with the images. wait: False = nobody sends reports.
        """
        done = []
        while self._waiting:
            head = self._waiting[0]
            report = None if head.key_ns is None else self._reports.get(head.key_ns)
            # Reports come in order: a newer one says that this one was lost.
            lost = head.key_ns is None or self._newest_report_ns > head.key_ns
            late = now_s - head.since_s > self._timeout_s
            if report is None and wait and not (lost or late):
                break
            self._waiting.popleft()
            done.append(JoinedImage(head.stamp_ns, head.frame_id, report, head.key_ns is not None))
            if head.key_ns is not None:
                self._reports.pop(head.key_ns, None)
        return done
