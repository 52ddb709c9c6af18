"""Assembles single images and lens states into focus sweeps, and accounts for every image.

    assembler = SweepAssembler(SweepOptions())
    sweeps = assembler.add_image(image)      # images and lens states in any order
    sweeps = assembler.add_lens(lens)
    sweeps = assembler.tick(now_ns)          # from a timer; any clock, always the same

An image joins the lens state of exactly its stamp. What joined is a *slice*. Slices with a sweep
id are *tagged*: whoever moves the lens says which sweep they belong to and has waited for the lens
to settle. Slices without (id 0) are gathered by their focus: the first frames after a change of
focus are discarded, the last one before the next change is the slice of that position, and the
sweep ends where the focus turns round or after a pause. Once tagged slices have been seen, id 0
means what LensState.msg says, "not part of a sweep".

Every image ends exactly once, under one key of `SweepAssembler.counters`, or is `pending`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from depth_fusion_ros.estimation.sweep_slices import (
    SliceImage,
    SliceLens,
    Sweep,
    SweepOptions,
    SweepSlice,
)
from depth_fusion_ros.estimation.sweep_state import Group, Position, Timer

__all__ = ["SliceImage", "SliceLens", "Sweep", "SweepAssembler", "SweepOptions", "SweepSlice"]

RESTART_NS = 500_000_000
"""Stamps that fall back by more are a restarted source (bag loop), by less a late message."""
_WAITING_IMAGES, _WAITING_LENS_STATES = 16, 64


class SweepAssembler:
    """See the module's docstring. All calls from one thread; never raises on what sources send.

    Attributes:
        options: may be replaced between calls, `mode` excepted.
        counters: images by how they ended: `used_complete`, `used_incomplete` (in a sweep
            returned so; sliding: the first one), or dropped as

            * no_lens_state: none with its stamp came in time;
            * stamp_backwards: the stamps fell back while it waited, or it came late (untagged);
            * duplicate: its stamp, sweep index or focus position was there already;
            * not_in_sweep: sweep id 0 from a source that tags its sweeps;
            * unknown_focus, lens_moving, settling: see `SliceLens` and `SweepOptions`;
            * superseded: a newer slice of its position took its place, or its sweep has ended;
            * too_many_slices: more positions than `max_slices`;
            * too_few_slices, size_changed: its sweep ended, or the image size changed, before
              `min_slices` were there.
        received: images added; always the sum of `counters` plus `pending`.
        restarts: how often stamps fell back by more than `RESTART_NS`.
    """

    def __init__(self, options: SweepOptions | None = None) -> None:
        self.options = options or SweepOptions()
        self.counters: dict[str, int] = Counter()
        self.received = 0
        self.restarts = 0
        self._waiting: dict[int, tuple[SliceImage, Timer]] = {}
        self._lenses: dict[int, SliceLens] = {}
        self._newest_lens_ns: int | None = None
        self._forget()

    def _forget(self) -> None:
        self._recent: dict[int, None] = {}  # stamps of images
        self._newest_image_ns: int | None = None
        self._tagged = False
        self._unused: set[int] = set()  # stamps of slices that are in no returned sweep yet
        self._group: Group | None = None
        self._closed: Group | None = None  # the last tagged sweep, to know its late slices
        self._position = Position()
        self._idle = Timer()

    @property
    def pending(self) -> int:
        """Images that wait for their lens state or in a sweep that is not yet returned."""
        return len(self._waiting) + len(self._unused)

    def add_image(self, image: SliceImage) -> list[Sweep]:
        """Enter an image; returns the sweeps that it ends."""
        self.received += 1
        stamp_ns, newest_ns = image.stamp_ns, self._newest_image_ns
        if newest_ns is not None and stamp_ns < newest_ns - RESTART_NS:
            self._restart()
            newest_ns = None
        elif stamp_ns in self._recent:
            self.counters["duplicate"] += 1
            return []
        newest_ns = stamp_ns if newest_ns is None else max(newest_ns, stamp_ns)
        self._newest_image_ns = newest_ns
        # Older stamps than these are a restart, so a stamp names one image until then.
        self._recent = {old: None for old in (*self._recent, stamp_ns)
                        if old >= newest_ns - RESTART_NS}
        lens = self._lenses.pop(stamp_ns, None)
        if lens is not None:
            return self._take(SweepSlice(image, lens))
        self._waiting[stamp_ns] = image, Timer()
        if len(self._waiting) > _WAITING_IMAGES:
            self._drop_waiting(next(iter(self._waiting)))
        return []

    def add_lens(self, lens: SliceLens) -> list[Sweep]:
        """Enter a lens state; returns the sweeps that its image ends."""
        newest_ns = self._newest_lens_ns
        if newest_ns is None or lens.stamp_ns < newest_ns - RESTART_NS:
            self._lenses.clear()
            newest_ns = lens.stamp_ns
        self._newest_lens_ns = max(newest_ns, lens.stamp_ns)
        waiting = self._waiting.pop(lens.stamp_ns, None)
        if waiting is not None:
            return self._take(SweepSlice(waiting[0], lens))
        self._lenses[lens.stamp_ns] = lens
        if len(self._lenses) > _WAITING_LENS_STATES:
            self._lenses.pop(next(iter(self._lenses)))
        return []

    def tick(self, now_ns: int) -> list[Sweep]:
        """End what has waited too long, counted from the first tick that saw it.

        Args:
            now_ns: any clock that runs while messages arrive, ns. A replay that holds back
                messages must stop it too, or not tick.
        """
        limit_s = self.options.timeout_s
        for stamp_ns in [s for s, (_, timer) in self._waiting.items()
                         if timer.passed(now_ns, limit_s)]:
            self._drop_waiting(stamp_ns)
        if self._group is None:
            return []
        if self.options.mode == "sliding":
            return self._close() if self._idle.passed(now_ns, limit_s) else []
        paused = not self._tagged and self._idle.passed(now_ns, self.options.gap_s)
        if paused or self._group.age.passed(now_ns, limit_s):
            return self._close(ended=paused)
        return []

    def flush(self) -> list[Sweep]:
        """End and forget everything but the counters; returns the open sweep, if large enough.

        Nothing is pending after it, and any source may follow.
        """
        for stamp_ns in list(self._waiting):
            self._drop_waiting(stamp_ns)
        done = self._close()
        self._lenses.clear()
        self._forget()
        return done

    # -- joining --------------------------------------------------------------------------------

    def _drop_waiting(self, stamp_ns: int) -> None:
        del self._waiting[stamp_ns]
        self.counters["no_lens_state"] += 1

    def _restart(self) -> None:
        self.restarts += 1
        if self.pending:
            self.counters["stamp_backwards"] += self.pending
        self._waiting.clear()
        self._forget()

    def _take(self, item: SweepSlice) -> list[Sweep]:
        """Enter a slice."""
        lens, group = item.lens, self._group
        self._unused.add(item.stamp_ns)
        self._idle = Timer()
        if lens.sweep_id:
            self._tagged = True
        elif self._tagged:
            return self._drop(item, "not_in_sweep")
        done: list[Sweep] = []
        if group and group.items and (
                group.items[0].image.image.shape != item.image.image.shape):
            done = self._close(cause="size_changed")
        cause = self._fault(lens)
        if self.options.mode == "sliding" and lens.sweep_id:
            return self._drop(item, cause) if cause else self._slide(item)
        return done + (self._gather_tagged(item, cause) if lens.sweep_id
                       else self._gather_untagged(item, cause))

    # -- gathering ------------------------------------------------------------------------------

    def _fault(self, lens: SliceLens) -> str:
        if not math.isfinite(lens.focus_diopters):
            return "unknown_focus"
        travel = abs(lens.focus_end_diopters - lens.focus_start_diopters)
        moved = lens.moving or travel > self.options.same_focus_diopters  # False for NaN
        return "lens_moving" if moved and self.options.require_stationary_lens else ""

    def _gather_tagged(self, item: SweepSlice, cause: str) -> list[Sweep]:
        lens, group = item.lens, self._group
        done: list[Sweep] = []
        if group and group.sweep_id != lens.sweep_id and item.stamp_ns > group.newest_ns:
            done, group = self._close(ended=not group.size), None
        closed = self._closed
        if group is None and closed and (
                item.stamp_ns <= closed.newest_ns
                or (lens.sweep_id == closed.sweep_id and lens.sweep_index > 0)):
            known = lens.sweep_id == closed.sweep_id and lens.sweep_index in closed.there
            return self._drop(item, "duplicate" if known else "superseded")
        if group and group.sweep_id != lens.sweep_id:
            return self._drop(item, "superseded")
        if group is None:
            group = self._group = Group(lens.sweep_id, newest_ns=item.stamp_ns)
        group.newest_ns = max(group.newest_ns, item.stamp_ns)
        group.size = max(group.size, lens.sweep_size)
        group.heard.add(lens.sweep_index)
        if not cause and lens.sweep_index in group.there:
            cause = "duplicate"
        if cause:
            self._drop(item, cause)
        else:
            group.there.add(lens.sweep_index)
            group.items.append(item)
            self._thin(group)
        # Nothing more can come once every index was heard, even where some were not usable.
        if group.size and len(group.heard) >= group.size:
            done += self._close(ended=True)
        return done

    def _gather_untagged(self, item: SweepSlice, cause: str) -> list[Sweep]:
        position, sliding = self._position, self.options.mode == "sliding"
        if position.last_ns is not None and item.stamp_ns < position.last_ns:
            return self._drop(item, "stamp_backwards")
        done: list[Sweep] = []
        if cause != "unknown_focus" and position.follow(item, self.options) and not sliding:
            done = self._close(ended=True)
        if not cause and position.frames <= self.options.settle_frames:
            cause = "settling"
        if not cause and sliding and position.taken:
            cause = "duplicate"  # the first settled frame was returned at once
        if cause:
            return done + self._drop(item, cause)
        again, position.taken = position.taken, True
        if sliding:
            return self._slide(item)
        group = self._group = self._group or Group()
        if group.items:
            step = item.focus_diopters - group.items[-1].focus_diopters
            if again or abs(step) <= self.options.same_focus_diopters:
                self._drop(group.items.pop(), "superseded")
            elif group.rising in (None, step > 0):
                group.rising = step > 0
            else:
                done += self._close(ended=True)
                group = self._group = Group()
        group.items.append(item)
        self._thin(group)
        return done

    def _slide(self, item: SweepSlice) -> list[Sweep]:
        """Enter a slice into the window; returns the window's sweep."""
        options, lens = self.options, item.lens
        group = self._group = self._group or Group()
        place = (lens.sweep_id, lens.sweep_index)
        if lens.sweep_id and any((o.lens.sweep_id, o.lens.sweep_index) == place
                                 for o in group.items):
            return self._drop(item, "duplicate")
        near = [other for other in group.items if abs(
            other.focus_diopters - item.focus_diopters) <= options.same_focus_diopters]
        if any(other.stamp_ns > item.stamp_ns for other in near):
            return self._drop(item, "superseded")
        size = min(lens.sweep_size, options.max_slices)
        oldest_ns = item.stamp_ns - options.timeout_s * 1e9
        aged = [other for other in group.items if other.stamp_ns < oldest_ns]
        left = sorted((other for other in (*group.items, item)
                       if other not in near and other not in aged), key=_stamp)
        room = max(size or options.max_slices, options.min_slices)
        group.items, out = left[-room:], left[:-room]
        self._end(aged, "too_few_slices")
        self._end((*near, *out), "superseded")
        if item in out or len(group.items) < options.min_slices:
            return []
        return [self._made(group.items, True, max(0, size - len(group.items)), lens.sweep_id)]

    def _thin(self, group: Group) -> None:
        """Keep `max_slices`: drop the slice between the neighbours that are nearest together."""
        if len(group.items) > self.options.max_slices:
            order = sorted(group.items, key=_focus)
            gaps = [b.focus_diopters - a.focus_diopters for a, b in zip(order, order[2:])]
            item = order[1 + gaps.index(min(gaps))]
            group.items.remove(item)
            self._drop(item, "too_many_slices")

    # -- ending ---------------------------------------------------------------------------------

    def _close(self, *, ended: bool = False, cause: str = "too_few_slices") -> list[Sweep]:
        """End the open group: a sweep if large enough, or its slices dropped with the cause."""
        group, self._group = self._group, None
        if group is None:
            return []
        items: list[SweepSlice] = []
        for item in sorted(group.items, key=_focus):
            if items and (item.focus_diopters - items[-1].focus_diopters
                          <= self.options.same_focus_diopters):
                older, item = sorted((items.pop(), item), key=_stamp)
                self._drop(older, "superseded")
            items.append(item)
        group.items = []
        if group.sweep_id:
            self._closed = group
        if self.options.mode == "sliding" or len(items) < self.options.min_slices:
            self._end(items, cause)
            return []
        return [self._made(items, ended, max(0, group.size - len(group.there)), group.sweep_id)]

    def _made(self, items: list[SweepSlice], ended: bool, missing: int, sweep_id: int) -> Sweep:
        complete = ended and not missing
        self._end(items, "used_complete" if complete else "used_incomplete")
        return Sweep(tuple(sorted(items, key=_focus)), complete, missing, sweep_id)

    def _drop(self, item: SweepSlice, cause: str) -> list[Sweep]:
        self._end((item,), cause)
        return []

    def _end(self, items: Iterable[SweepSlice], cause: str) -> None:
        """Count slices that have not been counted: in sliding mode an image serves many sweeps."""
        for item in items:
            if item.stamp_ns in self._unused:
                self._unused.remove(item.stamp_ns)
                self.counters[cause] += 1


def _stamp(item: SweepSlice) -> int:
    return item.stamp_ns


def _focus(item: SweepSlice) -> float:
    return item.focus_diopters
