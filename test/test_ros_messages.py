"""Images, camera infos, clouds and lens states between messages and arrays."""

from __future__ import annotations

import array
import struct

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("depth_fusion_ros.msg", reason="needs the generated messages")
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from depth_fusion_ros.estimation.estimate import Intrinsics, Provenance, ScaleState
from depth_fusion_ros.msg import LensState
from depth_fusion_ros.optics.thin_lens import ThinLens
from depth_fusion_ros.ros.lens import lens_to_state, resolve_lens
from depth_fusion_ros.ros.messages import (
    VIEW_ENCODINGS,
    InputError,
    array_to_image,
    camera_info_to_intrinsics,
    image_to_array,
    image_to_rgb,
    intrinsics_to_camera_info,
    split_views,
)
from depth_fusion_ros.ros.parameter_tables import DUAL_PIXEL
from depth_fusion_ros.ros.products import depth_preview, depth_to_millimetres, organised_cloud

NAN, INF = float("nan"), float("inf")


def image(pixels, encoding):
    return array_to_image(np.ascontiguousarray(pixels), encoding, Header())


def cause_of(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert str(caught.value).startswith("t: ")
    return caught.value.cause


@pytest.mark.parametrize(
    ("encoding", "kind"),
    [("mono8", "u1"), ("8UC1", "u1"), ("mono16", "u2"), ("16UC1", "u2"), ("32FC1", "f4")],
)
def test_single_channel_images_round_trip_as_views(encoding, kind):
    pixels = np.arange(12, dtype=kind).reshape(3, 4)
    msg = image(pixels, encoding)
    assert isinstance(msg.data, array.array)
    view = image_to_array(msg, "t", VIEW_ENCODINGS)
    assert view.dtype == np.dtype(kind)
    assert np.array_equal(view, pixels)
    assert np.shares_memory(view, np.frombuffer(msg.data, np.uint8))


def test_padded_rows_and_foreign_byte_order_are_understood():
    pixels = np.arange(6, dtype=np.uint16).reshape(2, 3) * 257 + 1
    rows = b"".join(row.astype(">u2").tobytes() + b"\xff\xff" for row in pixels)
    msg = Image(height=2, width=3, encoding="mono16", step=8, is_bigendian=1)
    msg.data = array.array("B", rows)
    view = image_to_array(msg, "t", VIEW_ENCODINGS)
    assert view.dtype.isnative
    assert np.array_equal(view, pixels)


@pytest.mark.parametrize(("encoding", "order"), [("rgb8", [0, 1, 2]), ("bgr8", [2, 1, 0])])
def test_colour_images_become_rgb(encoding, order):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(image_to_rgb(image(pixels, encoding), "t"), pixels[..., order])


def test_a_grey_reference_becomes_grey_rgb():
    pixels = np.arange(8, dtype=np.uint8).reshape(2, 4)
    assert np.array_equal(image_to_rgb(image(pixels, "mono8"), "t")[..., 1], pixels)


def damaged(**changes):
    msg = image(np.zeros((4, 6), np.uint16), "mono16")
    for name, value in changes.items():
        setattr(msg, name, value)
    return msg


@pytest.mark.parametrize(
    ("msg", "cause"),
    [
        (damaged(encoding="yuv422"), "bad_encoding"),
        (damaged(encoding=""), "bad_encoding"),
        (damaged(height=0), "zero_size"),
        (damaged(width=0), "zero_size"),
        (damaged(step=11), "bad_step"),
        (damaged(step=0), "bad_step"),
        (damaged(data=array.array("B", bytes(47))), "truncated_data"),
        (damaged(data=array.array("B")), "truncated_data"),
        (damaged(height=2**32 - 1), "truncated_data"),
    ],
)
def test_a_damaged_image_is_refused_with_its_cause(msg, cause):
    assert cause_of(image_to_array, msg, "t", VIEW_ENCODINGS) == cause


def test_a_truncated_exotic_image_is_refused_before_it_is_converted():
    msg = Image(height=4, width=4, encoding="rgba8", step=16)
    assert cause_of(image_to_rgb, msg, "t") == "truncated_data"


def test_packed_views_are_split_without_copies():
    packed = np.arange(16, dtype=np.uint16).reshape(2, 8)
    left, right = split_views(packed, "side_by_side", "t")
    assert left.tolist() == packed[:, :4].tolist() and right.tolist() == packed[:, 4:].tolist()
    left, right = split_views(packed, "column_interleaved", "t")
    assert left[0].tolist() == [0, 2, 4, 6] and right[0].tolist() == [1, 3, 5, 7]
    assert np.shares_memory(left, packed)
    assert cause_of(split_views, packed[:, :7], "side_by_side", "t") == "odd_width"


def test_camera_info_round_trips_and_binning_and_roi_are_applied():
    known = Intrinsics(300.0, 310.0, 159.5, 119.5, 320, 240)
    info = intrinsics_to_camera_info(known, Header())
    assert camera_info_to_intrinsics(info, "t", 320, 240) == known
    assert info.p[3] == 0.0
    info.binning_x, info.binning_y = 2, 4
    assert camera_info_to_intrinsics(info, "t", 160, 60) == known.resized(160, 60)
    info.binning_x = info.binning_y = 0
    info.roi.x_offset, info.roi.width, info.roi.height = 20, 100, 240
    assert camera_info_to_intrinsics(info, "t", 100, 240).cx_px == 139.5


def test_useless_calibrations_are_refused():
    assert cause_of(camera_info_to_intrinsics, CameraInfo(), "t", 320, 240) == "camera_info_zero"
    info = intrinsics_to_camera_info(Intrinsics(300.0, 300.0, 1.0, 1.0, 320, 240), Header())
    assert cause_of(camera_info_to_intrinsics, info, "t", 640, 480) == "camera_info_size"
    info.p[0] = info.k[0] = NAN
    assert cause_of(camera_info_to_intrinsics, info, "t", 320, 240) == "camera_info_zero"
    for absurd_px in (0.5, 2e6):
        info.p[0] = info.k[0] = absurd_px
        assert cause_of(camera_info_to_intrinsics, info, "t", 320, 240) == "camera_info_absurd"


def test_millimetres_are_zero_wherever_there_is_no_honest_number():
    depth = np.array([[1.0, 0.0004, 65.535, 65.536, 100.0, NAN, INF, -INF, 1.2346]], np.float32)
    with np.errstate(all="raise"):
        out = depth_to_millimetres(depth)
    assert out.tolist() == [[1000, 0, 65535, 0, 0, 0, 0, 0, 1235]]


def test_the_preview_tells_near_far_unknown_and_prior_apart():
    depth = np.full((9, 9), 1.0, np.float32)
    depth[0, :5] = (0.2, 5.0, NAN, INF, -INF)
    labels = np.full((9, 9), Provenance.MEASURED, np.uint8)
    labels[3:] = Provenance.PRIOR_ONLY
    out = depth_preview(depth, labels, 0.2, 5.0)
    near, far = out[0, 0].astype(int), out[0, 1].astype(int)
    assert near[0] > near[2] and far[2] > far[0], "warm is near, cold is far"
    assert out[0, 2].tolist() == [0, 0, 0]
    assert out[0, 4].tolist() == [255, 255, 255]
    assert out[0, 3].max() < 60
    black = (out[3:] == 0).all(axis=2)
    assert black.mean() == pytest.approx(1 / 3, abs=0.02)
    assert not (out[1:3] == 0).all(axis=2).any()


def test_a_cloud_point_lies_on_the_ray_of_its_pixel():
    known = Intrinsics(100.0, 110.0, 2.0, 1.0, 5, 4)
    depth = np.full((4, 5), 2.0, np.float32)
    depth[0, 0], depth[0, 1] = NAN, INF
    sigma = np.full((4, 5), 0.1, np.float32)
    rgb = np.zeros((4, 5, 3), np.uint8)
    rgb[3, 4] = (10, 20, 30)
    cloud = organised_cloud(depth, sigma, rgb, known, Header(frame_id="f"))
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (4, 5, 24, 120)
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "rgb", "sigma"]
    assert not cloud.is_dense
    x, y, z = struct.unpack_from("<3f", cloud.data, 3 * 120 + 4 * 24)
    assert (x, y, z) == pytest.approx(((4 - 2.0) / 100 * 2, (3 - 1.0) / 110 * 2, 2.0))
    assert struct.unpack_from("<I", cloud.data, 3 * 120 + 4 * 24 + 12)[0] == (10 << 16) | 0x141E
    assert struct.unpack_from("<f", cloud.data, 3 * 120 + 4 * 24 + 16)[0] == pytest.approx(0.1)
    points = np.frombuffer(cloud.data, np.float32).reshape(4, 5, 6)
    assert np.isnan(points[0, :2, :3]).all(), "neither NaN nor Inf is a point"


LENS = ThinLens(0.012, 2.0, 27.6e-6, 1.25)


def values(**changes):
    return {**DUAL_PIXEL.defaults(), **{k.replace("__", "."): v for k, v in changes.items()}}


def state(**changes):
    msg = lens_to_state(LENS, Header())
    for name, value in changes.items():
        setattr(msg, name, value)
    return msg


def test_a_calibrated_lens_state_gives_absolute_metres():
    found = resolve_lens(state(), values(lens__kappa=0.2))
    assert found.scale_state == ScaleState.ABSOLUTE
    assert found.lens.blur_gain_px_m == pytest.approx(LENS.blur_gain_px_m, rel=1e-6)
    assert found.lens.kappa == 0.2


def test_a_gain_that_varies_over_the_field_comes_from_a_parameter():
    found = resolve_lens(state(), values(lens__gain_field="{x2: -0.5}"))
    gain = found.lens.gain_map_px_m(101, 11)
    assert gain[5, 0] == pytest.approx(0.5 * gain[5, 50], rel=0.03)


def test_the_spread_of_the_focus_comes_from_the_message_or_a_parameter():
    assert resolve_lens(state(), values(lens__focus_sigma_diopters=0.04)
                        ).lens.focus_sigma_diopters == pytest.approx(0.04)
    assert resolve_lens(state(focus_diopters_stddev=0.02), values()
                        ).lens.focus_sigma_diopters == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("msg", "changes", "word"),
    [
        (state(), {"lens__gain_field": "{x2: -1.5}"}, "lens.gain_field"),
        (state(), {"lens__gain_field": "x2"}, "must map terms"),
        (None, {}, "lens.focus_source to constant"),
        (state(focus_diopters=NAN), {}, "focus_diopters = nan"),
        (state(f_number=0.0), {}, "set lens.f_number"),
        (state(pixel_pitch_y_m=0.0), {"dp__parallax_axis": "y"}, "set lens.pixel_pitch_m"),
        (state(focus_calibration=LensState.CALIBRATION_APPROXIMATE), {}, "lens.allow_nominal"),
        (None, {"lens__focus_source": "constant"}, "set lens.focal_length_m"),
    ],
)
def test_a_lens_that_is_not_known_gives_no_metres_and_says_what_to_set(msg, changes, word):
    found = resolve_lens(msg, values(**changes))
    assert (found.lens, found.scale_state) == (None, ScaleState.RELATIVE)
    assert word in found.reason


def test_nominal_metres_need_permission():
    msg = state(focus_calibration=LensState.CALIBRATION_UNCALIBRATED)
    found = resolve_lens(msg, values(lens__allow_nominal=True))
    assert found.scale_state == ScaleState.NOMINAL and found.lens is not None


def test_parameters_alone_are_enough_and_win_over_the_message():
    numbers = {"lens__focus_source": "constant", "lens__focus_diopters": 2.0,
               "lens__focal_length_m": 0.016, "lens__f_number": 4.0, "lens__pixel_pitch_m": 1e-5}
    for msg in (None, state()):
        found = resolve_lens(msg, values(**numbers))
        assert found.scale_state == ScaleState.ABSOLUTE
        assert (found.lens.focal_length_m, found.lens.focus_diopters) == (0.016, 2.0)


def test_the_reported_focus_is_corrected_by_scale_and_offset():
    found = resolve_lens(state(), values(lens__diopter_scale=0.8, lens__diopter_offset=0.5))
    assert found.lens.focus_diopters == pytest.approx(1.5)


@pytest.mark.parametrize("changes", [
    {"focus_diopters": -1.0}, {"focus_diopters": INF}, {"focus_diopters": 90.0},
    {"f_number": -2.0}, {"focal_length_m": NAN}, {"pixel_pitch_x_m": INF},
])
def test_numbers_that_no_lens_can_have_are_a_drop(changes):
    with pytest.raises(InputError, match="lens_state: lens ") as caught:
        resolve_lens(state(**changes), values())
    assert caught.value.cause == "lens_state_invalid"
