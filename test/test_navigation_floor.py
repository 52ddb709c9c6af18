"""What may be floor does not mark."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from cloud_helpers import CAMERA, OPTIONS, points_of
from hypothesis import given
from hypothesis import strategies as st

from depth_fusion_ros.estimation.estimate import Provenance
from depth_fusion_ros.navigation.cloud import clearing_points, obstacle_points
from depth_fusion_ros.navigation.floor import Floor
from depth_fusion_ros.navigation.rays import ray_grid
from depth_fusion_ros.ros.navigation_parameter_rows import level_from_optical

HEIGHT_M = 0.4
FLOOR = Floor(HEIGHT_M)


def floor_read_at(share: float, ratio: float = 0.1) -> tuple[np.ndarray, ...]:
    """Depth, sigma and labels of a floor whose depths are all `share` of the truth."""
    y = np.broadcast_to(ray_grid(CAMERA).y, (CAMERA.height_px, CAMERA.width_px))
    with np.errstate(divide="ignore"):
        depth = np.where(y > 0.05, share * HEIGHT_M / y, np.nan).astype(np.float32)
    return depth, depth * np.float32(ratio), np.full(depth.shape, Provenance.MEASURED, np.uint8)


@given(st.floats(0.84, 1.2))
def test_floor_that_is_read_wrong_by_less_than_two_sigma_does_not_mark(share: float) -> None:
    cloud = obstacle_points(*floor_read_at(share), CAMERA, replace(OPTIONS, floor=FLOOR))
    assert cloud.count == 0


def test_without_a_height_the_same_floor_marks_above_any_cut() -> None:
    points = points_of(obstacle_points(*floor_read_at(0.75), CAMERA, OPTIONS))
    assert (HEIGHT_M - points[:, 1] > 0.08).all()


@given(st.floats(0.1, 0.35), st.floats(0.2, 3.0), st.floats(0.0, 0.15))
def test_a_thing_marks_as_soon_as_its_depth_is_sure_enough(top_m: float, distance_m: float,
                                                            ratio: float) -> None:
    points = np.array([[0.0], [HEIGHT_M - top_m], [distance_m]], np.float32)
    sigma = np.array([ratio * distance_m], np.float32)
    lowest_m = HEIGHT_M - (HEIGHT_M - top_m) * (1 + 2 * ratio)
    if abs(lowest_m - 0.08) > 1e-5:
        assert FLOOR.may_have(points, sigma)[0] == (lowest_m < 0.08)


def test_what_is_higher_than_the_camera_is_never_floor() -> None:
    points = np.array([[0.0], [-0.1], [2.0]], np.float32)
    assert not FLOOR.may_have(points, np.array([5.0], np.float32))[0]


@given(st.floats(-0.6, 0.6), st.floats(-0.4, 0.4), st.floats(-1.0, 1.0))
def test_a_tilted_camera_knows_where_down_is(pitch: float, roll: float, left_m: float) -> None:
    rotation = level_from_optical({"scan.pitch_rad": pitch, "scan.roll_rad": roll})
    floor = Floor(HEIGHT_M, tuple(rotation[2]), sigmas=0.0)
    low, high = (rotation.T @ [1.5, left_m, z - HEIGHT_M] for z in (0.07, 0.09))
    points = np.array([low, high], np.float32).T
    assert floor.may_have(points, np.zeros(2, np.float32)).tolist() == [True, False]


def test_floor_clears_all_the_same() -> None:
    frame = floor_read_at(1.0)
    assert clearing_points(*frame, CAMERA, replace(OPTIONS, floor=FLOOR)).count == (
        clearing_points(*frame, CAMERA, OPTIONS).count) > 0


@pytest.mark.parametrize(("values", "words"), [
    ({"camera_height_m": -0.1}, "floor.camera_height_m = -0.1"),
    ({"camera_height_m": math.nan}, "floor.camera_height_m = nan"),
    ({"cut_m": -1.0}, "floor.cut_m = -1.0"),
    ({"sigmas": math.inf}, "floor.sigmas = inf"),
    ({"up": (0.0, 0.0, 0.0)}, "unit vector"),
])
def test_a_floor_that_cannot_be_is_refused(values: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Floor(**values)
