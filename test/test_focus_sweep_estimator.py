"""The focus-sweep estimator: metres, σ, provenance, breathing, motion, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from wall_sweeps import FOCUS, HEIGHT, WIDTH, grid, stack, sweep, truth_m

from depth_fusion_ros.estimation.dual_pixel import InvalidFrameError
from depth_fusion_ros.estimation.estimate import DepthEstimate, Provenance, ScaleState
from depth_fusion_ros.estimation.focus_sweep import (
    FocusSweepEstimator,
    FocusSweepOptions,
    SweepFrame,
)
from depth_fusion_ros.estimation.model_card import ModelError
from depth_fusion_ros.estimation.scale_anchor import AnchorFit
from depth_fusion_ros.estimation.sweep_backends import (
    ClosedFormSweepBackend,
    SweepInput,
    SweepPrediction,
    load_sweep_backend,
)
from depth_fusion_ros.optics.thin_lens import breathing_scale

AWAY = (slice(8, -8), [*range(8, WIDTH // 2 - 12), *range(WIDTH // 2 + 12, WIDTH - 8)])
"""Pixels off the depth jump and the border, where a window sees one wall."""


def estimator(**options: object) -> FocusSweepEstimator:
    return FocusSweepEstimator(ClosedFormSweepBackend(), FocusSweepOptions(**options))


def abs_rel(estimate: DepthEstimate, truth: NDArray[np.float32] | None = None) -> float:
    truth = truth_m() if truth is None else truth
    depth = estimate.depth_m[AWAY]
    assert np.isfinite(depth).mean() > 0.9
    return float(np.nanmean(np.abs(depth - truth[AWAY]) / truth[AWAY]))


def test_two_textured_walls_come_out_at_their_distances_with_an_honest_sigma() -> None:
    estimate = estimator().estimate(SweepFrame(sweep(stack())))
    assert abs_rel(estimate) < 0.05
    error = np.abs(estimate.depth_m - truth_m())[AWAY]
    assert np.nanmean(error < 2 * estimate.sigma_m[AWAY]) > 0.8
    assert (estimate.provenance[AWAY] == Provenance.MEASURED).mean() > 0.9
    assert estimate.scale_state == ScaleState.ABSOLUTE
    facts = estimate.sweep
    assert facts is not None and facts.slices == len(FOCUS)
    assert facts.coverage_diopters == pytest.approx(2.0)
    assert facts.largest_gap_diopters == pytest.approx(0.4)
    assert facts.motion_px < 0.5 and not facts.rejected


def test_depth_has_stamp_frame_and_grid_of_the_newest_slice() -> None:
    for falling in (False, True):
        made = sweep(stack(), falling=falling)
        estimate = estimator().estimate(SweepFrame(made))
        assert estimate.stamp_ns == made.last_stamp_ns
        assert estimate.frame_id == "camera_rgb_optical_frame"
        assert estimate.depth_m.shape == (HEIGHT, WIDTH)
        assert estimate.intrinsics == grid()


def test_a_blank_wall_in_half_the_view_is_labelled_and_its_sigma_is_wide() -> None:
    estimate = estimator(max_sigma_ratio=10.0).estimate(SweepFrame(sweep(stack(blank_right=True))))
    right = (slice(8, -8), slice(WIDTH // 2 + 16, WIDTH - 8))
    left = (slice(8, -8), slice(8, WIDTH // 2 - 12))
    honest = (Provenance.TEXTURELESS, Provenance.NONE, Provenance.PRIOR_ONLY)
    assert np.isin(estimate.provenance[right], honest).mean() > 0.95
    assert (estimate.provenance[left] == Provenance.MEASURED).mean() > 0.95
    assert np.nanmedian(estimate.sigma_px[right]) > 3 * np.nanmedian(estimate.sigma_px[left])


def test_a_wall_beyond_the_sweep_is_labelled_as_outside_it() -> None:
    estimate = estimator(max_sigma_ratio=10.0).estimate(
        SweepFrame(sweep(stack(right_m=6.0))))
    right = (slice(8, -8), slice(WIDTH // 2 + 12, WIDTH - 8))
    assert (estimate.provenance[right] == Provenance.OUT_OF_RANGE).mean() > 0.9


def test_ranges_follow_rep_117() -> None:
    frame = SweepFrame(sweep(stack()))
    near = estimator(min_depth_m=0.8).estimate(frame)
    assert (near.depth_m[8:-8, 8:WIDTH // 2 - 12] == -np.inf).mean() > 0.95
    far = estimator(max_depth_m=0.8).estimate(frame)
    assert (far.depth_m[8:-8, WIDTH // 2 + 12:-8] == np.inf).mean() > 0.95
    assert np.isnan(far.sigma_m[np.isinf(far.depth_m)]).all()


def test_without_a_calibrated_lens_no_metre_is_said() -> None:
    estimate = estimator().estimate(SweepFrame(sweep(stack()), ScaleState.RELATIVE))
    assert np.isnan(estimate.depth_m).all() and np.isnan(estimate.sigma_m).all()
    relative = estimate.relative_inverse_depth()[AWAY]
    assert float(np.corrcoef(relative.ravel(), (1 / truth_m())[AWAY].ravel())[0, 1]) > 0.95


def test_an_uncertain_focus_widens_sigma() -> None:
    made = sweep(stack())
    sure = estimator().estimate(SweepFrame(made)).sigma_m
    unsure = estimator().estimate(SweepFrame(made, focus_sigma_diopters=0.1)).sigma_m
    wider = np.sqrt(sure**2 + (0.1 * truth_m() ** 2) ** 2)[AWAY]
    assert np.nanmedian(unsure[AWAY] / wider) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("breathing", [0.0, 0.03])
def test_at_half_resolution_metres_labels_and_grid_stay(breathing: float) -> None:
    images = [magnified(image, float(breathing_scale(position, FOCUS[0], breathing)))
              for image, position in zip(stack(blank_right=True), FOCUS)] if breathing else stack(
                  blank_right=True)
    frame = SweepFrame(sweep(images))
    whole, half = (estimator(breathing_per_diopter=breathing, inference_divisor=divisor)
                   .estimate(frame) for divisor in (1, 2))
    assert half.depth_m.shape == whole.depth_m.shape and half.intrinsics == whole.intrinsics
    left = (slice(8, -8), slice(10, WIDTH // 2 - 14))
    ratio = half.depth_m[left] / truth_m()[left]
    assert np.nanmedian(np.abs(ratio - 1)) < 0.06 and np.isfinite(ratio).mean() > 0.9
    assert (half.provenance[left] == Provenance.MEASURED).mean() > 0.9
    right = (slice(8, -8), slice(WIDTH // 2 + 20, WIDTH - 8))
    assert (half.provenance[right] == Provenance.MEASURED).mean() < 0.05


@pytest.mark.parametrize("state", [ScaleState.NOMINAL, ScaleState.RELATIVE])
def test_an_anchor_turns_the_dioptres_of_a_wrong_lens_into_the_true_metres(
        state: ScaleState) -> None:
    said = tuple(0.8 * position + 0.3 for position in FOCUS)  # what the lens reports
    anchor = AnchorFit(1 / 0.8, -0.3 / 0.8, 0.01, observations=8, fixes_scale=True)
    made = sweep(stack(), said)
    wrong = estimator().estimate(SweepFrame(made, ScaleState.NOMINAL))
    # 1/0.5 and 1/1.25 m are said to be 1.9 and 0.94 dioptres: 5.3 and 14.9 % off.
    assert abs_rel(wrong) == pytest.approx((0.053 + 0.149) / 2, abs=0.01)
    estimate = estimator().estimate(SweepFrame(made, state, anchor=anchor))
    assert abs_rel(estimate) < 0.05 and estimate.scale_state is ScaleState.ANCHORED
    assert np.array_equal(estimate.lens_diopters, wrong.lens_diopters), "as before any anchor"
    unsure = replace(anchor, sigma_diopters=0.1)
    wider = estimator().estimate(SweepFrame(made, state, anchor=unsure)).sigma_m
    expected = np.sqrt(estimate.sigma_m**2 + (0.1 * truth_m() ** 2) ** 2)
    assert np.nanmedian((wider / expected)[AWAY]) == pytest.approx(1, abs=0.05)


def magnified(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    x, y = (WIDTH - 1) / 2 * (1 - scale), (HEIGHT - 1) / 2 * (1 - scale)
    return np.asarray(cv2.warpAffine(image, np.array([[scale, 0, x], [0, scale, y]]),
                                     (WIDTH, HEIGHT), flags=cv2.INTER_LANCZOS4,
                                     borderMode=cv2.BORDER_REFLECT), np.uint8)


@pytest.mark.parametrize("told", ["beta", "camera_info"])
def test_breathing_of_four_percent_per_dioptre_costs_little_once_it_is_known(told: str) -> None:
    beta = 0.04
    scales = [breathing_scale(d, 0.0, beta) for d in FOCUS]
    images = [magnified(image, scale) for image, scale in zip(stack(), scales)]
    if told == "beta":
        estimate = estimator(breathing_per_diopter=beta).estimate(SweepFrame(sweep(images)))
    else:
        made = sweep(images, fx_px=tuple(120.0 * scale for scale in scales))
        estimate = estimator().estimate(SweepFrame(made))
    assert estimate.intrinsics.fx_px == pytest.approx(120.0 * scales[0], rel=1e-6)
    assert abs_rel(estimate) < 0.006  # measured in interpolated slices: 0.015


def drifted(step_px: int) -> list[NDArray[np.uint8]]:
    wide = [cv2.copyMakeBorder(i, 0, 0, 120, 120, cv2.BORDER_REFLECT) for i in stack()]
    last = len(wide) - 1
    return [image[:, 120 + step_px * (n - last):120 + step_px * (n - last) + WIDTH]
            for n, image in enumerate(wide)]


def test_a_drift_of_a_pixel_a_slice_is_undone() -> None:
    estimate = estimator().estimate(SweepFrame(sweep(drifted(1))))
    assert estimate.sweep is not None and estimate.sweep.motion_px == pytest.approx(5, abs=0.7)
    assert "aligned" in estimate.sweep.reason
    still = estimator().estimate(SweepFrame(sweep(stack())))
    assert abs_rel(estimate) < 1.15 * abs_rel(still) < 0.004


def test_a_drift_of_fifteen_pixels_a_slice_is_rejected_and_says_so() -> None:
    estimate = estimator().estimate(SweepFrame(sweep(drifted(15))))
    assert np.isnan(estimate.depth_m).all()
    assert (estimate.provenance == Provenance.MOTION_REJECTED).all()
    assert estimate.sweep is not None and estimate.sweep.rejected
    assert "motion.reject_px" in estimate.sweep.reason


def test_a_still_camera_needs_no_search_for_drift() -> None:
    estimate = estimator(align=False).estimate(SweepFrame(sweep(stack())))
    assert estimate.sweep is not None and np.isnan(estimate.sweep.motion_px)
    assert abs_rel(estimate) < 0.05


@pytest.mark.parametrize("cause", ["too_few_slices", "constant_image", "no_camera_info",
                                   "size_mismatch", "too_small"])
def test_sweeps_that_hold_nothing_are_refused_by_name(cause: str) -> None:
    images, made = stack(), sweep(stack())
    slices = made.slices
    if cause == "too_few_slices":
        made = replace(made, slices=slices[:2])
    elif cause == "constant_image":
        made = sweep([np.full_like(image, 7) for image in images])
    elif cause == "no_camera_info":
        blind = replace(slices[1], image=replace(slices[1].image, intrinsics=None))
        made = replace(made, slices=(slices[0], blind, *slices[2:]))
    elif cause == "size_mismatch":
        cut = replace(slices[1], image=replace(slices[1].image, image=images[1][:-2]))
        made = replace(made, slices=(slices[0], cut, *slices[2:]))
    else:
        made = sweep([image[:16, :16] for image in images])
    with pytest.raises(InvalidFrameError) as refused:
        estimator().estimate(SweepFrame(made))
    assert refused.value.cause == cause


class PriorBackend(ClosedFormSweepBackend):
    """Says one depth everywhere, as a fusion whose prior fills what is blank."""

    has_prior = True

    def infer(self, inputs: SweepInput) -> SweepPrediction:
        found = super().infer(inputs)
        return replace(found, diopters=np.full_like(found.diopters, 1.0))


def test_with_a_prior_what_focus_cannot_tell_is_labelled_prior_only() -> None:
    fused = FocusSweepEstimator(PriorBackend()).estimate(
        SweepFrame(sweep(stack(blank_right=True))))
    labels = fused.provenance
    seen = np.isfinite(fused.depth_m)
    assert (labels[:, :WIDTH // 2 - 12][seen[:, :WIDTH // 2 - 12]] == Provenance.FUSED).mean() > 0.9
    right = labels[8:-8, WIDTH // 2 + 16:-8]
    assert np.isin(right, (Provenance.PRIOR_ONLY, Provenance.NONE)).mean() > 0.95


def test_dual_pixel_weights_are_refused_with_the_remedy() -> None:
    with pytest.raises(ModelError, match="family sweep_depth"):
        load_sweep_backend("difuse_net_s")


def test_warm_up_runs_the_engine() -> None:
    torch.manual_seed(0)
    calls: list[int] = []

    class Counting(ClosedFormSweepBackend):
        def infer(self, inputs: SweepInput) -> SweepPrediction:
            calls.append(len(inputs.stack))
            return super().infer(inputs)

    FocusSweepEstimator(Counting()).warm_up(64, 48, 4, 2)
    assert calls == [4, 4]
