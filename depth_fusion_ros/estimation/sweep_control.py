"""Takes a focus sweep: which focus to ask for next, and which image is the slice of a position.

    control = SweepControl(SweepPlan((0.5, 1.0, 1.5)), on_end=...)
    control.start(now_s)
    control.take_command()              # -> dioptres to send, None while there is nothing to send
    control.accepted(now_s)             # or control.refused(...): what became of it
    control.frame(report, now_s)        # -> SliceTag if this image is a slice; all images in order
    control.tick(now_s)                 # from a timer: notices that the images have stopped

How well the lens is known decides when it has settled:

* measured by an encoder: at the first image during which it stood still at the position. A lens
  that stops short (hysteresis) is commanded again, by as much further as it is off.
* reported as commanded (libcamera steps the command itself): a number of images after the report
  has reached the position.
* not reported at all: that number of images after the command was accepted, and some for the way.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from depth_fusion_ros.estimation.sweep_plan import LensReport, SliceTag, SweepPlan

__all__ = ["LensReport", "SliceTag", "SweepControl", "SweepPlan"]

_PATIENCE = 4
"""A lens that does not come to its position is taken as it is after so many settling times."""
_STILL_SHARE = 0.25
"""A change of the measured focus below this share of the tolerance is none."""


@dataclass
class _Run:
    """The sweep that is being taken, and its current position."""

    sweep_id: int
    order: tuple[float, ...]
    index: int = 0
    command: float = 0.0
    sent: bool = False
    frames: int | None = None  # images since the command was accepted; None = it is not yet
    accepted_s: float = 0.0
    travel_frames: int = 0
    corrections: int = 0
    moved: bool = False
    skipped: int = 0  # images without the report they should have, since the last slice
    reached: int = 0  # images since the reported command reached the position
    last_focus: float = math.nan

    @property
    def target(self) -> float:
        return self.order[self.index]


class SweepControl:
    """See the module's text. All calls from one thread; any clock that runs while images come.

    Attributes:
        plan: may be replaced; holds from the next sweep on.
        started, finished: sweeps. aborted: sweeps by cause: stalled, never_settled,
            focus_unknown, command_failed, or what `abort` was told.
        off_target: slices taken although the focus was reported outside the tolerance: the lens
            does not get there. Their lens states tell the focus they have.
        corrected: commands sent in addition.
        accepted_diopters: the last command that was accepted, 1/m; NaN = none yet.
        ended_s: when the last sweep ended; −Inf = none has.
    """

    def __init__(self, plan: SweepPlan, on_end: Callable[[int, str], None] | None = None) -> None:
        """Wait for `start`.

        Args:
            plan: of the sweeps. on_end: called with the id of a sweep and why it was aborted, ''
                where it is finished.
        """
        self.plan = plan
        self.started = self.finished = self.off_target = self.corrected = 0
        self.aborted: Counter[str] = Counter()
        self.accepted_diopters = math.nan
        self.ended_s = -math.inf
        self._on_end = on_end or (lambda sweep_id, cause: None)
        self._run: _Run | None = None
        self._active_plan = plan
        self._heard_s = -math.inf
        self._up = True

    @property
    def running(self) -> bool:
        """Whether a sweep is being taken."""
        return self._run is not None

    @property
    def place(self) -> SliceTag | None:
        """The slice that is waited for; None while no sweep is taken."""
        run = self._run
        return SliceTag(run.sweep_id, run.index, len(run.order)) if run else None

    @property
    def target_diopters(self) -> float:
        """The position that is wanted, 1/m; NaN while no sweep is taken."""
        return self._run.target if self._run else math.nan

    def start(self, now_s: float) -> int:
        """Begin a sweep; returns its id.

        Raises:
            RuntimeError: one is being taken.
        """
        if self._run is not None:
            raise RuntimeError(f"sweep {self._run.sweep_id} is being taken: wait for its end")
        plan = self._active_plan = self.plan
        order = plan.positions_diopters if self._up else plan.positions_diopters[::-1]
        self._up = not (plan.alternate and self._up)
        self.started += 1
        self._heard_s = now_s
        self._run = _Run(self.started, order, command=order[0], corrections=plan.corrections)
        return self.started

    def abort(self, cause: str, now_s: float) -> None:
        """End the sweep, if there is one, and count it under `cause`."""
        self._end(cause, now_s)

    def tick(self, now_s: float) -> None:
        """Abort a sweep whose images have stopped."""
        if self._run is not None and now_s - self._heard_s > self._active_plan.timeout_s:
            self._end("stalled", now_s)

    def take_command(self) -> float | None:
        """The focus to ask the lens for, 1/m, once; None while there is none to be sent."""
        run = self._run
        if run is None or run.sent:
            return None
        run.sent = True
        return run.command

    def accepted(self, now_s: float) -> None:
        """The camera took the command."""
        run = self._run
        if run is None:
            return
        previous, self.accepted_diopters = self.accepted_diopters, run.command
        slew = self._active_plan.slew_diopters_per_frame
        way = abs(run.command - previous)
        if math.isnan(way):  # it may come from the other end of its range
            way = self._active_plan.positions_diopters[-1] if slew else 0.0
        run.travel_frames = math.ceil(way / slew) if slew else 0
        run.frames, run.reached, run.moved, run.accepted_s = 0, 0, False, now_s

    def refused(self, now_s: float) -> None:
        """The camera did not take the command, or did not answer.

        A sweep cannot go on without; a correction is done without.
        """
        run = self._run
        if run is None:
            return
        if run.corrections == self._active_plan.corrections:
            self._end("command_failed", now_s)
        else:
            run.corrections, run.frames, run.reached, run.moved = 0, 0, 0, True

    def frame(self, report: LensReport | None, now_s: float) -> SliceTag | None:
        """Enter the next image; None = nobody reports the focus. Returns its place, if it has one.

        Images that were exposed before the command was accepted but come later are among those
        that are left out; an encoder tells them apart by itself.
        """
        if report is not None and math.isnan(report.focus_diopters):
            self.skip(now_s)
            return None
        self._heard_s = now_s
        run = self._run
        if run is None:
            return None
        focus = math.nan if report is None else report.focus_diopters
        previous, run.last_focus = run.last_focus, focus
        if run.frames is None:
            return None
        run.frames += 1
        if report is None:
            settled = run.frames > self._wait_frames + run.travel_frames
        elif report.measured:
            settled = self._measured(run, report, previous, now_s)
        else:
            settled = self._commanded(run, focus)
        if not settled:
            return None
        tag = SliceTag(run.sweep_id, run.index, len(run.order))
        run.index, run.skipped = run.index + 1, 0
        if run.index == len(run.order):
            self._end("", now_s)
        else:
            self._command(run, run.target)
            run.corrections = self._active_plan.corrections
        return tag

    def skip(self, now_s: float) -> None:
        """Enter an image that cannot be a slice: its focus should have been reported and was not.

        A sweep that meets nothing else is aborted.
        """
        self._heard_s = now_s
        run = self._run
        if run is None:
            return
        run.skipped += 1
        if run.frames is not None:
            run.frames += 1
        if run.skipped > 2 * self._patience_frames:
            self._end("focus_unknown", now_s)

    @property
    def _wait_frames(self) -> int:
        return self._active_plan.settle_frames + self._active_plan.latency_frames

    @property
    def _patience_frames(self) -> int:
        return _PATIENCE * (self._wait_frames + 1)

    def _commanded(self, run: _Run, focus: float) -> bool:
        assert run.frames is not None
        near = abs(focus - run.target) <= self._active_plan.tolerance_diopters
        run.reached = run.reached + 1 if near else 0
        if run.reached > self._wait_frames:
            return True
        if near or run.frames <= self._patience_frames + run.travel_frames:
            return False
        self.off_target += 1
        return True

    def _measured(self, run: _Run, report: LensReport, previous: float, now_s: float) -> bool:
        assert run.frames is not None
        plan = self._active_plan
        change = abs(report.focus_diopters - previous)
        still = report.moving is False or (
            report.moving is None and change <= _STILL_SHARE * plan.tolerance_diopters)
        run.moved |= not still or change > _STILL_SHARE * plan.tolerance_diopters
        error = run.target - report.focus_diopters
        if not still:
            if now_s - run.accepted_s > plan.timeout_s:
                self._end("never_settled", now_s)
            return False
        if abs(error) <= plan.tolerance_diopters:
            return True
        # Off its place: on its way there (a command takes time), stopped short of it, or stuck.
        if run.frames <= self._wait_frames:
            return False
        correction = max(0.0, run.command + error)
        if run.moved and run.corrections and correction != run.command:
            run.corrections -= 1
            self.corrected += 1
            self._command(run, correction)
            return False
        if run.moved or run.frames > self._patience_frames:
            self.off_target += 1
            return True
        return False

    @staticmethod
    def _command(run: _Run, diopters: float) -> None:
        run.command, run.sent, run.frames = diopters, False, None

    def _end(self, cause: str, now_s: float) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        self.ended_s = now_s
        if run.sent and run.frames is None:
            self.accepted_diopters = math.nan  # it may or may not have reached the lens
        if cause:
            self.aborted[cause] += 1
        else:
            self.finished += 1
        self._on_end(run.sweep_id, cause)
