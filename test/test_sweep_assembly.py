"""Focus sweeps from single images: joining, splitting, settling, and what is dropped as what."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sweep_feed import FRAME_NS, LARGE, PLAIN, SMALL, accounted, feed, tagged, untagged

from depth_fusion_ros.estimation.sweep_assembly import (
    RESTART_NS,
    SliceImage,
    SliceLens,
    SweepAssembler,
    SweepOptions,
)

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
