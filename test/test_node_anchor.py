"""A lens with wrong dioptres and a range sensor: metres only once a distance is known, over DDS."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from ros_helpers import DEPTH, LENS, LENS_STATE, RELATIVE, REPORT, Bench
from sensor_msgs.msg import Range
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from depth_fusion_ros.msg import FrameReport, LensState
from depth_fusion_ros.ros.messages import image_to_array
from depth_fusion_ros.ros.outputs import ns_to_stamp

pytestmark = pytest.mark.ros
WRONG_BY_DIOPTERS = 0.4


def misreport(messages):
    state = messages[LENS_STATE]
    state.focus_diopters += WRONG_BY_DIOPTERS
    state.focus_calibration = LensState.CALIBRATION_UNCALIBRATED


@pytest.fixture(scope="module")
def active():
    with Bench() as bench, bench.node("anchor.enable:=true", "depth.max_sigma_ratio:=1.0",
                                      "anchor.roi:='8, 8, 80, 48'"):
        camera = bench.camera()
        sensor = bench.ros.create_publisher(Range, "anchor/range", 10)
        bench.wait(sensor.get_subscription_count, "the node's subscription")
        truth_m = 1 / (LENS.focus_diopters - 1.0 / LENS.disparity_gain_px_m)
        yield bench, camera, sensor, truth_m


def known(sensor, stamp_ns, distance_m):
    sensor.publish(Range(header=Header(stamp=ns_to_stamp(stamp_ns)), field_of_view=0.1,
                         min_range=0.05, max_range=10.0, range=distance_m))


def anchor_values(bench):
    bench.counters()
    return {key: value for key, value in bench.diagnostics["model"][2].items()
            if key.startswith("anchor.")}


def test_metres_come_only_after_a_known_distance_and_are_right(active):
    bench, camera, sensor, truth_m = active
    first_ns = camera.send(damage=misreport)
    bench.wait_for(RELATIVE, first_ns)
    assert bench.wait_for(REPORT, first_ns).scale_state == FrameReport.SCALE_RELATIVE
    assert not bench.received[DEPTH]
    for distance_m in (math.inf, math.nan, -math.inf, 50.0):  # none of them is a distance
        known(sensor, time.time_ns(), distance_m)
    bench.wait(lambda: int(anchor_values(bench).get("anchor.not_a_distance", 0)) == 4, "4 refusals")

    def anchored():
        stamp_ns = time.time_ns()
        known(sensor, stamp_ns, truth_m)
        time.sleep(0.05)
        camera.send(stamp_ns, misreport)
        bench.wait_for(REPORT, stamp_ns)
        return bench.received[DEPTH]

    bench.wait(anchored, "metric depth")
    stamp_ns = camera.send(damage=misreport)
    depth = image_to_array(bench.wait_for(DEPTH, stamp_ns), DEPTH, ("32FC1",))[8:56, 8:88]
    assert float(np.nanmedian(depth)) == pytest.approx(truth_m, rel=0.03)
    assert bench.wait_for(REPORT, stamp_ns).scale_state == FrameReport.SCALE_ANCHORED
    values = anchor_values(bench)
    assert float(values["anchor.offset_diopters"]) == pytest.approx(-WRONG_BY_DIOPTERS, abs=0.05)
    assert int(values["anchor.used"]) >= 1
    assert bench.diagnostics["lens"][2]["scale_state"] == "ANCHORED"


def test_a_calibrated_lens_is_not_corrected(active):
    bench, camera, _, _ = active
    report = bench.wait_for(REPORT, camera.send())
    assert report.scale_state == FrameReport.SCALE_ABSOLUTE


def test_forgetting_the_distances_takes_the_metres_away(active):
    bench, camera, _, _ = active
    answer = bench.call(Trigger, f"{bench.node_name}/reset_anchor", Trigger.Request())
    assert answer.success
    stamp_ns = camera.send(damage=misreport)
    bench.wait_for(RELATIVE, stamp_ns)
    assert bench.find(DEPTH, stamp_ns) is None


def test_a_region_that_is_no_region_is_refused(active):
    bench, *_ = active
    good, reason = bench.set_parameters(anchor__roi="8, 8, 0, 48")
    assert not good and "anchor.roi" in reason
