"""What is written to a bag comes back, and a bag that cannot be read says why."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bag_scenes import LENS, PERIOD_NS, small_frame, write_small_bag
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.highlevel import AnyReader

from depth_fusion_ros.bags.images import image_array, image_message
from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.topics import resolve
from depth_fusion_ros.bags.typestore import BagError, bag_typestore, message_class
from depth_fusion_ros.bags.writer import DEFAULT_START_NS, DualPixelBagWriter


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_every_array_and_stamp_comes_back_unchanged(tmp_path: Path, storage: str) -> None:
    written = write_small_bag(tmp_path / "bag", frames=4, storage=storage)
    with BagReader(tmp_path / "bag") as bag:
        records = list(bag.frames())
    assert [r.stamp_ns for r in records] == [DEFAULT_START_NS + i * PERIOD_NS for i in range(4)]
    for frame, record in zip(written, records, strict=True):
        assert record.is_complete
        np.testing.assert_array_equal(record.left.array, frame.left)
        np.testing.assert_array_equal(record.right.array, frame.right)
        np.testing.assert_array_equal(record.rgb.array, frame.rgb)
        np.testing.assert_array_equal(record.truth.array, frame.depth_m)  # NaN and ±Inf included
        assert record.left.encoding == "mono16" and record.truth.encoding == "32FC1"
        assert record.rgb.frame_id == "camera_rgb_optical_frame"


def test_lens_state_and_camera_info_carry_the_lens_and_no_stereo_baseline(tmp_path: Path) -> None:
    write_small_bag(tmp_path / "bag", frames=1)
    with BagReader(tmp_path / "bag") as bag:
        record = next(bag.frames())
    lens = record.lens_state
    assert lens.focal_length_m == pytest.approx(LENS.focal_length_m)
    assert lens.focus_diopters == pytest.approx(LENS.focus_diopters)
    assert lens.pixel_pitch_x_m == pytest.approx(LENS.pixel_pitch_m)
    assert lens.focus_calibration == lens.CALIBRATION_CALIBRATED
    assert record.dp_camera_info.k[0] == 440.0 and record.dp_camera_info.p[3] == 0.0


def test_seed_and_camera_are_kept_in_the_bag(tmp_path: Path) -> None:
    write_small_bag(tmp_path / "bag")
    with BagReader(tmp_path / "bag") as bag:
        assert bag.metadata == {"seed": "0", "camera": "random"}
        assert bag.message_count == 3 * 7 + 1
        assert bag.duration_s == pytest.approx(0.2)
        assert {t.name for t in bag.topics} >= {"/tf_static", "/camera/lens_state"}


def test_plain_rosbags_reads_what_was_written_without_our_type_store(tmp_path: Path) -> None:
    frames = write_small_bag(tmp_path / "bag", frames=2)
    with AnyReader([tmp_path / "bag"]) as reader:
        topic = [c for c in reader.connections if c.topic == "/camera/lens_state"]
        lens = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(topic)]
        left = [c for c in reader.connections if c.topic == "/camera/dp/left/image_raw"]
        images = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(left)]
    assert [m.f_number for m in lens] == [2.0, 2.0]
    np.testing.assert_array_equal(images[1].data.view("<u2").reshape(24, 32), frames[1].left)


def test_static_transform_turns_optical_z_into_camera_x(tmp_path: Path) -> None:
    write_small_bag(tmp_path / "bag", frames=1)
    with BagReader(tmp_path / "bag") as bag:
        ((_, _, message),) = bag.messages(["/tf_static"])
    (stamped,) = message.transforms
    assert (stamped.header.frame_id, stamped.child_frame_id) == (
        "camera_link",
        "camera_rgb_optical_frame",
    )
    q = stamped.transform.rotation
    # rotate the optical axis (0, 0, 1) by q: third column of the rotation matrix
    axis = (
        2 * (q.x * q.z + q.w * q.y),
        2 * (q.y * q.z - q.w * q.x),
        1 - 2 * (q.x**2 + q.y**2),
    )
    assert axis == pytest.approx((1.0, 0.0, 0.0))


def test_a_bag_of_a_single_mcap_file_is_read_without_its_folder(tmp_path: Path) -> None:
    write_small_bag(tmp_path / "bag")
    (file,) = (tmp_path / "bag").glob("*.mcap")
    with BagReader(file) as bag:
        assert sum(1 for _ in bag.raw()) == 22


def test_raw_messages_come_in_log_time_order_and_only_of_the_topics_asked_for(
    tmp_path: Path,
) -> None:
    write_small_bag(tmp_path / "bag")
    with BagReader(tmp_path / "bag") as bag:
        times = [m.log_time_ns for m in bag.raw()]
        chosen = {m.topic for m in bag.raw(["/camera/lens_state"])}
    assert times == sorted(times)
    assert chosen == {"/camera/lens_state"}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_truncated_bag_is_refused_with_its_path_and_a_remedy(
    tmp_path: Path, storage: str, kept: float
) -> None:
    write_small_bag(tmp_path / "bag", storage=storage)
    (file,) = [f for f in (tmp_path / "bag").iterdir() if f.suffix != ".yaml"]
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    damaged = pytest.raises(BagError, match="truncated, damaged")
    with damaged as caught, BagReader(tmp_path / "bag") as bag:
        list(bag.frames())
    assert str(tmp_path / "bag") in str(caught.value)


@pytest.mark.parametrize("text", ["", "rosbag2_bagfile_information: {version: 99}", "{:", "[1]"])
def test_broken_metadata_is_refused(tmp_path: Path, text: str) -> None:
    write_small_bag(tmp_path / "bag")
    (tmp_path / "bag" / "metadata.yaml").write_text(text)
    with pytest.raises(BagError, match="cannot be read"), BagReader(tmp_path / "bag"):
        pass


def test_a_missing_bag_names_what_to_give_instead(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"give the folder that holds metadata\.yaml"):
        BagReader(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BagError, match="ros2 bag reindex"):
        BagReader(tmp_path / "empty")


def test_a_recording_that_failed_half_way_is_not_readable_as_a_bag(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), DualPixelBagWriter(tmp_path / "bag") as bag:
        bag.write_frame(small_frame(0), bag.start_ns)
        raise RuntimeError("camera unplugged")
    with pytest.raises(BagError), BagReader(tmp_path / "bag"):
        pass


def test_a_set_with_a_lost_image_is_given_out_incomplete_and_not_joined_to_another(
    tmp_path: Path,
) -> None:
    with DualPixelBagWriter(tmp_path / "bag") as bag:
        bag.write_frame(small_frame(0), bag.start_ns)
        lonely = image_message(small_frame(1).left, "mono16", bag.start_ns + 5, "f")
        bag.write_message("dp/left/image_raw", "sensor_msgs/msg/Image", lonely, bag.start_ns + 5)
    with BagReader(tmp_path / "bag") as reader:
        first, second = reader.frames()
    assert first.is_complete and not second.is_complete
    assert second.right is None and second.left is not None


def test_an_existing_bag_is_only_replaced_on_request_and_other_folders_never(
    tmp_path: Path,
) -> None:
    write_small_bag(tmp_path / "bag", frames=1)
    with pytest.raises(BagError, match="choose another path"):
        DualPixelBagWriter(tmp_path / "bag")
    write_small_bag(tmp_path / "bag", frames=2, overwrite=True)
    with BagReader(tmp_path / "bag") as bag:
        assert len(list(bag.frames())) == 2
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").write_text("years of work")
    with pytest.raises(BagError, match="is left alone"):
        DualPixelBagWriter(tmp_path / "notes", overwrite=True)
    assert (tmp_path / "notes" / "thesis.tex").read_text() == "years of work"


def test_views_of_different_shape_are_refused_before_they_reach_the_disk(tmp_path: Path) -> None:
    good = small_frame(0)
    bad = SimpleNamespace(**{**vars(good), "right": good.right[:, :-1]})
    with (
        pytest.raises(BagError, match="one shape and dtype"),
        DualPixelBagWriter(tmp_path / "bag") as bag,
    ):
        bag.write_frame(bad, bag.start_ns)


def test_images_of_a_topic_that_holds_none_name_the_recorded_topics(tmp_path: Path) -> None:
    write_small_bag(tmp_path / "bag", frames=1)
    with BagReader(tmp_path / "bag") as bag:
        assert next(bag.images("/camera/ground_truth/depth")).array.dtype == np.float32
        with pytest.raises(BagError, match="not recorded"):
            next(bag.images("/camera/depth"))
        with pytest.raises(BagError, match="depth_fusion_ros/msg/LensState, needs"):
            next(bag.images("/camera/lens_state"))


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    padding=st.integers(0, 3),
    big_endian=st.booleans(),
)
def test_padded_rows_and_byte_order_do_not_change_pixels(
    height: int, width: int, padding: int, big_endian: bool
) -> None:
    pixels = np.arange(height * width, dtype=np.uint16).reshape(height, width) * 257 + 1
    message = image_message(pixels, "mono16", 7, "f")
    order = ">u2" if big_endian else "<u2"
    rows = pixels.astype(order).view(np.uint8).reshape(height, width * 2)
    message.data = np.pad(rows, ((0, 0), (0, padding))).reshape(-1)
    message.step += padding
    message.is_bigendian = int(big_endian)
    np.testing.assert_array_equal(image_array(message), pixels)


def test_an_image_whose_bytes_do_not_fill_it_is_refused() -> None:
    message = image_message(np.zeros((3, 4), np.float32), "32FC1", 0, "f")
    message.data = message.data[:-1]
    with pytest.raises(BagError, match="damaged"):
        image_array(message)
    with pytest.raises(BagError, match="encoding"):
        image_message(np.zeros((3, 4), np.float32), "yuv422", 0, "f")
    with pytest.raises(BagError, match="needs float32"):
        image_message(np.zeros((3, 4), np.float64), "32FC1", 0, "f")


def test_topics_resolve_in_the_namespace_and_absolute_ones_stay() -> None:
    assert resolve("/camera", "lens_state") == "/camera/lens_state"
    assert resolve("camera/", "lens_state") == "/camera/lens_state"
    assert resolve("/", "lens_state") == "/lens_state"
    assert resolve("/camera", "/tf_static") == "/tf_static"


def test_unknown_message_types_are_named() -> None:
    with pytest.raises(BagError, match="nonsense_msgs/msg/Thing"):
        message_class("nonsense_msgs/msg/Thing")


@pytest.mark.ros
def test_our_messages_have_the_same_bytes_as_rclpy_writes() -> None:
    serialization = pytest.importorskip("rclpy.serialization")
    own = pytest.importorskip("depth_fusion_ros.msg")
    values = {
        "LensState": {"focus_diopters": 0.75, "actuator_position": -3, "sweep_size": 9},
        "FrameReport": {
            "sequence": 2**40,
            "model_id": "closed_form@00000000",
            "stage_names": ["wait", "inference"],
            "stage_ms": [0.5, 12.25],
            "latency_ms": math.nan,
            "gpu_mem_mb": 3.5,
        },
    }
    store = bag_typestore()
    for name, fields in values.items():
        message = getattr(own, name)(**fields)
        message.header.stamp.sec, message.header.frame_id = 12, "camera_rgb_optical_frame"
        by_rclpy = serialization.serialize_message(message)
        type_name = f"depth_fusion_ros/msg/{name}"
        read = store.deserialize_cdr(by_rclpy, type_name)
        assert read.header.frame_id == "camera_rgb_optical_frame"
        by_us = bytes(store.serialize_cdr(read, type_name))
        # alignment bytes are not initialised by rclpy, and it may pad the end to 4 bytes
        assert 0 <= len(by_rclpy) - len(by_us) < 4
        differing = [i for i, byte in enumerate(by_us) if byte != by_rclpy[i]]
        assert all(_is_alignment_byte(by_us, i, type_name) for i in differing)
        again = serialization.deserialize_message(by_us, type(message))
        assert repr(again) == repr(message)


def _is_alignment_byte(data: bytes, index: int, type_name: str) -> bool:
    """True if changing this byte of a serialised message does not change the message."""
    changed = bytearray(data)
    changed[index] ^= 0x55
    store = bag_typestore()
    try:
        read = store.deserialize_cdr(bytes(changed), type_name)
        return bytes(store.serialize_cdr(read, type_name)) == data
    except Exception:
        return False
