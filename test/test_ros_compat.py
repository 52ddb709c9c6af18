"""One contract for message_filters and cv_bridge and for what stands in for them.

Run against the real packages too wherever they are importable.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
from sensor_msgs.msg import Image

from depth_fusion_ros.ros import compat, equivalents
from depth_fusion_ros.ros.messages import array_to_data


def implementations():
    found = [pytest.param(equivalents, id="ours")]
    try:
        import message_filters

        found.append(pytest.param(message_filters, id="message_filters"))
    except ImportError:
        found.append(pytest.param(None, id="message_filters", marks=pytest.mark.skip("absent")))
    return found


def message(stamp_ms, name=""):
    msg = Image()
    msg.header.stamp.sec, rest = divmod(stamp_ms, 1000)
    msg.header.stamp.nanosec = rest * 1_000_000
    msg.header.frame_id = name
    return msg


@pytest.fixture(params=implementations())
def kit(request):
    def make(slop_s=None, filters=2, queue_size=5):
        package = request.param
        sources = [package.SimpleFilter() for _ in range(filters)]
        if slop_s is None:
            joint = package.TimeSynchronizer(sources, queue_size)
        else:
            joint = package.ApproximateTimeSynchronizer(sources, queue_size, slop_s)
        sets = []
        joint.registerCallback(lambda *messages: sets.append(messages))
        return SimpleNamespace(sources=sources, sets=sets)

    return make


def test_the_door_leads_to_the_real_package_where_it_is_installed():
    try:
        import message_filters

        assert compat.TimeSynchronizer is message_filters.TimeSynchronizer
    except ImportError:
        assert compat.TimeSynchronizer is equivalents.TimeSynchronizer


def test_a_filter_passes_extra_arguments_after_the_message(kit):
    source, seen = kit().sources[0], []
    source.registerCallback(lambda *arguments: seen.append(arguments), "left", 3)
    hello = message(100)
    source.signalMessage(hello)
    assert seen == [(hello, "left", 3)]


def test_equal_stamps_join_in_the_order_of_the_filters_whatever_came_first(kit):
    k = kit(filters=3)
    for index in (2, 0, 1):
        k.sources[index].signalMessage(message(100, str(index)))
    assert [[m.header.frame_id for m in s] for s in k.sets] == [["0", "1", "2"]]


def test_different_stamps_do_not_join_exactly(kit):
    k = kit()
    k.sources[0].signalMessage(message(100))
    k.sources[1].signalMessage(message(101))
    assert k.sets == []


def test_interleaved_sets_join_once_each(kit):
    k = kit()
    for stamp in (100, 200, 300):
        k.sources[0].signalMessage(message(stamp))
    for stamp in (300, 100, 200):
        k.sources[1].signalMessage(message(stamp))
    stamps = [s[0].header.stamp.nanosec // 1_000_000 for s in k.sets]
    assert stamps == [300, 100, 200]


def test_a_full_queue_forgets_its_oldest_stamp(kit):
    k = kit(queue_size=2)
    for stamp in (100, 200, 300):
        k.sources[0].signalMessage(message(stamp))
    for stamp in (100, 200, 300):
        k.sources[1].signalMessage(message(stamp))
    assert len(k.sets) == 2


def test_near_stamps_join_within_the_slop_and_not_beyond(kit):
    k = kit(slop_s=0.02)
    k.sources[0].signalMessage(message(100))
    k.sources[1].signalMessage(message(150))
    assert k.sets == []
    k.sources[0].signalMessage(message(140))
    assert [[m.header.stamp.nanosec // 1_000_000 for m in s] for s in k.sets] == [[140, 150]]


def test_the_nearest_of_several_candidates_joins(kit):
    k = kit(slop_s=0.05)
    for stamp in (100, 120):
        k.sources[0].signalMessage(message(stamp))
    k.sources[1].signalMessage(message(118))
    assert k.sets[0][0].header.stamp.nanosec == 120_000_000


def test_the_slop_holds_for_the_whole_set_of_three(kit):
    k = kit(slop_s=0.02, filters=3)
    for index, stamp in enumerate((100, 115, 130)):
        k.sources[index].signalMessage(message(stamp))
    assert k.sets == []


def converters():
    found = [pytest.param(equivalents.exotic_image_to_rgb, id="ours")]
    if compat.CvBridge is not None:
        found.append(pytest.param(compat.exotic_image_to_rgb, id="cv_bridge"))
    return found


def image(pixels, encoding):
    height, width = pixels.shape[:2]
    msg = Image(height=height, width=width, encoding=encoding, step=pixels.strides[0])
    msg.data = array_to_data(pixels)
    return msg


@pytest.mark.parametrize("convert", converters())
@pytest.mark.parametrize(("encoding", "order"), [("rgba8", [0, 1, 2]), ("bgra8", [2, 1, 0])])
def test_four_channels_become_rgb_exactly(convert, encoding, order):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 4), np.uint8)
    assert np.array_equal(convert(image(pixels, encoding)), pixels[..., order])


@pytest.mark.parametrize("convert", converters())
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_mosaic_of_a_plain_colour_gives_that_colour_inside(convert, pattern):
    colour = {"r": 200, "g": 120, "b": 40}
    tile = np.array([colour[c] for c in pattern], np.uint8).reshape(2, 2)
    out = convert(image(np.tile(tile, (8, 8)), f"bayer_{pattern}8"))
    assert np.abs(out[4:-4, 4:-4].astype(int) - (200, 120, 40)).max() <= 2


def test_deep_grey_is_scaled_from_sixteen_bits_in_either_byte_order():
    grey = np.array([[0, 65535, 32768, 257]], np.uint16)
    little = image(grey, "mono16")
    big = image(grey.byteswap(), "mono16")
    big.is_bigendian = 1
    for msg in (little, big):
        assert compat.exotic_image_to_rgb(msg)[0, :, 0].tolist() == [0, 255, 128, 1]
