"""Views that contradict a disparity: seen where it is wrong, silent where it is right."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from depth_fusion_ros.estimation.dual_pixel import (
    DualPixelEstimator,
    DualPixelFrame,
    DualPixelOptions,
)
from depth_fusion_ros.estimation.estimate import Provenance
from depth_fusion_ros.estimation.view_agreement import (
    DISAGREE_PX,
    contradicted,
    disagreement_px,
)

HEIGHT, WIDTH = 96, 128
INNER = (slice(12, -12), slice(12, -12))
REMAP_PX = 2 / 32
"""cv2.remap rounds to 1/32 px: here the views that are drawn, there those that are brought back."""


def wall(disparity_px: float, seed: int = 0, noise: float = 0.0) -> tuple[NDArray, NDArray]:
    """Views of a textured wall, square root of linear light, apart by a disparity."""
    random = np.random.default_rng(seed)
    fine = cv2.GaussianBlur(random.random((HEIGHT, WIDTH + 64)).astype(np.float32), (0, 0), 1.2)
    texture = np.clip(0.5 + 2.0 * (fine - 0.5), 0.02, 1)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    views = [cv2.remap(texture, columns + 32 + shift, rows, cv2.INTER_CUBIC)
             for shift in (disparity_px / 2, -disparity_px / 2)]
    return tuple(np.sqrt(np.clip(view, 0, 1)).astype(np.float32)
                 + noise * random.standard_normal(view.shape).astype(np.float32)
                 for view in views)


@settings(max_examples=40, deadline=None)
@given(st.floats(-4, 4), st.integers(0, 99), st.floats(-0.6, 0.6))
@example(0.03125, 0, 0.0625)
def test_what_is_off_is_measured_where_there_is_texture(
        true_px: float, seed: int, error_px: float) -> None:
    said = np.full((HEIGHT, WIDTH), true_px + error_px, np.float32)
    off_px = float(np.median(disagreement_px(*wall(true_px, seed), said)[INNER]))
    # One step of Lucas and Kanade overshoots on fine texture.
    least, most = abs(error_px) - REMAP_PX, abs(error_px) + REMAP_PX
    assert 0.8 * least - 0.05 <= off_px <= 1.7 * most + 0.05


def test_shading_gain_and_noise_are_no_disagreement() -> None:
    left, right = wall(1.5, noise=0.004)
    ramp = np.linspace(0.8, 1.2, WIDTH, dtype=np.float32)
    said = np.full((HEIGHT, WIDTH), 1.5, np.float32)
    off_px = disagreement_px(left * ramp, right * ramp[::-1], said)[INNER]
    assert (off_px > DISAGREE_PX).mean() < 0.01


def test_a_blank_wall_contradicts_nothing_and_unknown_disparities_are_left_alone() -> None:
    blank = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    assert not disagreement_px(blank, blank, np.full_like(blank, 3.0)).any()
    left, right = wall(2.0)
    assert not disagreement_px(left, right, np.full_like(left, np.nan)).any()


def test_a_disagreement_counts_where_it_changes_depth() -> None:
    off_px = np.array([[0.2, 0.5, 0.5, 0.5, 0.5]], np.float32)
    depth = np.array([[9.0, 0.5, 4.0, np.inf, np.nan]], np.float32)
    assert contradicted(off_px, depth, 10.0).tolist() == [[False, False, True, True, True]]


def test_a_guess_against_the_views_is_labelled_as_one(frame: DualPixelFrame) -> None:
    lens = frame.lens
    assert lens is not None

    class Guess:
        """A network that says 2 m of the left half of a wall at 1 m."""

        model_id, device_name, backend_name, input_multiple_px, card = "guess", "", "", 8, None

        def infer(self, inputs: object) -> tuple[NDArray, NDArray]:
            said = np.full((HEIGHT, WIDTH), lens.disparity_px(np.float64(1.0)), np.float32)
            said[:, :WIDTH // 2] = lens.disparity_px(np.float64(3.0))
            return said, np.full_like(said, 0.01)

    views = [view**2 for view in wall(float(lens.disparity_px(np.float64(1.0))))]
    made = replace(frame, left=views[0], right=views[1], rgb=None,
                   intrinsics=frame.intrinsics.resized(WIDTH, HEIGHT))
    estimate = DualPixelEstimator(Guess(), DualPixelOptions(edge_filter_px=0)).estimate(made)
    labels = estimate.provenance[INNER]
    middle = WIDTH // 2 - 12
    assert (labels[:, :middle - 12] == Provenance.PRIOR_ONLY).mean() > 0.9
    assert (labels[:, middle + 12:] == Provenance.MEASURED).mean() > 0.95
    assert np.isfinite(estimate.depth_m).all(), "it stays a depth, for who wants guesses"
