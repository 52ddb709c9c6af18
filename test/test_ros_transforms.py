"""Clouds in another frame, and the level frame of the scan."""

from __future__ import annotations

import sys
from array import array
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from builtin_interfaces.msg import Time

from depth_fusion_ros.ros.engine import ConfigureError
from depth_fusion_ros.ros.navigation_parameter_rows import level_from_optical
from depth_fusion_ros.ros.transforms import FrameChange, TransformMissing, transform_in_place


def level(pitch_rad=0.0, roll_rad=0.0):
    return level_from_optical({"scan.pitch_rad": pitch_rad, "scan.roll_rad": roll_rad})


def test_only_the_place_of_a_point_is_transformed():
    points = np.array([[1, 2, 3, 0.5], [np.nan, 2, 3, 0.25]], np.float32)
    data = array("B", points.tobytes())
    matrix = np.array([[0, 0, 1, 10], [-1, 0, 0, 20], [0, -1, 0, 30], [0, 0, 0, 1]], np.float32)
    transform_in_place(data, 16, matrix)
    moved = np.frombuffer(data, np.float32).reshape(2, 4)
    assert moved[0].tolist() == [13, 19, 28, 0.5]
    assert np.isnan(moved[1, :3]).any() and moved[1, 3] == 0.25


def test_an_empty_cloud_is_transformed_to_an_empty_cloud():
    data = array("B")
    transform_in_place(data, 12, np.eye(4, dtype=np.float32))
    assert len(data) == 0


def test_a_camera_that_looks_down_sees_ahead_what_is_below():
    forward, left, up = level(pitch_rad=0.3) @ (0, 0, 1)
    assert (forward, left, up) == pytest.approx((np.cos(0.3), 0, -np.sin(0.3)))


def test_a_camera_rolled_to_the_right_sees_on_its_right_what_is_lower():
    assert (level(roll_rad=0.3) @ (1, 0, 0))[2] == pytest.approx(-np.sin(0.3))


@given(st.floats(-1.5, 1.5), st.floats(-3.1, 3.1))
def test_the_level_frame_is_a_rotation(pitch_rad: float, roll_rad: float):
    rotation = level(pitch_rad, roll_rad)
    assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def transform(x=0.0, y=0.0, z=0.0, q=(0.0, 0.0, 0.0, 1.0)):
    return SimpleNamespace(transform=SimpleNamespace(
        translation=SimpleNamespace(x=x, y=y, z=z),
        rotation=SimpleNamespace(x=q[0], y=q[1], z=q[2], w=q[3])))


class Missing(Exception):
    pass


@pytest.fixture()
def tf2(monkeypatch):
    """Stand-ins for tf2_ros and tf_transformations, which have no wheels: their interface only."""
    asked = []

    class Buffer:
        answer = transform(1.0, 2.0, 3.0)

        def lookup_transform(self, target, source, stamp):
            asked.append((target, source, stamp.nanoseconds))
            if self.answer is None:
                raise Missing("extrapolation into the future")
            return self.answer

    class TransformListener:
        def __init__(self, buffer, node, *, spin_thread):
            assert not spin_thread, "the node's own executor feeds the buffer"

        def unregister(self):
            asked.append("closed")

    monkeypatch.setitem(sys.modules, "tf2_ros", SimpleNamespace(
        Buffer=Buffer, TransformListener=TransformListener, TransformException=Missing))
    monkeypatch.setitem(sys.modules, "tf_transformations", SimpleNamespace(
        quaternion_matrix=lambda q: np.eye(4)))
    return SimpleNamespace(Buffer=Buffer, asked=asked)


def test_the_way_is_asked_for_at_the_stamp_of_the_image(tf2):
    change = FrameChange(None, "base_link")
    matrix = change.matrix("camera", Time(sec=7, nanosec=5))
    assert matrix[:3, 3].tolist() == [1.0, 2.0, 3.0]
    assert tf2.asked == [("base_link", "camera", 7_000_000_005)]
    change.close()
    assert tf2.asked[-1] == "closed"


def test_a_way_that_tf2_does_not_know_is_an_error_in_its_words(tf2):
    tf2.Buffer.answer = None
    with pytest.raises(TransformMissing, match="extrapolation"):
        FrameChange(None, "base_link").matrix("camera", Time())


def test_without_tf2_the_frame_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    with pytest.raises(ConfigureError, match=r"cloud.frame = 'base_link'.*leave cloud.frame empty"):
        FrameChange(None, "base_link")
