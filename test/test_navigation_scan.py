"""A scan for Nav2: the nearest sure obstacle per direction, and no freedom that was not seen."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import Provenance
from depth_fusion_ros.navigation.scan import LEVEL_FROM_OPTICAL, Scan, ScanOptions, level_scan
from depth_fusion_ros.optics.intrinsics import Intrinsics

CAMERA = Intrinsics(90.0, 90.0, 39.5, 29.5, 80, 60)
OPTIONS = ScanOptions(min_height_m=0.1, max_height_m=1.5, camera_height_m=0.5, range_max_m=5.0,
                      angle_increment_rad=math.radians(2.0))
Frame = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]


def turned(pitch_rad: float = 0.0, yaw_rad: float = 0.0, roll_rad: float = 0.0) -> NDArray:
    """Rotation to the level of a camera turned left, then pitched down, then rolled."""
    cp, sp = math.cos(pitch_rad), math.sin(pitch_rad)
    cy, sy, cr, sr = math.cos(yaw_rad), math.sin(yaw_rad), math.cos(roll_rad), math.sin(roll_rad)
    yaw = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    pitch = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    roll = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    return yaw @ pitch @ roll @ LEVEL_FROM_OPTICAL


def rays_of(rotation: NDArray) -> NDArray[np.float64]:
    """(H, W, 3) rays of depth 1 in the levelled frame."""
    x = (np.arange(CAMERA.width_px) - CAMERA.cx_px) / CAMERA.fx_px
    y = (np.arange(CAMERA.height_px)[:, None] - CAMERA.cy_px) / CAMERA.fy_px
    rays = np.stack(np.broadcast_arrays(x, y, 1.0), axis=-1)
    return rays @ np.asarray(rotation).T


def measured(depth: NDArray, ratio: float = 0.01) -> Frame:
    depth = np.asarray(depth, np.float32)
    sigma = np.where(np.isfinite(depth), depth * np.float32(ratio), np.float32(np.nan))
    labels = np.full(depth.shape, Provenance.MEASURED, np.uint8)
    labels[np.isinf(depth)], labels[np.isnan(depth)] = Provenance.OUT_OF_RANGE, Provenance.NONE
    return depth, sigma, labels


def room(rotation: NDArray, wall_m: float, height_m: float = 0.5) -> Frame:
    """A wall straight ahead and a floor, seen from `height_m`."""
    rays = rays_of(rotation)
    with np.errstate(divide="ignore"):
        wall = np.where(rays[..., 0] > 0, wall_m / rays[..., 0], np.inf)
        floor = np.where(rays[..., 2] < 0, -height_m / rays[..., 2], np.inf)
    return measured(np.minimum(wall, floor))


def wall(depth_m: float) -> Frame:
    return measured(np.full((CAMERA.height_px, CAMERA.width_px), depth_m))


def scan_of(frame: Frame, options: ScanOptions = OPTIONS, rotation: NDArray | None = None) -> Scan:
    scan = level_scan(*frame, CAMERA, LEVEL_FROM_OPTICAL if rotation is None else rotation,
                      options)
    ranges = scan.ranges_m
    assert ranges.dtype == np.float32
    assert scan.angle_max_rad == pytest.approx(
        scan.angle_min_rad + (len(ranges) - 1) * scan.angle_increment_rad)
    finite = ranges[np.isfinite(ranges)]
    assert ((finite >= scan.range_min_m) & (finite <= scan.range_max_m)).all(), "and so never 0"
    return scan


def angles_of(scan: Scan) -> NDArray[np.float64]:
    return scan.angle_min_rad + np.arange(len(scan.ranges_m)) * scan.angle_increment_rad


@given(st.floats(-0.3, 0.6), st.floats(-0.4, 0.4), st.floats(-3.1, 3.1), st.floats(1.0, 4.0))
@settings(max_examples=60, deadline=None)
def test_a_wall_has_its_planar_range_however_the_camera_is_turned(pitch, roll, yaw, wall_m):
    rotation = turned(pitch, 0.0, roll)
    frame = room(rotation, wall_m)
    scan = scan_of(frame, rotation=rotation)
    known = np.isfinite(scan.ranges_m)
    half = scan.angle_increment_rad / 2
    angles = np.abs(angles_of(scan)[known])
    least, most = np.maximum(angles - half, 0), angles + half
    assert (scan.ranges_m[known] >= wall_m / np.cos(least) * 0.999).all()
    assert (scan.ranges_m[known] <= np.minimum(wall_m / np.cos(most), 5.0) * 1.001).all()
    # A frame that is turned about the vertical sees the same, shifted.
    around = replace(OPTIONS, angle_min_rad=-math.pi)
    there = scan_of(frame, around, turned(pitch, yaw, roll)).ranges_m
    assert np.count_nonzero(np.isfinite(there)) == pytest.approx(np.count_nonzero(known), abs=2)


def test_the_image_sets_the_angles_unless_they_are_given():
    scan = scan_of(wall(2.0))
    edge = math.atan(40 / 90)
    assert scan.angle_min_rad - math.radians(1) == pytest.approx(-edge)
    assert edge <= scan.angle_max_rad + math.radians(1) < edge + math.radians(2)
    assert np.isfinite(scan.ranges_m).all(), "no bin without a ray"
    given_ = replace(OPTIONS, angle_min_rad=-1.0, angle_max_rad=1.0)
    first, second = (scan_of(wall(2.0), given_, turned(pitch)) for pitch in (0.0, 0.3))
    assert len(first.ranges_m) == len(second.ranges_m) == 58
    assert first.angle_min_rad == -1.0 and first.angle_max_rad <= 1.0
    assert np.isnan(first.ranges_m[[0, -1]]).all(), "nothing is known beside the image"


def test_left_is_positive_and_a_pole_of_one_pixel_is_found():
    depth, sigma, labels = wall(4.0)
    depth[20:25, 10], sigma[20:25, 10] = 1.0, 0.01
    scan = scan_of((depth, sigma, labels))
    nearest = int(np.argmin(scan.ranges_m))
    assert scan.ranges_m[nearest] == pytest.approx(math.hypot(1, (39.5 - 10) / 90))
    assert angles_of(scan)[nearest] == pytest.approx(math.atan((39.5 - 10) / 90), abs=0.018)
    assert np.count_nonzero(scan.ranges_m < 3) == 1


@pytest.mark.parametrize(("rows", "wider"), [
    (slice(50, 60), {"min_height_m": -0.2}), (slice(0, 5), {"max_height_m": 1.2})])
def test_heights_outside_the_band_are_no_obstacles(rows: slice, wider: dict[str, float]):
    """2 m away, the lower ten rows are 0.04 m high and less, the upper five 1.07 m and more."""
    depth, sigma, labels = wall(4.0)
    depth[rows], sigma[rows] = 2.0, 0.02
    band = replace(OPTIONS, max_height_m=1.0)
    assert (scan_of((depth, sigma, labels), band).ranges_m > 3.9).all()
    assert (scan_of((depth, sigma, labels), replace(band, **wider)).ranges_m < 2.3).all()


def test_floor_is_free_and_so_is_what_was_seen_beyond_the_range():
    open_hall = room(LEVEL_FROM_OPTICAL, wall_m=20.0)
    assert np.isposinf(scan_of(open_hall).ranges_m).all()
    depth, sigma, labels = room(LEVEL_FROM_OPTICAL, wall_m=np.inf)
    assert np.isposinf(depth).any()
    assert np.isposinf(scan_of((depth, sigma, labels)).ranges_m).all()


@pytest.mark.parametrize("spoil", ["nan", "unsure", "wide", "prior infinity"])
def test_one_unknown_ray_is_enough_for_nan(spoil: str):
    depth, sigma, labels = room(LEVEL_FROM_OPTICAL, wall_m=20.0)
    at = 25, 40
    if spoil == "nan":
        depth[at], sigma[at], labels[at] = np.nan, np.nan, Provenance.NONE
    elif spoil == "unsure":
        labels[at] = Provenance.TEXTURELESS
    elif spoil == "wide":
        sigma[at] = 10.0
    else:
        depth[at], sigma[at], labels[at] = np.inf, np.nan, Provenance.PRIOR_ONLY
    ranges = scan_of((depth, sigma, labels)).ranges_m
    assert np.count_nonzero(np.isnan(ranges)) == 1
    assert np.count_nonzero(np.isposinf(ranges)) == len(ranges) - 1


def test_what_hides_the_band_from_below_is_no_freedom():
    """The camera is under the band: a low box hides the part of it behind."""
    options = replace(OPTIONS, min_height_m=0.8, max_height_m=1.2)
    depth, sigma, labels = wall(20.0)
    assert np.isposinf(scan_of((depth, sigma, labels), options).ranges_m).all()
    depth[:10], sigma[:10] = 0.5, 0.005
    assert np.isnan(scan_of((depth, sigma, labels), options).ranges_m).all()


def test_too_near_is_minus_infinity_only_where_it_may_be_in_the_band():
    depth, sigma, labels = wall(2.0)
    depth[:, 20], labels[:, 20] = -np.inf, Provenance.OUT_OF_RANGE
    ranges = scan_of((depth, sigma, labels)).ranges_m
    assert np.count_nonzero(np.isneginf(ranges)) == 1
    above = replace(OPTIONS, min_height_m=0.8)  # 0.3 m over the camera: no ray is there so soon
    assert not np.isneginf(scan_of((depth, sigma, labels), above).ranges_m).any()
    near = scan_of(wall(0.4), replace(OPTIONS, range_min_m=0.5)).ranges_m
    assert np.isneginf(near).all(), "nearer than the scan may say"


@pytest.mark.parametrize("label", [label for label in Provenance if label not in (1, 2)])
def test_unsure_points_say_nothing(label: Provenance):
    depth, sigma, labels = wall(2.0)
    labels[...] = label
    assert np.isnan(scan_of((depth, sigma, labels)).ranges_m).all()


@given(st.integers(0, 2**32), st.floats(-1.5, 1.5), st.floats(-3.1, 3.1))
@example(282, 1.0495208875504796, 2.6640625)  # the one near point is on the edge of the band
@settings(max_examples=60, deadline=None)
def test_each_range_is_that_of_a_sure_point_of_the_band_in_its_bin(seed, pitch, yaw):
    random = np.random.default_rng(seed)
    shape = CAMERA.height_px, CAMERA.width_px
    depth, sigma, labels = measured(random.uniform(0.2, 9.0, shape))
    labels[...] = random.choice([1, 2, 3, 5], shape)
    depth[random.random(shape) < 0.2] = np.nan
    rotation = turned(pitch, yaw)
    scan = scan_of((depth, sigma, labels), rotation=rotation)
    points = rays_of(rotation) * depth[..., None]
    planar, height = np.hypot(points[..., 0], points[..., 1]), points[..., 2] + 0.5
    edges = np.abs(np.stack([height - 0.1, height - 1.5, planar - 5.0])).min(0) < 1e-4
    good = (labels <= 2) & (height >= 0.1) & (height <= 1.5) & (planar <= 5.0) & ~edges
    bins = np.floor((np.arctan2(points[..., 1], points[..., 0]) - scan.angle_min_rad)
                    / scan.angle_increment_rad + 0.5)
    for number, found in enumerate(scan.ranges_m):
        inside = planar[good & (bins == number)]
        if np.isfinite(found):
            assert found <= inside.min(initial=np.inf) * 1.0001
            assert np.isclose(planar[(labels <= 2) & (bins == number)], found, rtol=1e-4).any()
        elif np.isneginf(found):
            assert (planar[(labels <= 2) & (bins == number)] < 0.1501).any()
        else:
            assert inside.size == 0


def test_a_frame_without_depth_gives_nan():
    assert np.isnan(scan_of(wall(np.nan)).ranges_m).all()


@pytest.mark.parametrize(("change", "told"), [
    ({"max_height_m": 0.1}, "scan.max_height_m = 0.1: must be finite and above scan.min_height_m"),
    ({"camera_height_m": math.nan}, "scan.camera_height_m = nan: must be finite"),
    ({"range_min_m": 0.0}, "scan.range_min_m = 0.0: must be finite and > 0"),
    ({"range_max_m": 0.1}, "scan.range_max_m = 0.1: must be above scan.range_min_m"),
    ({"min_m": -1.0}, "depth.min_m = -1.0: must be finite and > 0; set depth.min_m"),
    ({"angle_min_rad": 4.0}, "scan.angle_min_rad = 4.0: must be from -pi to pi"),
    ({"angle_min_rad": 0.5, "angle_max_rad": 0.4}, "scan.angle_max_rad = 0.4: must be from"),
    ({"angle_increment_rad": 0.0}, "scan.angle_increment_rad = 0.0: must be from 0.0001"),
    ({"max_sigma_ratio": 2.0}, "scan.max_sigma_ratio = 2.0: must be above 0 and at most 1"),
])
def test_options_out_of_range_are_refused_with_name_value_rule_and_remedy(change, told: str):
    with pytest.raises(ValueError) as refused:
        replace(OPTIONS, **change)
    assert told in str(refused.value) and "; set " in str(refused.value)


@pytest.mark.parametrize("matrix", [np.eye(4), 2 * np.eye(3), -LEVEL_FROM_OPTICAL])
def test_what_is_no_rotation_is_refused(matrix: NDArray):
    with pytest.raises(ValueError, match="must be a 3x3 rotation; take it from TF"):
        level_scan(*wall(2.0), CAMERA, matrix, OPTIONS)


def test_images_that_do_not_fit_their_camera_are_refused():
    with pytest.raises(ValueError, match=r"depth_m = image of shape \(60, 80\): must be 120 rows"):
        level_scan(*wall(2.0), CAMERA.resized(160, 120), LEVEL_FROM_OPTICAL, OPTIONS)
