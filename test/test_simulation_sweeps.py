"""Simulated focus sweeps: the sharpest slice is the one whose focus agrees with the truth."""

from __future__ import annotations

import numpy as np
import pytest

from depth_fusion_ros.optics.shape_from_focus import shape_from_focus
from depth_fusion_ros.simulation.sequence import preset_lens
from depth_fusion_ros.simulation.sweep_sequence import SimulatedSweep, simulate_sweeps

SIZE = {"width_px": 96, "height_px": 72, "camera": "robot_16mm"}


def one_sweep(seed: int = 4, **options) -> SimulatedSweep:
    return next(simulate_sweeps(sweeps=1, seed=seed, **{**SIZE, **options}))


@pytest.fixture(scope="module")
def sweep() -> SimulatedSweep:
    return one_sweep(slices=7)


def focus_of(sweep: SimulatedSweep) -> np.ndarray:
    return np.array([item.lens.focus_diopters for item in sweep.slices])


def test_textured_pixels_are_sharpest_where_the_truth_says(sweep):
    focus = focus_of(sweep)[::-1]
    images = np.stack([item.image for item in sweep.slices])[::-1].astype(np.float32) / 255
    measured, _ = shape_from_focus(np.ascontiguousarray(images), focus)
    truth = 1 / sweep.depth_m
    textured = np.isfinite(measured) & (truth > focus[0]) & (truth < focus[-1])
    assert textured.mean() > 0.2
    step = focus[1] - focus[0]
    assert np.median(np.abs(measured - truth)[textured]) < 0.5 * step
    assert np.corrcoef(measured[textured], truth[textured])[0, 1] > 0.7


def test_positions_are_uniform_in_dioptres_from_near_to_far_and_hold_the_scene(sweep):
    focus, truth = focus_of(sweep), 1 / sweep.depth_m
    np.testing.assert_allclose(np.diff(focus), np.diff(focus)[0])
    assert focus[0] > focus[-1] > 0 and len(sweep.slices) == 7
    assert ((truth > focus[-1]) & (truth < focus[0])).mean() > 0.95
    assert np.isfinite(sweep.depth_m).all() and sweep.depth_m.dtype == np.float32


def test_what_is_said_of_every_slice_is_true_of_a_lens_that_does_not_breathe(sweep):
    lens = preset_lens("robot_16mm", 0.0)
    for item in sweep.slices:
        assert item.image.shape == (72, 96, 3) and item.image.dtype == np.uint8
        assert item.intrinsics.fx_px == pytest.approx(lens.focal_length_px)
        assert item.lens.f_number == lens.f_number and item.lens.focal_length_m == 16e-3


def test_same_arguments_same_sweeps_and_each_has_a_scene_of_its_own():
    small = {"width_px": 48, "height_px": 32, "slices": 3}
    first, second = simulate_sweeps(sweeps=2, seed=7, **small)
    alone = next(simulate_sweeps(sweeps=1, seed=9, **small))
    np.testing.assert_array_equal(alone.depth_m, second.depth_m)
    np.testing.assert_array_equal(alone.slices[2].image, second.slices[2].image)
    assert np.abs(first.depth_m - second.depth_m).mean() > 0.05


def test_a_breathing_lens_says_its_focal_length_and_the_truth_follows_it(sweep):
    breathing = one_sweep(slices=7, breathing=True)
    fx0 = preset_lens("robot_16mm", 0.0).focal_length_px
    fx = np.array([item.intrinsics.fx_px for item in breathing.slices])
    np.testing.assert_allclose(fx, fx0 * (1 + 16e-3 * focus_of(breathing)))
    # Exact thin lens, 1/(1 − f·D): the first order is short of it by (f·D)².
    exact = [item.lens.focal_length_px for item in breathing.slices]
    np.testing.assert_allclose(fx, exact, rtol=(16e-3 * focus_of(breathing)[0]) ** 2 * 1.1)
    # A pixel at the edge looks less far out, by the magnification of the newest slice.
    y, x = 36, 90
    scale = fx[-1] / fx0
    source = round((x - 47.5) / scale + 47.5)
    assert breathing.depth_m[y, x] == sweep.depth_m[round((y - 35.5) / scale + 35.5), source]


def test_the_truth_moves_with_the_newest_slice_of_a_camera_that_drifts(sweep):
    # 7 slices 0.1 s apart: the newest is 6 px right of and 3 px above the first.
    drifting = one_sweep(slices=7, drift_px_per_s=(10.0, -5.0))
    still = drifting.depth_m[:-3, 6:]
    assert np.isfinite(still).all()
    assert np.isnan(drifting.depth_m[:, :6]).all() and np.isnan(drifting.depth_m[-3:]).all()
    newest = drifting.slices[-1].image.astype(float)
    # The picture has moved by the same way as the truth: its content is that of the pixels inside.
    # A margin is rendered around it, so that the scene is drawn anew; compare edges with edges.
    depth_edges = np.abs(np.diff(drifting.depth_m, axis=1)) > 0.1
    colour_steps = np.abs(np.diff(newest.mean(2), axis=1))
    here = colour_steps[depth_edges].mean()
    aside = colour_steps[np.roll(depth_edges, 6, axis=1)].mean()
    assert here > 1.3 * aside


@pytest.mark.parametrize(("wrong", "reason"), [
    ({"slices": 2}, "slices = 2"), ({"sweeps": 0}, "sweeps = 0"), ({"camera": "nokia"}, "phone"),
    ({"slice_period_s": 0.001}, "slice_period_s"), ({"width_px": 0}, "width_px=0")])
def test_senseless_arguments_are_refused_with_the_rule(wrong, reason):
    with pytest.raises(ValueError, match=reason):
        next(simulate_sweeps(**{"sweeps": 1, **wrong}))
