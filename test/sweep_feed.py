"""Lens states and images as a source would send them, for tests of the assembler of sweeps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from depth_fusion_ros.estimation.sweep_assembly import (
    SliceImage,
    SliceLens,
    Sweep,
    SweepAssembler,
    SweepOptions,
)

FRAME_NS = 33_000_000
SMALL, LARGE = np.zeros((4, 6, 3), np.uint8), np.zeros((6, 8, 3), np.uint8)
PLAIN = SweepOptions(settle_frames=0)


def feed(assembler: SweepAssembler, lenses: Iterable[SliceLens],
         image: np.ndarray = SMALL) -> list[Sweep]:
    """Add each lens state with an image of its stamp."""
    sweeps = []
    for lens in lenses:
        sweeps += assembler.add_image(SliceImage(lens.stamp_ns, image, "optical"))
        sweeps += assembler.add_lens(lens)
        assert accounted(assembler)
    return sweeps


def accounted(assembler: SweepAssembler) -> bool:
    """Whether every image that was added has ended once or is pending."""
    return sum(assembler.counters.values()) + assembler.pending == assembler.received


def tagged(focus: Iterable[float], sweep_id: int = 1, start: int = 0, size: int | None = None
           ) -> list[SliceLens]:
    """One sweep whose lens states name their place in it, a frame apart from frame `start`."""
    focus = list(focus)
    return [SliceLens((start + i) * FRAME_NS, f, False, sweep_id, i, size or len(focus))
            for i, f in enumerate(focus)]


def untagged(focus: Iterable[float], start: int = 0, hold: int = 1) -> list[SliceLens]:
    """Frames at each position in turn, `hold` of them."""
    positions = [f for f in focus for _ in range(hold)]
    return [SliceLens((start + i) * FRAME_NS, f) for i, f in enumerate(positions)]
