"""The focus-driven camera: its lens, and that its pictures show what its numbers say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.optics.shape_from_focus import shape_from_focus
from depth_fusion_ros.simulation.focus_camera import (
    FocusCameraOptions,
    FocusDrivenCamera,
    FocusStack,
    render_focus_stack,
)
from depth_fusion_ros.simulation.lens_drive import LensDrive, LensDriveOptions
from depth_fusion_ros.simulation.sequence import preset_lens

NEAR, FAR = 3.0, 0.2
FAST = LensDriveOptions(latency_s=0.0, slew_diopters_per_s=1e6, far_diopters=FAR,
                        near_diopters=NEAR)
OPTIONS = FocusCameraOptions(drive=FAST, positions=10, aperture_samples=16, seed=3)


@pytest.fixture(scope="module")
def stack() -> FocusStack:
    return render_focus_stack(preset_lens("robot_16mm", 0.0), 96, 72, OPTIONS)


def taken(camera: FocusDrivenCamera, positions: np.ndarray) -> np.ndarray:
    """Return the images (N, H, W, 3) taken at commanded positions."""
    images = []
    for step, position in enumerate(positions):
        camera.command(float(position), step + 0.1)
        exposure = camera.expose(step + 0.9)
        assert exposure.focus_diopters == pytest.approx(position)
        assert not exposure.moving
        images.append(exposure.image)
    return np.stack(images)


# -- pictures -------------------------------------------------------------------------------------


def test_each_surface_is_sharpest_where_the_lens_is_commanded_to_its_distance(stack):
    positions = np.linspace(FAR, NEAR, 10)
    images = taken(FocusDrivenCamera(stack, OPTIONS), positions).astype(np.float32) / 255
    diopters, _ = shape_from_focus(images, positions)
    truth = 1 / stack.depth_m
    assert truth.min() > FAR - 0.1 and np.ptp(truth) > 0.8, "the room spans the lens's range"
    measured = np.isfinite(diopters) & (truth > FAR + 0.1) & (truth < NEAR - 0.1)
    assert measured.mean() > 0.3
    error = np.abs(diopters - truth)[measured]
    assert np.median(error) < 0.5 * (positions[1] - positions[0])


def test_a_focus_between_two_rendered_positions_is_between_their_pictures(stack):
    low, high = stack.focus_diopters[4], stack.focus_diopters[5]
    camera = FocusDrivenCamera(stack, OPTIONS)
    a, between, b = (camera._light(f, 1.0, (0.0, 0.0)) for f in (low, (low + high) / 2, high))
    np.testing.assert_allclose(between, (a + b) / 2, atol=1e-5)
    assert float((a - b).abs().mean()) > 1e-3


def spot(options: FocusCameraOptions, x_px: int, y_px: int) -> FocusDrivenCamera:
    """Return a camera that sees one small bright patch."""
    import torch

    height, width, margin = 96, 128, options.margin_px
    rows = torch.arange(height + 2 * margin)[:, None] - margin - y_px
    columns = torch.arange(width + 2 * margin)[None] - margin - x_px
    patch = 0.05 + 0.9 * torch.exp(-(rows**2 + columns**2) / (2 * 2.0**2))
    light = patch.expand(2, 3, -1, -1).clone()
    depth = np.ones((height, width), np.float32)
    return FocusDrivenCamera(
        FocusStack(light, np.array([FAR, NEAR]), depth, preset_lens("robot_16mm", 0.0), margin),
        options)


def centre_of(image: np.ndarray) -> tuple[float, float]:
    weight = np.clip(image.mean(-1).astype(float) - 90, 0, None)
    rows, columns = np.indices(weight.shape)
    return (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()


@pytest.mark.parametrize("breathing", [0.0, 0.04, -0.03])
def test_breathing_moves_a_point_as_fx_says(breathing):
    camera = spot(replace(OPTIONS, breathing_per_diopter=breathing), 100, 30)
    points = []
    for step, focus in enumerate((0.5, 2.5)):
        camera.command(focus, step + 0.1)
        exposure = camera.expose(step + 0.9)
        k = exposure.intrinsics
        assert k.fx_px == pytest.approx(
            camera.stack.lens.focal_length_px * (1 + breathing * focus))
        x, y = centre_of(exposure.image)
        points.append(((x - k.cx_px) / k.fx_px, (y - k.cy_px) / k.fy_px, x))
    pixel = 1 / camera.stack.lens.focal_length_px
    assert points[0][0] == pytest.approx(points[1][0], abs=0.1 * pixel), "one ray, two images"
    assert points[0][1] == pytest.approx(points[1][1], abs=0.1 * pixel)
    assert (points[1][2] - points[0][2]) * np.sign(breathing) >= (1.5 if breathing else 0.0)


def test_drift_moves_the_picture_at_its_speed_and_turns_round_at_the_margin():
    camera = spot(replace(OPTIONS, drift_px_per_s=(4.0, 0.0)), 60, 48)
    first = camera.expose(10.0)
    later = camera.expose(12.0)
    assert later.drift_px == pytest.approx((8.0, 0.0))
    moved = np.subtract(centre_of(later.image), centre_of(first.image))
    np.testing.assert_allclose(moved, (8.0, 0.0), atol=0.1)
    seen = [camera.expose(t).drift_px[0] for t in np.arange(13.0, 60.0, 0.5)]
    assert max(seen) == pytest.approx(16.0) and min(seen) == pytest.approx(-16.0)
    assert np.abs(np.diff(seen)).max() <= 2.0 + 1e-9


def test_noise_is_new_in_every_exposure_and_the_same_for_a_seed(stack):
    first, again = (FocusDrivenCamera(stack, OPTIONS) for _ in range(2))
    a, b = first.expose(1.0).image, first.expose(2.0).image
    assert (a != b).mean() > 0.2
    np.testing.assert_array_equal(a, again.expose(1.0).image)


def test_rendering_reports_progress_and_can_be_stopped():
    calls = []

    def progress(done: int, wanted: int) -> bool:
        calls.append((done, wanted))
        return done == 2

    with pytest.raises(InterruptedError, match="2 of 10"):
        render_focus_stack(preset_lens("phone", 0.0), 32, 32, OPTIONS, progress=progress)
    assert calls == [(1, 10), (2, 10)]


# -- the lens -------------------------------------------------------------------------------------


def test_the_lens_waits_for_its_latency_then_moves_at_its_speed():
    drive = LensDrive(LensDriveOptions(latency_s=0.2, slew_diopters_per_s=2.0), 1.0)
    drive.command(2.0, now_s=0.0)
    assert drive.commanded_diopters == 2.0
    assert drive.advance(0.19) == (1.0, False)
    position, moving = drive.advance(0.45)
    assert position == pytest.approx(1.5) and moving
    assert drive.advance(0.8) == (2.0, True), "it arrived since the last look"
    assert drive.advance(0.9) == (2.0, False)


def test_an_exposure_during_which_the_lens_moves_says_so_and_where(stack):
    drive = replace(FAST, latency_s=0.1, slew_diopters_per_s=5.0)
    camera = FocusDrivenCamera(stack, replace(OPTIONS, drive=drive, exposure_s=0.02))
    camera.command(2.2, now_s=0.0)
    before, during, after = (camera.expose(t) for t in (0.09, 0.3, 1.0))
    assert not before.moving and before.focus_diopters == FAR
    assert during.moving
    assert during.focus_end_diopters - during.focus_start_diopters == pytest.approx(0.1)
    assert during.focus_diopters == pytest.approx(FAR + 5.0 * (0.29 - 0.1))
    assert not after.moving and after.focus_diopters == pytest.approx(2.2)
    assert {e.commanded_diopters for e in (before, during, after)} == {2.2}


def test_two_images_in_quick_succession_share_no_exposure_time(stack):
    drive = replace(FAST, slew_diopters_per_s=10.0)
    camera = FocusDrivenCamera(stack, replace(OPTIONS, drive=drive, exposure_s=0.05))
    camera.command(2.2, now_s=1.0)
    first, second = camera.expose(1.1), camera.expose(1.102)
    assert second.focus_start_diopters == first.focus_end_diopters == pytest.approx(1.2)
    assert second.focus_end_diopters == pytest.approx(1.22)


def test_the_lens_stops_short_on_the_side_it_comes_from():
    drive = LensDrive(LensDriveOptions(latency_s=0.0, hysteresis_diopters=0.1), 1.0)
    drive.command(2.0, 0.0)
    assert drive.advance(1.0)[0] == pytest.approx(1.9), "from below"
    drive.command(1.0, 1.0)
    assert drive.advance(2.0)[0] == pytest.approx(1.1), "from above"
    drive.command(1.15, 2.0)
    assert drive.advance(3.0)[0] == pytest.approx(1.1), "too near to move for"


def test_the_lens_stops_at_its_end_stops():
    drive = LensDrive(LensDriveOptions(far_diopters=0.5, near_diopters=3.0, latency_s=0.0), 0.0)
    assert drive.advance(0.0)[0] == 0.5
    drive.command(9.0, 0.0)
    assert drive.advance(10.0)[0] == 3.0


positions = st.floats(0.0, 4.0)
commands = st.lists(st.tuples(st.floats(0.0, 1.0), positions), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(commands=commands, latency_s=st.floats(0.0, 0.5), slew=st.floats(0.1, 50.0),
       hysteresis=st.floats(0.0, 0.5), looks=st.lists(st.floats(0.0, 8.0), max_size=12))
def test_however_it_is_commanded_the_lens_keeps_its_speed_and_ends_within_its_hysteresis(
        commands, latency_s, slew, hysteresis, looks):
    options = LensDriveOptions(latency_s=latency_s, slew_diopters_per_s=slew,
                               hysteresis_diopters=hysteresis)
    watched, left_alone = LensDrive(options, 1.0), LensDrive(options, 1.0)
    now_s, orders = 0.0, []
    for wait_s, target in commands:
        now_s += wait_s
        orders.append((now_s, target))
        left_alone.command(target, now_s)
    end_s, position, last_s = now_s + latency_s + 5.0 / slew + 1.0, 1.0, 0.0
    for moment_s in sorted([*looks, *(at for at, _ in orders)]):
        for at, target in orders:
            if last_s < at <= moment_s or at == moment_s == 0.0:
                watched.command(target, at)
        new, _ = watched.advance(moment_s)
        assert abs(new - position) <= slew * (moment_s - last_s) + 1e-9
        assert options.far_diopters <= new <= options.near_diopters
        position, last_s = new, moment_s
    end_s = max(end_s, last_s)
    final, _ = left_alone.advance(end_s)
    assert watched.advance(end_s)[0] == pytest.approx(final), "looking does not move the lens"
    assert abs(final - orders[-1][1]) <= hysteresis + 1e-9


@pytest.mark.parametrize(
    ("make", "words"),
    [(lambda: LensDriveOptions(latency_s=-0.1), "latency_s = -0.1"),
     (lambda: LensDriveOptions(far_diopters=3.0, near_diopters=2.0), "larger than far_diopters"),
     (lambda: LensDriveOptions(slew_diopters_per_s=0.0), "slew_diopters_per_s = 0.0"),
     (lambda: LensDrive(LensDriveOptions(), 0.0).command(math.nan, 0.0), "commanded focus = nan"),
     (lambda: LensDrive(LensDriveOptions(), 0.0).command(-1.0, 0.0), "finite and >= 0"),
     (lambda: replace(OPTIONS, positions=1), "positions = 1"),
     (lambda: replace(OPTIONS, breathing_per_diopter=-0.5), "breathing_per_diopter"),
     (lambda: render_focus_stack(preset_lens("phone", 0.0), 0, 32, OPTIONS), "width_px=0")])
def test_what_no_lens_can_do_is_refused_with_a_sentence(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_clock_that_runs_backwards_is_refused():
    drive = LensDrive(LensDriveOptions(), 1.0)
    drive.advance(2.0)
    with pytest.raises(ValueError, match="steady clock"):
        drive.advance(1.0)
