"""The synthetic camera in its own process, and in front of dual_pixel_depth."""

from __future__ import annotations

import signal
from collections import Counter

import numpy as np
import pytest

from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from ros_helpers import DEPTH, FRAME_ID, REPORT, Bench
from sensor_msgs.msg import CameraInfo, Image

from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.messages import (
    camera_info_to_intrinsics,
    image_to_array,
    split_views,
    stamp_to_ns,
)

pytestmark = [pytest.mark.ros, pytest.mark.alone]
SMALL = ("width_px:=96", "height_px:=64", "frames:=2", "frames_per_scene:=2", "rate_hz:=5.0")


@pytest.mark.parametrize(
    ("layout", "encoding", "views"),
    [("pair", "mono16", {"dp/left/image_raw": 96, "dp/right/image_raw": 96}),
     ("column_interleaved", "mono8", {"dp/image_raw": 192})],
)
def test_it_publishes_whole_sets_of_the_layout_with_rising_stamps_until_max_sets(
        layout, encoding, views):
    kinds = {**dict.fromkeys(views, Image), "rgb/image_rect": Image, "ground_truth/depth": Image,
             "dp/camera_info": CameraInfo, "rgb/camera_info": CameraInfo, "lens_state": LensState}
    with Bench(outputs=()) as bench:
        for topic, kind in kinds.items():
            bench.ros.create_subscription(kind, topic, bench.listen(topic), 10)
        with bench.node(*SMALL, f"layout:={layout}", f"encoding:={encoding}", "max_sets:=4",
                        "wait_for_subscribers:=true", module="synthetic_camera",
                        wait_active=False) as process:
            bench.wait(lambda: all(len(bench.received[t]) >= 4 for t in kinds), "four sets")
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
    assert not any("Traceback" in line for line in process.log), process.log
    stamps = [stamp_to_ns(m.header.stamp) for m in bench.received["lens_state"]]
    assert stamps == sorted(set(stamps)) and len(stamps) == 4
    for topic in kinds:
        assert [stamp_to_ns(m.header.stamp) for m in bench.received[topic]] == stamps, topic
        assert {m.header.frame_id for m in bench.received[topic]} == {FRAME_ID}
    for topic, width in views.items():
        message = bench.received[topic][0]
        assert (message.width, message.height, message.encoding) == (width, 64, encoding)
    if layout != "pair":
        packed = image_to_array(bench.received["dp/image_raw"][0], "t", (encoding,))
        left, right = split_views(packed, layout, "t")
        assert np.corrcoef(left.ravel(), right.ravel())[0, 1] > 0.9
    truth = image_to_array(bench.received["ground_truth/depth"][0], "t", ("32FC1",))
    assert np.isfinite(truth).any() and truth[np.isfinite(truth)].min() > 0.05
    camera_info_to_intrinsics(bench.received["rgb/camera_info"][0], "t", 96, 64)
    assert bench.received["lens_state"][0].focus_calibration == LensState.CALIBRATION_CALIBRATED


def test_camera_and_node_together_give_depth_that_agrees_with_the_truth():
    with Bench(outputs=(DEPTH, REPORT)) as bench:
        truths: dict[int, Image] = {}
        bench.ros.create_subscription(
            Image, "ground_truth/depth",
            lambda m: truths.setdefault(stamp_to_ns(m.header.stamp), m), 50)
        with bench.node(), bench.node(
                "width_px:=192", "height_px:=144", "frames:=2", "frames_per_scene:=1",
                "rate_hz:=2.0", module="synthetic_camera", wait_active=False):
            bench.wait(lambda: len(bench.received[REPORT]) >= 3, "three reports", timeout_s=60.0)
            # Any of them: the first truths may go out before this subscription is discovered.
            bench.wait(lambda: {stamp_to_ns(m.header.stamp) for m in bench.received[DEPTH]}
                       & set(truths), "the truth of a depth")
            counters = bench.counters()
    drops = Counter({k: n for k, n in counters.items() if k.startswith("dropped.")})
    assert set(drops) <= {"dropped.busy", "dropped.missing_lens_state", "dropped.missing_left",
                          "dropped.missing_right", "dropped.missing_rgb",
                          "dropped.missing_camera_info"}, "only what a start can bring"
    errors = []
    for message in bench.received[DEPTH]:
        truth = truths.get(stamp_to_ns(message.header.stamp))
        if truth is not None:
            depth = image_to_array(message, DEPTH, ("32FC1",))
            true_m = image_to_array(truth, "truth", ("32FC1",))
            both = np.isfinite(depth) & np.isfinite(true_m)
            assert both.mean() > 0.05
            errors.append(np.median(np.abs(depth[both] / true_m[both] - 1)))
    assert errors and max(errors) < 0.35
