"""The node dual_pixel_depth in its own process, over real DDS."""

from __future__ import annotations

import time

import numpy as np
import pytest

from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from bad_inputs import BAD_INPUTS, PACKED_BAD_INPUTS
from lifecycle_msgs.msg import Transition
from ros_helpers import (
    DEPTH,
    FRAME_ID,
    LENS,
    RELATIVE,
    REPORT,
    Bench,
    balanced,
)

from depth_fusion_ros.msg import FrameReport
from depth_fusion_ros.ros.messages import image_to_array, stamp_to_ns

pytestmark = pytest.mark.ros
FLOAT = ("32FC1",)


@pytest.fixture(scope="module")
def bench():
    with Bench() as bench:
        yield bench


@pytest.fixture(scope="module")
def active(bench):
    """One active node with the layout pair and its camera, warmed up by a first good set."""
    with bench.node("depth.max_m:=6.0", "input.sync_timeout_s:=2.0") as bench.process:
        camera = bench.camera()
        bench.wait_for(DEPTH, camera.send())
        yield bench, camera
        camera.close()


# -- good frames -------------------------------------------------------------------------------


def test_a_good_set_gives_every_output_with_its_stamp_frame_and_encoding(active):
    bench, camera = active
    stamp_ns = camera.send()
    encodings = {DEPTH: "32FC1", "depth_registered/sigma": "32FC1",
                 "depth_registered/image_raw": "16UC1", "depth_registered/provenance": "mono8",
                 "depth_registered/preview": "rgb8"}
    size = (camera.intrinsics.height_px, camera.intrinsics.width_px)
    for topic, encoding in encodings.items():
        message = bench.wait_for(topic, stamp_ns)
        assert (message.encoding, message.header.frame_id) == (encoding, FRAME_ID)
        assert (message.height, message.width) == size
    info = bench.wait_for("depth_registered/camera_info", stamp_ns)
    assert (info.height, info.width) == size
    assert info.k[0] == pytest.approx(camera.intrinsics.fx_px)
    assert info.p[3] == 0.0
    cloud = bench.wait_for("points", stamp_ns)
    assert (cloud.height, cloud.width, cloud.point_step, cloud.is_dense) == (*size, 24, False)
    report = bench.wait_for(REPORT, stamp_ns)
    assert stamp_to_ns(report.inputs_stamp) == stamp_ns
    assert bench.find(RELATIVE, stamp_ns) is None


def test_depth_follows_rep_117_and_agrees_with_every_other_output(active):
    bench, camera = active
    stamp_ns = camera.send()
    depth = image_to_array(bench.wait_for(DEPTH, stamp_ns), DEPTH, FLOAT)
    sigma = image_to_array(bench.wait_for("depth_registered/sigma", stamp_ns), "sigma", FLOAT)
    finite = np.isfinite(depth)
    assert finite.any(), "a textured pair must give some depth"
    assert depth[finite].min() >= 0.15 and depth[finite].max() <= 6.0
    assert not (depth == 0).any()
    assert np.isfinite(sigma[finite]).all() and (sigma[finite] > 0).all()
    assert np.isnan(sigma[~finite]).all()
    millimetres = image_to_array(bench.wait_for("depth_registered/image_raw", stamp_ns),
                                 "mm", ("16UC1",))
    assert np.array_equal(millimetres > 0, finite)
    assert np.abs(millimetres[finite] - depth[finite] * 1000).max() <= 0.51
    cloud = bench.wait_for("points", stamp_ns)
    points = np.frombuffer(cloud.data, np.float32).reshape(*depth.shape, 6)
    assert np.array_equal(points[..., 2][finite], depth[finite])
    assert np.isnan(points[..., :3][~finite]).all()


def test_the_report_accounts_for_time_quality_and_model(active):
    bench, camera = active
    stamp_ns = camera.send()
    report = bench.wait_for(REPORT, stamp_ns)
    depth = image_to_array(bench.wait_for(DEPTH, stamp_ns), DEPTH, FLOAT)
    assert report.scale_state == FrameReport.SCALE_ABSOLUTE
    assert report.model_id.startswith("closed_form")
    assert report.valid_ratio == pytest.approx(np.isfinite(depth).mean(), abs=1e-6)
    stages = dict(zip(report.stage_names, report.stage_ms))
    for name in ("join", "wait", "convert", "inference", "messages", "publish"):
        assert 0.0 <= stages[name] < 60_000.0
    assert list(stages).index("convert") < list(stages).index("inference")
    assert stages["inference"] < report.latency_ms < 60_000.0


def test_debug_times_are_published(active):
    bench, camera = active
    bench.wait_for(REPORT, camera.send())
    for name in ("processing_time_ms", "pipeline_latency_ms"):
        topic = f"dual_pixel_depth/debug/{name}"
        assert bench.wait(lambda t=topic: bench.received[t], topic)[-1].data > 0.0


def test_diagnostics_name_every_task_with_numbers(active):
    bench, camera = active
    bench.wait_for(REPORT, camera.send())
    bench.counters()
    assert set(bench.diagnostics) == {"inputs", "inference", "depth quality", "lens", "model",
                                      "device", "transport"}
    assert float(bench.diagnostics["inference"][2]["latency_p95_ms"]) > 0.0
    assert float(bench.diagnostics["lens"][2]["focus_diopters"]) == pytest.approx(
        LENS.focus_diopters)
    assert bench.diagnostics["model"][2]["scale_state"] == "ABSOLUTE"


# -- bad input ---------------------------------------------------------------------------------


def _reactivate(bench, camera):
    assert bench.change(Transition.TRANSITION_DEACTIVATE)
    bench.wait(lambda: not any(p.get_subscription_count() for p in camera.publishers.values()),
               "unsubscription")
    assert bench.change(Transition.TRANSITION_ACTIVATE)
    bench.wait(lambda: all(p.get_subscription_count() for p in camera.publishers.values()),
               "subscription")


def _check_bad_input(bench, camera, row, good_topic=DEPTH):
    if row.fresh:
        _reactivate(bench, camera)
    newest_ns = 0 if row.fresh else camera.send()
    if newest_ns:
        bench.wait_for(REPORT, newest_ns)
    before = bench.counters()
    stamp_ns = camera.send(row.stamp(newest_ns, time.time_ns()), row.damage)
    if row.outcome.startswith("dropped.missing"):
        time.sleep(0.02)  # ended by the next complete set
    elif row.outcome.startswith("dropped."):
        bench.wait(lambda: bench.counters_now().get(row.outcome, 0) > before.get(row.outcome, 0),
                   row.outcome)
    else:
        assert bench.wait_for(row.outcome, stamp_ns).encoding == "32FC1"
        assert bench.find(DEPTH, stamp_ns) is None
    good_ns = camera.send()
    assert bench.wait_for(good_topic, good_ns), "the node must estimate the next good set"
    after = bench.counters()
    assert balanced(after), after
    changed = {key: n - before.get(key, 0) for key, n in after.items() if n != before.get(key, 0)}
    is_drop = row.outcome.startswith("dropped.")
    wanted = {"received": 2, "estimated": 1, row.outcome: 1} if is_drop else {
        "received": 2, "estimated": 2}
    assert changed == wanted


@pytest.mark.parametrize("row", BAD_INPUTS, ids=str)
def test_bad_input(active, row):
    _check_bad_input(*active, row)


def test_each_cause_was_logged_with_topic_value_rule_and_remedy(active):
    bench, camera = active
    camera.send(damage=lambda m: setattr(m["dp/left/image_raw"], "encoding", "yuv422"))
    line = bench.wait(lambda: [x for x in bench.process.log if "(bad_encoding)" in x], "log")[-1]
    for word in ("dp/left/image_raw", "encoding = '", "must be one of mono8", "convert it"):
        assert word in line


@pytest.fixture(scope="module")
def packed():
    """The same for a packed layout, in a domain of its own."""
    with Bench() as own, own.node("dp.layout:=side_by_side", "depth.max_m:=6.0"):
        camera = own.camera(layout="side_by_side")
        own.wait_for(DEPTH, camera.send())
        yield own, camera


@pytest.mark.parametrize("row", PACKED_BAD_INPUTS, ids=str)
def test_bad_input_packed(packed, row):
    _check_bad_input(*packed, row)


def test_a_packed_pair_gives_the_same_depth_as_two_images(active, packed):
    depths = []
    for bench, camera in (active, packed):
        depths.append(image_to_array(bench.wait_for(DEPTH, camera.send()), DEPTH, FLOAT))
    assert np.array_equal(*depths, equal_nan=True)


def test_random_bytes_in_images_never_kill_the_node(active):
    bench, camera = active
    chance = np.random.default_rng(3)
    before = bench.counters()
    sent = 0
    for _ in range(20):
        def damage(messages):
            for message in messages.values():
                if hasattr(message, "encoding") and chance.random() < 0.5:
                    name = str(chance.choice(["height", "width", "step"]))
                    setattr(message, name, int(chance.integers(0, 2**31)))
                    message.is_bigendian = int(chance.integers(0, 256))
        camera.send(damage=damage)
        sent += 1
        time.sleep(0.01)
    good_ns = camera.send()
    bench.wait_for(DEPTH, good_ns)
    after = bench.counters()
    assert balanced(after)
    assert after["received"] - before["received"] == sent + 1


# -- parameters --------------------------------------------------------------------------------


def test_a_dynamic_parameter_holds_from_the_next_frame(active):
    bench, camera = active
    assert bench.set_parameters(depth__max_m=0.3, preview__max_m=0.31, preview__min_m=0.2) == (
        True, "")
    try:
        depth = image_to_array(bench.wait_for(DEPTH, camera.send()), DEPTH, FLOAT)
        assert np.isposinf(depth).any()
        assert not (depth[np.isfinite(depth)] > 0.3).any()
    finally:
        assert bench.set_parameters(depth__max_m=6.0, preview__max_m=5.0)[0]


def test_an_invalid_set_is_rejected_as_a_whole_with_a_sentence(active):
    bench, _ = active
    accepted, reason = bench.set_parameters(depth__max_sigma_ratio=0.25, depth__min_m=7.0)
    assert not accepted
    assert "depth.min_m = 7.0 with depth.max_m = 6.0" in reason
    assert bench.parameter("depth.max_sigma_ratio") == 0.5


def test_a_static_parameter_cannot_be_set(active):
    bench, _ = active
    accepted, reason = bench.set_parameters(dp__layout="side_by_side")
    assert not accepted and "read-only" in reason


# -- services and lifecycle --------------------------------------------------------------------


def test_disabled_sets_are_counted_and_enabling_goes_on(active):
    bench, camera = active
    before = bench.counters()
    bench.enable(False)
    camera.send()
    bench.wait(lambda: bench.counters_now().get("dropped.disabled", 0) == before.get(
        "dropped.disabled", 0) + 1, "dropped.disabled")
    bench.enable(True)
    bench.wait_for(DEPTH, camera.send())
    assert balanced(bench.counters())


def test_reset_statistics_clears_counters_and_keeps_the_balance(active):
    bench, camera = active
    bench.wait_for(REPORT, camera.send())
    bench.reset_statistics()
    counters = bench.counters()
    assert counters == {"received": 0, "estimated": 0, "pending": 0}


def test_a_deactivated_node_is_silent_and_comes_back_with_its_model(active):
    bench, camera = active
    assert bench.change(Transition.TRANSITION_DEACTIVATE)
    assert bench.state() == "inactive"
    stamp_ns = camera.send()
    time.sleep(0.3)
    assert bench.find(REPORT, stamp_ns) is None
    bench.counters()
    assert bench.diagnostics["model"][2]["model_id"].startswith("closed_form")
    assert bench.change(Transition.TRANSITION_ACTIVATE)
    bench.wait(lambda: all(p.get_subscription_count() for p in camera.publishers.values()), "subs")
    bench.wait_for(DEPTH, camera.send())


def test_cleanup_frees_the_model_and_configure_brings_it_back(active):
    bench, camera = active
    assert bench.change(Transition.TRANSITION_DEACTIVATE)
    assert bench.change(Transition.TRANSITION_CLEANUP)
    assert bench.state() == "unconfigured"
    bench.counters()
    assert bench.diagnostics["model"][2]["model_id"] == ""
    assert bench.change(Transition.TRANSITION_CONFIGURE)
    assert bench.change(Transition.TRANSITION_ACTIVATE)
    bench.wait(lambda: all(p.get_subscription_count() for p in camera.publishers.values()), "subs")
    bench.wait_for(DEPTH, camera.send())
