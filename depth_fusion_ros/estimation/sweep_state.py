"""What the assembler of focus sweeps remembers between messages: waits, open group, position."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from depth_fusion_ros.estimation.sweep_slices import SweepOptions, SweepSlice


@dataclass
class Timer:
    """Runs from the first look at the clock, so that any clock will do, and survives its jumps.

    Attributes:
        since_ns: the clock at the first look, or at the last one that found it set back, ns;
            None = not looked yet.
    """

    since_ns: int | None = None

    def passed(self, now_ns: int, limit_s: float) -> bool:
        """Look at the clock, ns; True if more than the limit has passed since the first look."""
        if self.since_ns is None or now_ns < self.since_ns:
            self.since_ns = now_ns
        return now_ns - self.since_ns > limit_s * 1e9


@dataclass
class Group:
    """The slices that are being gathered: a sweep, or the window of the sliding mode.

    Attributes:
        sweep_id: as in the lens states; 0 = untagged or sliding.
        size: slices the sweep is announced to have; 0 = unknown.
        items: the slices, in the order in which they came; sliding: in the order of their stamps.
        heard: sweep indices that came, usable or not.
        there: sweep indices that are not missing.
        rising: untagged: direction of the focus; None until there are two positions.
        newest_ns: tagged: newest stamp that came, usable or not, ns.
        age: runs since the first tick that saw the group.
    """

    sweep_id: int = 0
    size: int = 0
    items: list[SweepSlice] = field(default_factory=list)
    heard: set[int] = field(default_factory=set)
    there: set[int] = field(default_factory=set)
    rising: bool | None = None
    newest_ns: int = 0
    age: Timer = field(default_factory=Timer)


@dataclass
class Position:
    """Where the focus of untagged frames stands.

    Attributes:
        focus_diopters: focus of the first frame of this stay, 1/m; NaN before any frame.
        since_ns: stamp from which the stay is counted, ns; set anew after each pause in it.
        last_ns: stamp of the last frame, ns; None before any frame.
        frames: how many came in this stay.
        taken: whether a slice of this stay has been taken.
    """

    focus_diopters: float = math.nan
    since_ns: int = 0
    last_ns: int | None = None
    frames: int = 0
    taken: bool = False

    def follow(self, item: SweepSlice, options: SweepOptions) -> bool:
        """Enter a frame; True if there was a pause before it, without frames or at one focus."""
        stamp_ns, gap_ns = item.stamp_ns, options.gap_s * 1e9
        paused = self.last_ns is not None and stamp_ns - self.last_ns > gap_ns
        change = abs(item.focus_diopters - self.focus_diopters)
        if paused or not change <= options.same_focus_diopters:  # NaN at the first frame
            self.focus_diopters, self.since_ns = item.focus_diopters, stamp_ns
            self.frames, self.taken = 0, False
        elif stamp_ns - self.since_ns > gap_ns:  # parked: settled as it is, but the sweep is over
            paused, self.since_ns, self.taken = True, stamp_ns, False
        self.last_ns = stamp_ns
        self.frames += 1
        return paused
