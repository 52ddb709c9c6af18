"""Taking a focus sweep: when the lens has settled, and what becomes of one that does not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.estimation.sweep_control import (
    LensReport,
    SliceTag,
    SweepControl,
    SweepPlan,
)
from depth_fusion_ros.estimation.sweep_plan import uniform_positions
from depth_fusion_ros.simulation.lens_drive import LensDrive, LensDriveOptions

PLAN = SweepPlan((0.5, 1.0, 1.5), settle_frames=2, tolerance_diopters=0.05, timeout_s=2.0)


def encoder(focus: float, moving: bool | None = False) -> LensReport:
    return LensReport(focus, True, moving)


def obey(control: SweepControl, now_s: float = 0.0) -> float:
    """Take a command and accept it."""
    command = control.take_command()
    assert command is not None
    assert control.take_command() is None, "it is sent once"
    control.accepted(now_s)
    return command


def images_until_tag(control: SweepControl, report: LensReport | None) -> tuple[int, SliceTag]:
    for count in range(1, 100):
        tag = control.frame(report, 0.0)
        if tag is not None:
            return count, tag
    raise AssertionError("no slice")


def test_without_reports_a_slice_comes_after_settling_latency_and_the_way():
    plan = replace(PLAN, latency_frames=1, slew_diopters_per_frame=0.25)
    control = SweepControl(plan)
    assert control.start(0.0) == 1
    assert control.frame(None, 0.0) is None, "not even commanded"
    assert obey(control) == 0.5
    assert images_until_tag(control, None) == (2 + 1 + 6 + 1, SliceTag(1, 0, 3))  # whole range
    assert control.frame(None, 0.0) is None
    assert obey(control) == 1.0
    assert images_until_tag(control, None) == (2 + 1 + 2 + 1, SliceTag(1, 1, 3))
    assert obey(control) == 1.5
    assert images_until_tag(control, None)[1] == SliceTag(1, 2, 3)
    assert control.finished == 1 and not control.running and control.take_command() is None


def test_sweeps_alternate_and_have_rising_ids():
    for alternate, second in ((True, [1.5, 1.0, 0.5]), (False, [0.5, 1.0, 1.5])):
        control = SweepControl(replace(PLAN, alternate=alternate))
        for sweep_id, expected in ((1, [0.5, 1.0, 1.5]), (2, second), (3, [0.5, 1.0, 1.5])):
            assert control.start(0.0) == sweep_id
            sent = []
            while control.running:
                sent.append(obey(control))
                tag = control.frame(encoder(sent[-1]), 0.0)
                assert tag == SliceTag(sweep_id, len(sent) - 1, 3)
            assert sent == expected


def test_a_commanded_report_counts_from_where_it_reaches_the_position():
    control = SweepControl(PLAN)
    control.start(0.0)
    obey(control)
    for step in (0.0, 0.2, 0.4):  # libcamera steps towards the command
        assert control.frame(LensReport(step, False), 0.0) is None
    assert images_until_tag(control, LensReport(0.5, False))[0] == 3
    assert control.off_target == 0
    obey(control)
    count, _ = images_until_tag(control, LensReport(0.8, False))
    assert count > 8 and control.off_target == 1, "a driver that never gets there is taken as it is"


def test_an_image_whose_focus_is_unknown_is_no_slice_and_nothing_else_ends_the_sweep():
    control = SweepControl(PLAN)
    control.start(0.0)
    obey(control)
    for _ in range(10):
        assert control.frame(encoder(math.nan), 0.0) is None
    assert control.frame(encoder(0.5), 0.0) == SliceTag(1, 0, 3), "one report is enough"
    for _ in range(24):
        control.skip(0.0)
    assert control.running
    control.skip(0.0)
    assert control.aborted == {"focus_unknown": 1}


def test_a_measured_slice_is_taken_at_once_when_the_lens_stands_there_and_not_before():
    control = SweepControl(PLAN)
    control.start(0.0)
    obey(control)
    assert control.frame(encoder(0.3, True), 0.0) is None
    assert control.frame(encoder(0.5, True), 0.0) is None, "there, but moving"
    assert control.frame(encoder(0.52), 0.0) == SliceTag(1, 0, 3)
    obey(control)
    assert control.frame(encoder(1.0, None), 0.0) is None, "nobody says that it stands still"
    assert control.frame(encoder(1.0, None), 0.0) == SliceTag(1, 1, 3)


def test_a_lens_that_stops_short_is_commanded_further_by_what_it_is_off():
    control = SweepControl(PLAN)
    control.start(0.0)
    obey(control)
    control.frame(encoder(0.1), 0.0)
    control.frame(encoder(0.3, True), 0.0)
    assert control.frame(encoder(0.4), 0.0) is None
    assert obey(control) == pytest.approx(0.6)
    assert control.corrected == 1
    control.frame(encoder(0.45, True), 0.0)
    assert control.frame(encoder(0.5), 0.0) == SliceTag(1, 0, 3)
    assert control.off_target == 0


def test_a_lens_that_has_not_begun_to_move_is_not_corrected():
    control = SweepControl(PLAN)
    control.start(0.0)
    obey(control)
    for _ in range(8):
        assert control.frame(encoder(0.1), 0.0) is None
        assert control.take_command() is None
    assert control.frame(encoder(0.5), 0.0) is not None


def test_a_stuck_lens_gives_slices_where_it_is_and_they_are_counted():
    control = SweepControl(PLAN)
    control.start(0.0)
    while control.running:
        obey(control)
        images_until_tag(control, encoder(0.9))
    assert control.finished == 1 and control.off_target == 3 and control.corrected == 0


def test_a_lens_that_never_stands_still_aborts_the_sweep():
    ends = []
    control = SweepControl(PLAN, lambda *end: ends.append(end))
    control.start(0.0)
    obey(control)
    for step in range(100):
        control.frame(encoder(0.7, True), 0.1 * step)
    assert ends == [(1, "never_settled")] and control.aborted == {"never_settled": 1}


def test_images_that_stop_abort_the_sweep_and_the_next_one_can_start():
    control = SweepControl(PLAN)
    control.start(10.0)
    obey(control)
    control.frame(None, 11.5)
    control.tick(13.4)
    assert control.running
    control.tick(13.6)
    assert control.aborted == {"stalled": 1} and control.ended_s == 13.6
    assert control.start(20.0) == 2


def test_a_refused_command_aborts_but_a_refused_correction_takes_the_slice_as_it_is():
    control = SweepControl(PLAN)
    control.start(0.0)
    control.take_command()
    control.refused(0.0)
    assert control.aborted == {"command_failed": 1}
    control.start(1.0)
    assert obey(control) == 1.5
    control.frame(encoder(1.0, True), 0.0)
    control.frame(encoder(1.3, True), 0.0)
    assert control.frame(encoder(1.4), 0.0) is None
    assert control.take_command() == pytest.approx(1.6)
    control.refused(1.0)
    assert images_until_tag(control, encoder(1.4)) == (3, SliceTag(2, 0, 3))
    assert control.off_target == 1 and control.accepted_diopters == 1.5


def test_a_second_start_is_refused_while_one_runs():
    control = SweepControl(PLAN)
    control.start(0.0)
    with pytest.raises(RuntimeError, match="sweep 1 is being taken"):
        control.start(0.0)
    control.abort("deactivated", 1.0)
    assert control.aborted == {"deactivated": 1}


@settings(max_examples=80, deadline=None)
@given(latency_s=st.floats(0, 0.3), slew=st.floats(2.0, 60.0), hysteresis=st.floats(0, 0.15),
       period_s=st.floats(0.02, 0.2), start=st.floats(0.2, 3.0))
def test_with_an_encoder_every_slice_is_in_focus_whatever_the_lens_does(
        latency_s, slew, hysteresis, period_s, start):
    """The closed loop: latency far beyond `settle_frames`, hysteresis far beyond tolerance."""
    lens = LensDrive(LensDriveOptions(latency_s, slew, hysteresis, 0.0, 4.0), start)
    # The patience must outlast the latency: what `settle_frames` is for.
    settle = max(1, math.ceil(latency_s / period_s / 4))
    plan = replace(PLAN, positions_diopters=uniform_positions(0.4, 2.8, 4), settle_frames=settle,
                   tolerance_diopters=0.03, corrections=4)
    control = SweepControl(plan)
    taken, now_s = [], 0.0
    for _ in range(2):
        control.start(now_s)
        for _ in range(4000):
            command = control.take_command()
            if command is not None:
                lens.command(command, now_s)
                control.accepted(now_s)
            now_s += period_s
            focus, moving = lens.advance(now_s)
            target = control.target_diopters
            tag = control.frame(encoder(focus, moving), now_s)
            if tag is not None:
                taken.append((tag, focus - target))
            if not control.running:
                break
    assert [tag for tag, _ in taken] == [SliceTag(s, i, 4) for s in (1, 2) for i in range(4)]
    near = [abs(error) <= plan.tolerance_diopters for _, error in taken]
    # Static friction larger than the step: a lens within its hysteresis of the target may be stuck.
    assert all(ok or abs(error) <= hysteresis for ok, (_, error) in zip(near, taken))
    assert sum(not ok for ok in near) == control.off_target


@pytest.mark.parametrize("positions", [(1.0,), (1.0, 1.0), (2.0, 1.0), (-0.5, 1.0),
                                       (1.0, math.inf), (math.nan, 1.0)])
def test_positions_that_are_no_sweep_are_refused(positions):
    with pytest.raises(ValueError, match=r"set sweep\.diopters"):
        SweepPlan(positions)
