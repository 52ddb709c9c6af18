"""The ledger of focus sweeps: whatever a source does, every image ends exactly once."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_feed import FRAME_NS, LARGE, SMALL, accounted

from depth_fusion_ros.estimation.sweep_assembly import (
    SliceImage,
    SliceLens,
    SweepAssembler,
    SweepOptions,
)


@dataclass(frozen=True)
class Step:
    kind: str  # i = image, l = lens state, t = tick
    stamp_ns: int
    lens: SliceLens
    large: bool


def source(seed: int, frames: int, ids: str) -> list[Step]:
    """What a source may do: it sweeps, with losses, repeats, late messages, jumps and nonsense."""
    random = Random(seed)
    out: list[Step] = []
    frame, sweep_id, index, size, hold = 0, 1, 0, 5, random.choice([1, 2, 4])
    chance = random.choice([0.0, 0.03, 0.2])  # of each misfortune
    for number in range(frames):
        if number % hold == 0:
            index += 1
        if index >= size or random.random() < chance:
            index, sweep_id, size = 0, sweep_id + 1, random.choice([5, 5, 5, 8, 2, 0]) or 5
        frame += random.choice([0, -1, -3, 3, 15, 40, -40]) if random.random() < chance else 1
        odd = random.random() < chance
        lens = SliceLens(
            max(frame, 0) * FRAME_NS,
            random.choice([math.nan, math.inf, 0.0, 0.01, random.uniform(0, 12)]) if odd
            else 0.7 * index + random.choice([0.0, 0.0, 0.015]),
            random.choice([True, None]) if random.random() < chance else False,
            0 if ids == "none" or (ids == "mixed" and random.random() < 0.5) else sweep_id,
            random.randrange(9) if random.random() < chance else index,
            random.choice([0, size + 1]) if random.random() < chance else size)
        order = random.choice(["i", "l", "t", "lt"]) if random.random() < chance else "il"
        out += [Step(part, 3 * lens.stamp_ns if part == "t" else lens.stamp_ns, lens,
                     random.random() < chance / 4)
                for part in (order if random.random() < 0.7 else order[::-1])]
    for at in range(len(out)):  # late by a few messages
        if random.random() < chance:
            out.insert(min(len(out), at + random.randrange(1, 6)), out.pop(at))
    return out


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 120), st.sampled_from(["none", "all", "mixed"]),
       st.sampled_from(["complete", "sliding"]), st.integers(0, 2), st.integers(3, 6))
def test_every_image_is_accounted_for_exactly_once(
    seed: int, frames: int, ids: str, mode: str, settle_frames: int, max_slices: int
) -> None:
    options = SweepOptions(mode=mode, settle_frames=settle_frames, max_slices=max_slices)
    assembler = SweepAssembler(options)
    images: list[SliceImage] = []
    returned: Counter[SliceImage] = Counter()
    for step in [*source(seed, frames, ids), None]:
        if step is None:
            sweeps = assembler.flush()
        elif step.kind == "i":
            images.append(SliceImage(step.stamp_ns, LARGE if step.large else SMALL))
            sweeps = assembler.add_image(images[-1])
        elif step.kind == "l":
            sweeps = assembler.add_lens(step.lens)
        else:
            sweeps = assembler.tick(step.stamp_ns)
        for sweep in sweeps:
            focus = sweep.focus_diopters
            assert options.min_slices <= len(sweep.slices) <= max_slices
            assert all(b - a > options.same_focus_diopters for a, b in pairwise(focus))
            assert all(item.image.stamp_ns == item.lens.stamp_ns and item.lens.moving is not True
                       for item in sweep.slices)
            assert len({item.image.image.shape for item in sweep.slices}) == 1
            assert not (sweep.complete and sweep.missing)
            returned.update(item.image for item in sweep.slices)
        assert accounted(assembler)
        assert assembler.received == len(images)
        assert min(assembler.counters.values(), default=0) >= 0
        used = assembler.counters["used_complete"] + assembler.counters["used_incomplete"]
        assert used == len(returned)
    assert assembler.pending == 0
    if mode == "complete":
        assert set(returned.values()) <= {1}
    assert set(returned) <= set(images)
