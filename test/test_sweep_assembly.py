"""Focus sweeps from single images: joining, splitting, settling, and the ledger of every image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.estimation.sweep_assembly import (
    RESTART_NS,
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
    return sum(assembler.counters.values()) + assembler.pending == assembler.received


def tagged(focus: Iterable[float], sweep_id: int = 1, start: int = 0, size: int | None = None
           ) -> list[SliceLens]:
    focus = list(focus)
    return [SliceLens((start + i) * FRAME_NS, f, False, sweep_id, i, size or len(focus))
            for i, f in enumerate(focus)]


def untagged(focus: Iterable[float], start: int = 0, hold: int = 1) -> list[SliceLens]:
    """Frames at each position in turn, `hold` of them."""
    positions = [f for f in focus for _ in range(hold)]
    return [SliceLens((start + i) * FRAME_NS, f) for i, f in enumerate(positions)]


# -- tagged sweeps ------------------------------------------------------------------------------


def test_a_tagged_sweep_is_returned_with_its_last_slice_in_rising_focus() -> None:
    assembler = SweepAssembler()
    lenses = tagged([4.0, 2.0, 1.0, 0.0])
    assert feed(assembler, lenses[:3]) == []
    (sweep,) = feed(assembler, lenses[3:])
    assert sweep.focus_diopters == (0.0, 1.0, 2.0, 4.0)
    assert (sweep.complete, sweep.missing, sweep.sweep_id) == (True, 0, 1)
    assert (sweep.span_diopters, sweep.largest_gap_diopters) == (4.0, 2.0)
    assert (sweep.first_stamp_ns, sweep.last_stamp_ns) == (0, 3 * FRAME_NS)
    assert all(item.image.stamp_ns == item.lens.stamp_ns for item in sweep.slices)
    assert (assembler.counters, assembler.pending) == ({"used_complete": 4}, 0)


@pytest.mark.parametrize("lens_first", [True, False])
def test_images_and_lens_states_join_by_stamp_whichever_comes_first(lens_first: bool) -> None:
    assembler, lenses = SweepAssembler(), tagged([1, 2, 3])
    images = [SliceImage(lens.stamp_ns, SMALL) for lens in lenses]
    sweeps = []
    for step in (0, 1):
        if lens_first == (step == 0):
            sweeps += [s for lens in lenses for s in assembler.add_lens(lens)]
        else:
            sweeps += [s for image in images for s in assembler.add_image(image)]
        assert len(sweeps) == step
    assert [item.image for item in sweeps[0].slices] == images


def test_slices_out_of_order_complete_a_sweep_and_repeated_ones_are_dropped() -> None:
    assembler, lenses = SweepAssembler(), tagged([1, 2, 3, 4])
    again = replace(lenses[1], stamp_ns=lenses[1].stamp_ns + 5)
    (sweep,) = feed(assembler, [lenses[2], lenses[0], lenses[1], lenses[1], again, lenses[3]])
    assert sweep.focus_diopters == (1, 2, 3, 4)
    assert sweep.slices[1].stamp_ns == lenses[1].stamp_ns
    assert feed(assembler, [replace(lenses[3], stamp_ns=lenses[3].stamp_ns + 5)]) == []
    assert assembler.counters == {"used_complete": 4, "duplicate": 3}


def test_a_new_sweep_id_ends_the_old_sweep_as_incomplete_and_late_slices_are_superseded() -> None:
    assembler = SweepAssembler()
    old, new = tagged([1, 2, 3, 4, 5]), tagged([1, 2, 3], 2, start=10)
    (sweep,) = feed(assembler, [*old[:3], new[0]])
    assert (sweep.complete, sweep.missing, len(sweep.slices)) == (False, 2, 3)
    (sweep,) = feed(assembler, [old[3], *new[1:], old[4]])
    assert (sweep.complete, sweep.sweep_id) == (True, 2)
    assert assembler.counters == {"used_incomplete": 3, "superseded": 2, "used_complete": 3}
    assert assembler.pending == 0


def test_a_sweep_with_an_unusable_slice_ends_with_its_last_index_as_incomplete() -> None:
    assembler, lenses = SweepAssembler(), tagged([1, 2, 3, 4, 5])
    lenses[1] = replace(lenses[1], moving=True)
    (sweep,) = feed(assembler, lenses)
    assert (sweep.complete, sweep.missing, sweep.focus_diopters) == (False, 1, (1, 3, 4, 5))
    assert assembler.counters == {"used_incomplete": 4, "lens_moving": 1}


def test_a_commander_that_starts_again_with_the_same_id_begins_a_new_sweep() -> None:
    assembler = SweepAssembler()
    sweeps = feed(assembler, tagged([1, 2, 3]) + tagged([1, 2, 3], start=5))
    assert [sweep.complete for sweep in sweeps] == [True, True]


def test_settling_is_the_business_of_whoever_tags_and_untagged_frames_are_not_in_a_sweep() -> None:
    assembler = SweepAssembler(SweepOptions(settle_frames=3))
    lenses = [lens for pair in zip(tagged([1, 2, 3]), untagged([1.5, 2.5, 3.5], start=20))
              for lens in (pair[0], replace(pair[1], stamp_ns=pair[0].stamp_ns + 9))]
    (sweep,) = feed(assembler, lenses)
    assert sweep.complete
    assert assembler.counters == {"used_complete": 3, "not_in_sweep": 3}


def test_more_slices_than_max_are_thinned_and_keep_the_range_of_focus() -> None:
    assembler = SweepAssembler(SweepOptions(max_slices=6))
    (sweep,) = feed(assembler, tagged(np.linspace(0, 8, 17)))
    assert (len(sweep.slices), sweep.complete, sweep.span_diopters) == (6, True, 8)
    assert sweep.largest_gap_diopters <= 2 * 8 / 5 + 0.5
    assert assembler.counters == {"used_complete": 6, "too_many_slices": 11}


def test_a_lens_that_is_stuck_makes_no_sweep() -> None:
    assembler = SweepAssembler()
    assert feed(assembler, tagged([3.0, 3.01, 3.0, 3.005])) == []
    assert assembler.counters == {"superseded": 3, "too_few_slices": 1}


# -- untagged sweeps ----------------------------------------------------------------------------


@pytest.mark.parametrize("back", [[3.0, 2.0], [0.0, 1.0]], ids=["triangle", "sawtooth"])
def test_a_turn_of_the_focus_ends_an_untagged_sweep(back: list[float]) -> None:
    assembler = SweepAssembler(SweepOptions(settle_frames=2))
    lenses = untagged([0.0, 1.0, 2.0, 4.0, *back], hold=5)
    (sweep,) = feed(assembler, lenses)
    assert (sweep.focus_diopters, sweep.complete, sweep.missing) == ((0, 1, 2, 4), True, 0)
    assert sweep.slices[1].stamp_ns == lenses[9].stamp_ns, "the last settled frame"
    assert assembler.counters == {"settling": 12, "superseded": 12, "used_complete": 4}
    (rest,) = feed(assembler, untagged([back[1] + (back[1] - back[0])], start=30, hold=5)
                   ) + assembler.flush()
    assert rest.focus_diopters == tuple(sorted([*back, back[1] + (back[1] - back[0])]))


def test_the_positions_a_lens_reports_on_its_way_do_not_turn_the_sweep() -> None:
    assembler = SweepAssembler(SweepOptions(settle_frames=2))
    one = untagged([1, 2, 3], hold=5)
    way = untagged([2.4, 1.7], start=15)
    sweeps = feed(assembler, one + way + untagged([1, 2, 3], start=17, hold=5)) + assembler.flush()
    assert [sweep.focus_diopters for sweep in sweeps] == [(1, 2, 3), (1, 2, 3)]


def test_positions_within_the_same_focus_are_one_slice() -> None:
    assembler = SweepAssembler(PLAIN)
    feed(assembler, untagged([1.0, 1.01, 0.99, 2.0, 2.015, 3.0]))
    (sweep,) = assembler.flush()
    assert sweep.focus_diopters == (0.99, 2.015, 3.0)
    assert not sweep.complete


@pytest.mark.parametrize("parked", [True, False])
def test_a_pause_ends_an_untagged_sweep(parked: bool) -> None:
    assembler = SweepAssembler(PLAIN)
    lenses = untagged([1, 2, 3])
    lenses += untagged([3] * 40 if parked else [4], start=3 if parked else 40)
    (sweep,) = feed(assembler, lenses)
    assert (sweep.complete, sweep.focus_diopters) == (True, (1, 2, 3))


def test_frames_after_a_change_of_focus_are_settling_even_where_the_lens_was_seen_moving() -> None:
    assembler = SweepAssembler(SweepOptions(settle_frames=2))
    lenses = untagged([1, 2, 3], hold=4)
    lenses = [replace(lens, moving=i % 4 == 0) for i, lens in enumerate(lenses)]
    feed(assembler, lenses)
    assert assembler.counters == {"lens_moving": 3, "settling": 3, "superseded": 3}
    assert assembler.pending == 3


# -- what is dropped ----------------------------------------------------------------------------


@pytest.mark.parametrize("change, rejected", [
    ({"moving": True}, True),
    ({"moving": None, "focus_start_diopters": 1.0, "focus_end_diopters": 1.3}, True),
    ({"moving": None, "focus_start_diopters": 1.0, "focus_end_diopters": 1.01}, False),
    ({"moving": None, "focus_start_diopters": 1.0}, False)])
def test_slices_of_a_moving_lens_are_dropped_where_a_stationary_one_is_required(
    change: dict[str, Any], rejected: bool
) -> None:
    lens = replace(tagged([1.0])[0], sweep_size=9, **change)
    assembler = SweepAssembler()
    feed(assembler, [lens])
    assert assembler.counters == ({"lens_moving": 1} if rejected else {})
    tolerant = SweepAssembler(SweepOptions(require_stationary_lens=False))
    feed(tolerant, [lens])
    assert tolerant.pending == 1


def test_an_unknown_focus_is_dropped() -> None:
    assembler = SweepAssembler(PLAIN)
    feed(assembler, [*untagged([math.nan, math.inf]), *tagged([math.nan], start=3)])
    assert assembler.counters == {"unknown_focus": 3}


def test_a_sweep_with_too_few_slices_is_dropped_whole() -> None:
    assembler = SweepAssembler()
    assert feed(assembler, tagged([1, 2], size=5)) == []
    assert assembler.flush() == []
    assert assembler.counters == {"too_few_slices": 2}


def test_a_change_of_the_image_size_ends_the_sweep() -> None:
    assembler = SweepAssembler(PLAIN)
    assert feed(assembler, untagged([1, 2])) == []
    assert feed(assembler, untagged([3, 4, 5], start=2), LARGE) == []
    assert assembler.counters == {"size_changed": 2}
    (sweep,) = assembler.flush()
    assert {item.image.image.shape for item in sweep.slices} == {LARGE.shape}


def test_stamps_that_fall_back_clear_the_buffers_and_the_next_loop_is_assembled() -> None:
    assembler = SweepAssembler()
    late = tagged([1, 2, 3, 4], start=30)
    feed(assembler, late[:2])
    assembler.add_image(SliceImage(late[2].stamp_ns, SMALL))
    assert assembler.pending == 3
    (sweep,) = feed(assembler, tagged([1, 2, 3]))
    assert sweep.complete
    assert assembler.restarts == 1
    assert assembler.counters == {"stamp_backwards": 3, "used_complete": 3}
    assert late[0].stamp_ns > RESTART_NS


def test_images_without_a_lens_state_are_dropped_and_the_buffers_are_bounded() -> None:
    assembler = SweepAssembler()
    for i in range(1000):
        assembler.add_image(SliceImage(i * FRAME_NS, SMALL))
        assembler.add_lens(SliceLens(i * FRAME_NS + 1, 1.0))
    assert assembler.pending < 20
    assert accounted(assembler)
    assert assembler.flush() == []
    assert assembler.counters == {"no_lens_state": 1000}


def test_after_a_flush_the_same_recording_is_assembled_again() -> None:
    assembler = SweepAssembler(PLAIN)
    for lenses in (tagged([1, 2, 3]), untagged([1, 2, 3]), tagged([1, 2, 3])):
        (sweep,) = feed(assembler, lenses) + assembler.flush()
        assert sweep.focus_diopters == (1, 2, 3)
    assert assembler.restarts == 0


# -- time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin_ns", [0, 10**18])
def test_an_unfinished_sweep_and_a_lonely_image_end_after_the_timeout_of_any_clock(
    origin_ns: int,
) -> None:
    assembler = SweepAssembler(SweepOptions(timeout_s=2.0))
    feed(assembler, tagged([1, 2, 3], size=5))
    assembler.add_image(SliceImage(5 * FRAME_NS, SMALL))
    assert assembler.tick(origin_ns) == []
    assert assembler.tick(origin_ns + 1_900_000_000) == []
    assert assembler.pending == 4
    (sweep,) = assembler.tick(origin_ns + 2_100_000_000)
    assert (sweep.complete, sweep.missing) == (False, 2)
    assert assembler.counters == {"used_incomplete": 3, "no_lens_state": 1}
    assert feed(assembler, [replace(lens, stamp_ns=lens.stamp_ns + 10**9) for lens in
                            tagged([1, 2, 3, 4], size=5)[3:]]) == []
    assert assembler.counters["superseded"] == 1


def test_an_untagged_sweep_ends_complete_when_no_frame_comes_for_the_gap() -> None:
    assembler = SweepAssembler(PLAIN)
    feed(assembler, untagged([1, 2, 3]))
    assert assembler.tick(0) == []
    (sweep,) = assembler.tick(1_100_000_000)
    assert sweep.complete


# -- sliding ------------------------------------------------------------------------------------


def test_in_sliding_mode_every_slice_gives_the_last_positions() -> None:
    assembler = SweepAssembler(replace(PLAIN, mode="sliding", max_slices=4))
    sweeps = feed(assembler, untagged([1, 2, 3, 4, 5, 4]))
    assert [sweep.focus_diopters for sweep in sweeps] == [
        (1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5)]
    assert sweeps[-1].slices[2].stamp_ns == 5 * FRAME_NS, "the newer slice of the position"
    assert assembler.counters == {"used_complete": 6}


def test_a_sliding_window_of_tagged_slices_is_as_long_as_their_sweep() -> None:
    assembler = SweepAssembler(SweepOptions(mode="sliding"))
    sweeps = feed(assembler, tagged([1, 2, 3, 4]) + tagged([1.5, 2.5], 2, start=4, size=4))
    assert [(len(s.slices), s.complete, s.missing) for s in sweeps] == [
        (3, False, 1), (4, True, 0), (4, True, 0), (4, True, 0)]
    assert sweeps[-1].focus_diopters == (1.5, 2.5, 3, 4)
    assert assembler.counters == {"used_incomplete": 3, "used_complete": 3}


def test_a_sliding_window_holds_nothing_older_than_the_timeout() -> None:
    assembler = SweepAssembler(replace(PLAIN, mode="sliding", timeout_s=1.0))
    sweeps = feed(assembler, untagged([1, 2, 3]) + untagged([4, 5], start=40))
    assert [sweep.focus_diopters for sweep in sweeps] == [(1, 2, 3)]
    assert assembler.pending == 2


def test_a_sliding_sweep_is_returned_once_for_each_stay_of_the_lens() -> None:
    assembler = SweepAssembler(SweepOptions(mode="sliding", settle_frames=1))
    sweeps = feed(assembler, untagged([1, 2, 3], hold=4))
    assert len(sweeps) == 1
    assert sweeps[0].slices[-1].stamp_ns == 9 * FRAME_NS
    assert assembler.counters == {"settling": 3, "duplicate": 6, "used_complete": 3}


# -- the ledger ---------------------------------------------------------------------------------


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


# -- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [
    {"min_slices": 1}, {"max_slices": 2}, {"timeout_s": 0.0}, {"timeout_s": math.nan},
    {"mode": "newest"}, {"settle_frames": -1}, {"gap_s": -1.0}, {"same_focus_diopters": math.inf}])
def test_options_outside_their_range_are_refused_by_name(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"sweep.{next(iter(values))} = .*must be.*set"):
        SweepOptions(**values)  # type: ignore[arg-type]


def test_an_image_that_is_not_colour_is_refused() -> None:
    with pytest.raises(ValueError, match="decode"):
        SliceImage(0, SMALL[..., 0])
