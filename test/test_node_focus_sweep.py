"""The node focus_sweep_depth in its own process, over real DDS."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from lifecycle_msgs.msg import Transition
from rclpy.qos import QoSProfile
from ros_helpers import DEPTH, FRAME_ID, RELATIVE, REPORT, Bench
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from wall_sweeps import BLUR_GAIN_PX_M, FOCUS, HEIGHT, WIDTH, grid, stack, truth_m

from depth_fusion_ros.estimation.estimate import Provenance
from depth_fusion_ros.msg import FrameReport, LensState
from depth_fusion_ros.ros.messages import (
    array_to_image,
    image_to_array,
    intrinsics_to_camera_info,
)
from depth_fusion_ros.ros.outputs import ns_to_stamp
from depth_fusion_ros.ros.slice_inputs import IMAGE, INFO, LENS

pytestmark = pytest.mark.ros
PROVENANCE = "depth_registered/provenance"
IMAGES = stack()
STEP_NS = 20_000_000


class SweepCamera:
    """Publishes sweeps of two textured walls."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._sweeps = self._newest_ns = 0
        self.publishers = {
            topic: bench.ros.create_publisher(kind, topic, QoSProfile(depth=100))
            for topic, kind in ((IMAGE, Image), (INFO, CameraInfo), (LENS, LensState))}
        bench.wait(lambda: all(p.get_subscription_count() for p in self.publishers.values()),
                   "subscriptions of the node")
        bench.meet()

    def close(self) -> None:
        for publisher in self.publishers.values():
            self._bench.ros.destroy_publisher(publisher)

    def send(self, images: list[Any] | None = None, leave_out: tuple[str, int] = ("", 0),
             **fields: Any) -> int:
        """Publish one sweep; returns the stamp of its newest slice.

        Args:
            images: slices. leave_out: topic and index of a message that is not sent.
            fields: of the lens states, in place of the usual ones.
        """
        images = IMAGES if images is None else images
        self._sweeps += 1
        # Stamps of different sweeps must not interleave.
        newest_ns = max(time.time_ns(), self._newest_ns + len(images) * STEP_NS)
        self._newest_ns = newest_ns
        for index, (image, focus) in enumerate(zip(images, FOCUS)):
            stamp_ns = newest_ns - (len(images) - 1 - index) * STEP_NS
            header = Header(stamp=ns_to_stamp(stamp_ns), frame_id=FRAME_ID)
            state = {"focus_diopters": focus, "sweep_id": self._sweeps, "sweep_index": index,
                     "sweep_size": len(images),
                     "focus_calibration": LensState.CALIBRATION_CALIBRATED,
                     "lens_motion": LensState.MOTION_STATIONARY, **fields}
            for topic, message in (
                    (LENS, LensState(header=header, **state)),
                    (INFO, intrinsics_to_camera_info(grid(), header)),
                    (IMAGE, array_to_image(image, "rgb8", header))):
                if (topic, index) != leave_out:
                    self.publishers[topic].publish(message)
        return newest_ns


def slices(bench: Bench) -> dict[str, int]:
    """The counters of the slices, read after this call."""
    seen = bench.diagnostics_count
    bench.wait(lambda: bench.diagnostics_count >= seen + 2, "diagnostics")
    values = bench.diagnostics["inputs"][2]
    return {key.removeprefix("slices."): int(value) for key, value in values.items()
            if key.startswith("slices.")}


def balanced(counters: dict[str, int]) -> bool:
    rest = dict(counters)
    return rest.pop("received") == sum(rest.values())


@pytest.fixture(scope="module")
def bench():
    with Bench() as bench:
        yield bench


@pytest.fixture(scope="module")
def active(bench):
    with bench.node("sweep.timeout_s:=1.0", module="focus_sweep_depth"):
        camera = SweepCamera(bench)
        bench.wait_for(DEPTH, camera.send())
        yield bench, camera
        camera.close()


def test_a_sweep_gives_every_output_with_stamp_frame_and_encoding_of_its_newest_slice(active):
    bench, camera = active
    stamp_ns = camera.send()
    encodings = {DEPTH: "32FC1", "depth_registered/sigma": "32FC1", PROVENANCE: "mono8",
                 "depth_registered/image_raw": "16UC1", "depth_registered/preview": "rgb8",
                 "aif/image": "rgb8"}
    for topic, encoding in encodings.items():
        message = bench.wait_for(topic, stamp_ns)
        assert (message.encoding, message.header.frame_id) == (encoding, FRAME_ID)
        assert (message.height, message.width) == (HEIGHT, WIDTH)
    info = bench.wait_for("depth_registered/camera_info", stamp_ns)
    assert info.k[0] == pytest.approx(grid().fx_px)
    assert bench.wait_for("points", stamp_ns).point_step == 24
    depth = image_to_array(bench.wait_for(DEPTH, stamp_ns), DEPTH, ("32FC1",))
    inside = (slice(8, -8), [*range(8, WIDTH // 2 - 12), *range(WIDTH // 2 + 12, WIDTH - 8)])
    error = np.abs(depth - truth_m())[inside] / truth_m()[inside]
    assert np.nanmean(error) < 0.05 and np.isfinite(error).mean() > 0.9


def test_the_report_tells_what_the_sweep_was(active):
    bench, camera = active
    report = bench.wait_for(REPORT, camera.send())
    assert report.scale_state == FrameReport.SCALE_ABSOLUTE
    assert report.slices_used == len(FOCUS)
    assert report.sweep_coverage_diopters == pytest.approx(FOCUS[-1] - FOCUS[0], abs=1e-5)
    assert report.sweep_largest_gap_diopters == pytest.approx(0.4, abs=1e-5)
    assert 0 <= report.sweep_motion_px < 1
    assert {"align", "inference", "postprocess"} <= set(report.stage_names)
    assert 0 < report.latency_ms < 60_000


def test_every_sweep_gives_one_depth_and_every_slice_is_accounted_for(active):
    bench, camera = active
    bench.wait_for(REPORT, camera.send())
    bench.reset_statistics()
    before = slices(bench)
    stamps = []
    for _ in range(5):
        stamps.append(camera.send())
        bench.wait_for(REPORT, stamps[-1])
    after = slices(bench)
    assert after["received"] - before["received"] == 5 * len(FOCUS)
    assert after["used_complete"] - before["used_complete"] == 5 * len(FOCUS)
    assert after["pending"] == 0 and balanced(after)
    counters = bench.counters()
    assert counters["received"] == counters["estimated"] == 5
    assert all(len([m for m in bench.received[DEPTH]
                    if m.header.stamp == ns_to_stamp(s)]) == 1 for s in stamps)


@pytest.mark.parametrize(("topic", "counter"), [(LENS, "dropped.no_lens_state"),
                                                (INFO, "dropped.no_camera_info")])
def test_a_slice_that_lacks_a_part_is_counted_and_the_rest_still_gives_depth(
    active, topic, counter
):
    bench, camera = active
    before = slices(bench).get(counter, 0)
    stamp_ns = camera.send(leave_out=(topic, 2))
    report = bench.wait_for(REPORT, stamp_ns)
    assert report.slices_used == len(FOCUS) - 1
    bench.wait(lambda: slices(bench).get(counter, 0) == before + 1, counter)
    assert balanced(slices(bench))


def test_a_camera_that_moves_too_much_gives_no_depth_and_says_why(active):
    bench, camera = active
    moved = [np.roll(image, 15 * index, axis=1) for index, image in enumerate(IMAGES)]
    stamp_ns = camera.send(moved)
    depth = image_to_array(bench.wait_for(DEPTH, stamp_ns), DEPTH, ("32FC1",))
    labels = image_to_array(bench.wait_for(PROVENANCE, stamp_ns), PROVENANCE, ("mono8",))
    assert np.isnan(depth).all() and (labels == Provenance.MOTION_REJECTED).all()
    assert bench.wait_for(REPORT, stamp_ns).sweep_motion_px > 12


def test_an_uncalibrated_lens_gives_relative_depth_and_no_metres(active):
    bench, camera = active
    stamp_ns = camera.send(focus_calibration=LensState.CALIBRATION_APPROXIMATE)
    relative = image_to_array(bench.wait_for(RELATIVE, stamp_ns), RELATIVE, ("32FC1",))
    assert bench.find(DEPTH, stamp_ns) is None
    assert relative[48, 20] > relative[48, 110], "larger is nearer"
    bench.wait(lambda: "calibrat" in bench.diagnostics["lens"][1], "the lens says why")


def test_the_blur_gain_is_told_measured_or_contradicted(active):
    bench, camera = active

    def gains(**lens: float) -> tuple[float, float]:
        bench.wait_for(REPORT, camera.send(**lens))
        bench.counters()
        values = bench.diagnostics["lens"][2]
        return float(values["blur_gain_told_px_m"]), float(values["blur_gain_px_m"])

    told, used = gains()
    assert told == 0.0 and used == pytest.approx(BLUR_GAIN_PX_M, rel=0.15), "from the slices"
    right = {"focal_length_m": 0.1, "f_number": 0.1 * grid().fx_px / BLUR_GAIN_PX_M}
    told, used = gains(**right)
    assert told == used == pytest.approx(BLUR_GAIN_PX_M, rel=1e-5)
    told, used = gains(**{**right, "f_number": right["f_number"] / 2})
    assert told == pytest.approx(2 * BLUR_GAIN_PX_M, rel=1e-5)
    assert used == pytest.approx(BLUR_GAIN_PX_M, rel=0.15), "the slices contradict it"
    told, used = gains(focal_length_m=float("nan"), f_number=2.0)
    assert told == 0.0 and used > 0


def test_moving_lenses_and_unknown_focus_make_no_sweep(active):
    bench, camera = active
    before = slices(bench)
    camera.send(lens_motion=LensState.MOTION_MOVING)
    camera.send(focus_diopters=float("nan"))
    for cause in ("dropped.lens_moving", "dropped.unknown_focus"):
        bench.wait(lambda c=cause: slices(bench).get(c, 0) - before.get(c, 0) == len(FOCUS), cause)
    assert balanced(slices(bench))
    bench.wait_for(DEPTH, camera.send())


def test_images_that_come_and_make_no_sweep_are_told_from_a_source_that_has_stopped(active):
    bench, camera = active

    def said(words: str) -> bool:
        level, message, _ = bench.diagnostics["inputs"]
        return level == b"\x02" and words in message

    bench.wait(lambda: said("the source has stopped"), "silence to be named")

    def blocked() -> bool:
        camera.send(lens_motion=LensState.MOTION_MOVING)
        time.sleep(0.05)
        return said("slices dropped, mostly lens_moving: ")

    bench.wait(blocked, "the cause of slices that are dropped")
    bench.wait_for(DEPTH, camera.send())


def test_an_interrupted_sweep_and_a_deactivation_lose_no_slice(active):
    bench, camera = active
    bench.wait_for(REPORT, camera.send())
    assert bench.change(Transition.TRANSITION_DEACTIVATE)
    assert bench.state() == "inactive"
    assert bench.change(Transition.TRANSITION_ACTIVATE)
    bench.wait(lambda: all(p.get_subscription_count() for p in camera.publishers.values()),
               "subscriptions after activation")
    bench.wait_for(DEPTH, camera.send())
    assert balanced(slices(bench))


def test_dynamic_parameters_hold_from_the_next_sweep(active):
    bench, camera = active
    refused, reason = bench.set_parameters(motion__warn_px=20.0)
    assert not refused and "motion.reject_px" in reason
    assert bench.set_parameters(depth__max_m=0.9)[0]
    depth = image_to_array(bench.wait_for(DEPTH, camera.send()), DEPTH, ("32FC1",))
    assert (depth[8:-8, WIDTH // 2 + 12:-8] == np.inf).mean() > 0.9
    assert bench.set_parameters(depth__max_m=8.0)[0]


def test_dual_pixel_weights_are_refused_with_a_sentence():
    with Bench() as bench, bench.node(module="focus_sweep_depth", model="difuse_net_s",
                                     wait_active=False) as node:
        bench.wait(lambda: any("family sweep_depth" in line for line in node.log),
                   "the reason in the log")
        assert bench.state() == "unconfigured"
