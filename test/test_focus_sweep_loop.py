"""Simulated focus camera, lens state bridge and sweep controller in one loop, over real DDS."""

from __future__ import annotations

import signal

import pytest

from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

import numpy as np
from ros_helpers import Bench
from sensor_msgs.msg import Image
from sweep_bench import (
    IMAGE,
    INFO,
    LENS,
    TO_UNTAGGED,
    UNTAGGED,
    controller,
    counters,
    listen,
    run_sweep,
    tagged,
    wait_for_counter,
)

from depth_fusion_ros.estimation.sweep_assembly import SweepAssembler
from depth_fusion_ros.estimation.sweep_plan import uniform_positions
from depth_fusion_ros.estimation.sweep_slices import SliceImage, SliceLens
from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.messages import image_to_array, image_to_rgb, stamp_to_ns

pytestmark = [pytest.mark.ros, pytest.mark.alone]
POSITIONS = uniform_positions(0.5, 2.3, 4)
TOLERANCE = 0.03
# The hysteresis is well beyond the tolerance: without corrections no slice would be in focus.
CAMERA = ("kind:=focus", "width_px:=96", "height_px:=64", "rate_hz:=25.0", "focus.positions:=6",
          "focus.aperture_samples:=8", "lens.latency_s:=0.1", "lens.hysteresis_diopters:=0.09",
          "lens.slew_diopters_per_s:=10.0", "lens.far_diopters:=0.2", "lens.near_diopters:=3.0")
OUR_CAMERA = ("camera.parameter:=lens_position_diopters", f"sweep.tolerance_diopters:={TOLERANCE}")
STARTS_S = 90.0  # rendering on a machine under load

def test_in_the_closed_loop_every_slice_is_tagged_once_and_is_in_focus():
    with Bench(outputs=()) as bench:
        listen(bench, **{IMAGE: Image, UNTAGGED: LensState, "ground_truth/depth": Image})
        with bench.node(*CAMERA, module="synthetic_camera", wait_active=False,
                        remap=TO_UNTAGGED) as camera:
            bench.wait(lambda: bench.received[INFO], "the camera's first image", STARTS_S)
            with controller(bench, *OUR_CAMERA, "sweep.trigger:=on_demand") as process:
                bench.wait(lambda: bench.received[LENS], "the controller's first state")
                assert bench.set_parameters(sweep__trigger="continuous") == (True, "")
                wait_for_counter(bench, "sweeps_finished", 2, STARTS_S)
                values = counters(bench)
                for one in (process, camera):
                    one.send_signal(signal.SIGINT)
                    assert one.wait(20) == 0, one.log[-25:]
        received = bench.received
        assert not any("Traceback" in line for line in process.log + camera.log)
    states = [s for s in received[LENS] if s.sweep_id <= 2]
    slices = tagged(states)
    assert sorted(slices) == [(sweep, index) for sweep in (1, 2) for index in range(4)]
    for (sweep, index), state in slices.items():
        wanted = (POSITIONS if sweep == 1 else POSITIONS[::-1])[index]
        assert abs(state.focus_diopters - wanted) <= TOLERANCE, "true focus: the encoder's"
        assert state.sweep_size == 4
        assert state.focus_origin == LensState.ORIGIN_ENCODER
        assert state.lens_motion == LensState.MOTION_STATIONARY
    assert int(values["corrections"]) >= 4 and values["off_target"] == "0"
    assert values["sweeps_aborted"] == "0"
    assert values["command_failures"] == values.get("command_failures.no_service", "0"), (
        "only while the camera was starting")

    # Each image has one state, the camera's own but for the tag.
    own = {stamp_to_ns(s.header.stamp): s for s in received[UNTAGGED]}
    stamps = [stamp_to_ns(s.header.stamp) for s in received[LENS]]
    assert stamps == sorted(set(stamps))
    images = {stamp_to_ns(m.header.stamp): m for m in received[INFO]}
    expected = [s for s in images if stamps[0] <= s <= stamps[-1]]
    assert stamps == expected
    for state in slices.values():
        stamp_ns = stamp_to_ns(state.header.stamp)
        assert state.focus_diopters == own[stamp_ns].focus_diopters
        fx = images[stamp_ns].k[0]
        assert fx == pytest.approx(0.012 / 27.6e-6 * (1 + 0.012 * state.focus_diopters))

    # What was published makes complete sweeps.
    assembler, sweeps = SweepAssembler(), []
    lenses = {stamp_to_ns(s.header.stamp): s for s in states}
    for message in received[IMAGE]:
        stamp_ns = stamp_to_ns(message.header.stamp)
        if stamp_ns not in lenses:
            continue
        state = lenses[stamp_ns]
        sweeps += assembler.add_image(SliceImage(stamp_ns, image_to_rgb(message, IMAGE)))
        sweeps += assembler.add_lens(SliceLens(
            stamp_ns, state.focus_diopters, state.lens_motion == LensState.MOTION_MOVING,
            state.sweep_id, state.sweep_index, state.sweep_size))
    complete = [sweep for sweep in sweeps if sweep.complete and sweep.sweep_id]
    assert [sweep.sweep_id for sweep in complete] == [1, 2]
    for sweep in complete:
        np.testing.assert_allclose(sweep.focus_diopters, POSITIONS, atol=TOLERANCE)
    depth = image_to_array(received["ground_truth/depth"][0], "truth", ("32FC1",))
    assert depth.shape == (64, 96) and np.isfinite(depth).all()


def test_with_the_bridge_the_commands_that_the_camera_reports_are_what_the_slices_tell():
    """camera (as camera_ros: /diagnostics) -> bridge -> controller -> camera."""
    with Bench(outputs=()) as bench:
        listen(bench)
        with bench.node(*CAMERA, "lens.report:=none", "publish_lens_diagnostics:=true",
                        module="synthetic_camera", wait_active=False), \
                bench.node("focus_calibration:=uncalibrated", "report_timeout_s:=1.0",
                           module="lens_state_bridge", wait_active=False, remap=TO_UNTAGGED), \
                controller(bench, *OUR_CAMERA, "lens.report:=topic", "sweep.trigger:=on_demand"):
            bench.wait(lambda: bench.received[LENS], "the controller's first state", STARTS_S)
            bench.wait(lambda: run_sweep(bench).success, "the camera's service")
            wait_for_counter(bench, "sweeps_finished", 1, STARTS_S)
        slices = tagged([s for s in bench.received[LENS] if s.sweep_id == 1])
    assert sorted(slices) == [(1, index) for index in range(4)]
    for (_, index), state in slices.items():
        assert state.focus_diopters == pytest.approx(POSITIONS[index], abs=1e-5)
        assert state.focus_origin == LensState.ORIGIN_COMMANDED
        assert state.focus_calibration == LensState.CALIBRATION_UNCALIBRATED
        assert state.exposure_time_s == pytest.approx(0.01)
