"""What is known of true depth: topics of another grid, planes, and LiDAR points through tf."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bag_scenes import write_small_bag
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from depth_fusion_ros.bags.find import bag_sha256, find_bags
from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.transforms import BagTransforms
from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.optics.intrinsics import Intrinsics
from depth_fusion_ros.ros.environment import ros_problem

needs_ros = pytest.mark.skipif(ros_problem() is not None, reason=str(ros_problem()))
GRID = Intrinsics(40.0, 40.0, 15.5, 11.5, 32, 24)


def transform(parent: str, child: str, position=(0, 0, 0), rotation: Rotation | None = None,
              stamp_s: int = 0) -> SimpleNamespace:
    x, y, z, w = (rotation or Rotation.identity()).as_quat()
    return SimpleNamespace(
        header=SimpleNamespace(frame_id=parent, stamp=SimpleNamespace(sec=stamp_s, nanosec=0)),
        child_frame_id=child, transform=SimpleNamespace(
            translation=SimpleNamespace(**dict(zip("xyz", map(float, position)))),
            rotation=SimpleNamespace(x=x, y=y, z=z, w=w)))


def pose(position, rotation: Rotation) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation.as_matrix(), position
    return matrix


vectors = st.tuples(*[st.floats(-5, 5)] * 3)
turns = st.tuples(*[st.floats(-3, 3)] * 3).map(Rotation.from_rotvec)


@given(vectors, turns, vectors, turns, vectors, turns)
@settings(max_examples=40, deadline=None)
def test_transforms_chain_up_and_down_the_tree(p1, r1, p2, r2, p3, r3) -> None:
    tree = BagTransforms()
    for parent, child, p, r in (("base", "mast", p1, r1), ("mast", "camera", p2, r2),
                                ("base", "lidar", p3, r3)):
        tree.add(transform(parent, child, p, r), static=True)
    expected = np.linalg.inv(pose(p1, r1) @ pose(p2, r2)) @ pose(p3, r3)
    np.testing.assert_allclose(tree.matrix("camera", "lidar", 5), expected, atol=1e-9)
    np.testing.assert_allclose(tree.matrix("lidar", "camera", 5), np.linalg.inv(expected),
                               atol=1e-9)
    np.testing.assert_allclose(tree.matrix("camera", "base", 5),
                               np.linalg.inv(pose(p1, r1) @ pose(p2, r2)), atol=1e-9)
    np.testing.assert_allclose(tree.matrix("base", "camera", 5), pose(p1, r1) @ pose(p2, r2),
                               atol=1e-9)
    np.testing.assert_array_equal(tree.matrix("camera", "camera", 5), np.eye(4))


def test_moving_frames_are_interpolated_between_their_stamps() -> None:
    tree = BagTransforms()
    for second, angle in ((10, 0.0), (12, 1.0)):
        tree.add(transform("map", "base", (second, 0, 0), Rotation.from_rotvec([0, 0, angle]),
                           second), static=False)
    half = tree.matrix("map", "base", 11_000_000_000)
    np.testing.assert_allclose(half, pose((11, 0, 0), Rotation.from_rotvec([0, 0, 0.5])),
                               atol=1e-12)
    with pytest.raises(BagError, match=r"map → base: is recorded from .* outside"):
        tree.matrix("map", "base", 20_000_000_000)


def test_a_missing_chain_is_named_with_what_there_is() -> None:
    tree = BagTransforms()
    tree.add(transform("base", "camera"), static=True)
    with pytest.raises(BagError, match=r"nothing leads from lidar to camera, only base, camera"):
        tree.matrix("camera", "lidar", 0)


def test_bags_are_found_in_folders_by_their_place(tmp_path: Path) -> None:
    write_small_bag(tmp_path / "all" / "day" / "one", frames=1)
    write_small_bag(tmp_path / "all" / "two", frames=1, storage="sqlite3")
    found = find_bags([tmp_path / "all"])
    assert list(found) == ["day/one", "two"]
    assert list(find_bags([tmp_path / "all" / "two"])) == ["two"]
    assert bag_sha256(found["two"]) != bag_sha256(found["day/one"])
    (tmp_path / "empty").mkdir()
    for root, rule in ((tmp_path / "empty", "without bags"), (tmp_path / "no", "does not exist")):
        with pytest.raises(BagError, match=rule):
            find_bags([root])
    with pytest.raises(BagError, match="same name"):
        find_bags([tmp_path / "all", tmp_path / "all" / "day", tmp_path / "all" / "two",
                   _copy(tmp_path / "all" / "two", tmp_path / "other" / "two")])


def _copy(source: Path, target: Path) -> Path:
    import shutil

    shutil.copytree(source, target)
    return target


@needs_ros
@given(st.floats(0.5, 5.0), st.floats(-0.2, 0.2), st.floats(-0.15, 0.15))
@settings(max_examples=40, deadline=None)
def test_a_point_lands_on_its_pixel_with_its_depth(z: float, x: float, y: float) -> None:
    from depth_fusion_ros.ros.references import projected

    seen = projected(np.array([[x * z, y * z, z]], np.float32), GRID)
    row, column = np.argwhere(np.isfinite(seen))[0]
    assert np.isfinite(seen).sum() == 1 and seen[row, column] == pytest.approx(z, rel=1e-6)
    assert abs(column - (x * 40 + 15.5)) <= 0.51 and abs(row - (y * 40 + 11.5)) <= 0.51


@needs_ros
def test_points_behind_a_surface_that_stands_in_front_are_hidden() -> None:
    from depth_fusion_ros.ros.references import projected

    def wall(z: float, columns: range) -> np.ndarray:
        u, v = np.meshgrid(columns, range(0, 24, 2))
        return np.stack([(u - 15.5) / 40 * z, (v - 11.5) / 40 * z, np.full(u.shape, z)],
                        -1).reshape(-1, 3)

    near, far = wall(1.0, range(0, 16, 2)), wall(3.0, range(1, 32, 2))
    seen = projected(np.concatenate([far, near]).astype(np.float32), GRID)
    values = seen[:, :12]
    assert np.nanmax(values) < 1.01 and np.isfinite(values).sum() > 50
    assert np.nanmin(seen[:, 18:]) > 2.99
    assert not np.isfinite(projected(np.array([[0, 0, -1.0]], np.float32), GRID)).any()


@needs_ros
def test_another_grid_is_read_at_the_nearest_pixel_through_both_cameras() -> None:
    from depth_fusion_ros.ros.references import _on_grid

    other = Intrinsics(80.0, 80.0, 40.0, 30.0, 80, 60)
    column = np.arange(80, dtype=np.float32)
    depth = np.broadcast_to(1 + (column - 40.0) / 80.0, (60, 80)).astype(np.float32)
    found = _on_grid(depth, other, GRID)
    expected = 1 + (np.arange(32) - 15.5) / 40
    np.testing.assert_allclose(found[12], expected, atol=0.5 / 80 + 1e-6)
    narrow = Intrinsics(80.0, 80.0, 4.0, 30.0, 10, 60)
    assert np.isnan(_on_grid(depth[:, :10].copy(), narrow, GRID)[:, 25:]).all()
    with pytest.raises(BagError, match="no camera_info"):
        _on_grid(depth[:, :50].copy(), None, GRID)


@needs_ros
def test_a_reference_is_the_nearest_in_time_within_the_tolerance(tmp_path: Path) -> None:
    from depth_fusion_ros.ros.references import TopicReference

    written = write_small_bag(tmp_path / "bag", frames=3)
    estimate = SimpleNamespace(intrinsics=Intrinsics(440.0, 440.0, 15.5, 11.5, 32, 24))
    with BagReader(tmp_path / "bag") as bag:
        stamps = [record.stamp_ns for record in bag.frames()]
    with BagReader(tmp_path / "bag") as bag:
        exact = TopicReference(bag, "ground_truth/depth")
        assert exact.at(stamps[0] + 1, estimate) is None
        np.testing.assert_array_equal(exact.at(stamps[1], estimate)[1:], written[1].depth_m[1:])
    with BagReader(tmp_path / "bag") as bag:
        loose = TopicReference(bag, "ground_truth/depth", tolerance_s=0.04)
        np.testing.assert_array_equal(loose.at(stamps[2] - 30_000_000, estimate)[1:],
                                      written[2].depth_m[1:])
        assert loose.at(stamps[2] + 50_000_000, estimate) is None
    with BagReader(tmp_path / "bag") as bag:
        with pytest.raises(BagError, match="not recorded"):
            TopicReference(bag, "no/depth")
        with pytest.raises(BagError, match=r"must be sensor_msgs/msg/Image"):
            TopicReference(bag, "lens_state")
