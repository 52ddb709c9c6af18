"""Collector and session on the focus-sweep path: a set is a sweep, and slices count too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bag_scenes import write_small_bag
from sweep_bags import SLICE_NS, write_small_sweeps

from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.ros.environment import ensure_ros_environment, free_domain_id, ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from depth_fusion_ros.bags.recording import DEFAULT_START_NS
from depth_fusion_ros.msg import FrameReport
from depth_fusion_ros.ros.collector import FRAME_REPORT, OutputCollector, spinning
from depth_fusion_ros.ros.player import BagPlayer
from depth_fusion_ros.ros.replay_paths import DUAL_PIXEL, FOCUS_SWEEP, replay_path
from depth_fusion_ros.ros.replay_session import ReplaySettings, replay_through_node

pytestmark = pytest.mark.ros
NAMESPACE = "/camera"
NEWEST_NS = DEFAULT_START_NS + 3 * SLICE_NS


@pytest.fixture
def node() -> Iterator[rclpy.node.Node]:
    """A node in a context and ROS domain of its own."""
    domain = free_domain_id()
    ensure_ros_environment(domain_id=domain)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("sweep_collector_under_test", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.fixture
def bag(tmp_path: Path) -> Iterator[BagReader]:
    """One sweep of four slices."""
    write_small_sweeps(tmp_path / "bag", 1)
    with BagReader(tmp_path / "bag") as bag:
        yield bag


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 15.0
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def test_a_sweep_is_sent_when_its_last_message_is_and_has_the_stamp_of_its_newest_slice(
    node: rclpy.node.Node, bag: BagReader
) -> None:
    collector = OutputCollector(node, path=FOCUS_SWEEP, sets=FOCUS_SWEEP.sets(bag, NAMESPACE))
    seen: list[tuple[str, list[int]]] = []

    def on_published(topic: str, stamp_ns: int, now_s: float) -> None:
        collector.note_published(topic, stamp_ns, now_s)
        seen.append((topic, collector.sets_sent))

    BagPlayer(node, bag, rate=50.0).play(on_published=on_published)
    inputs = [sent for topic, sent in seen if "sweep/" in topic or "lens_state" in topic]
    assert len(inputs) == 12
    assert inputs[:11] == [[]] * 11 and inputs[11] == [NEWEST_NS]
    assert collector.images_sent == 4


def test_an_image_of_no_sweep_is_counted_and_makes_no_set(
    node: rclpy.node.Node, bag: BagReader
) -> None:
    collector = OutputCollector(node, path=FOCUS_SWEEP, sets=FOCUS_SWEEP.sets(bag, NAMESPACE))
    for topic in ("lens_state", "sweep/camera_info", "sweep/image_raw"):
        collector.note_published(f"{NAMESPACE}/{topic}", 5, 0.0)
    assert collector.sets_sent == [] and collector.images_sent == 1


def test_all_is_accounted_for_only_when_sweeps_and_slices_are(
    node: rclpy.node.Node, bag: BagReader
) -> None:
    collector = OutputCollector(node, path=FOCUS_SWEEP, sets=FOCUS_SWEEP.sets(bag, NAMESPACE))
    reports = node.create_publisher(FrameReport, f"{NAMESPACE}/{FRAME_REPORT}", 10)
    diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def tell(**values: int) -> None:
        pairs = [KeyValue(key=key.replace("__", "."), value=str(n)) for key, n in values.items()]
        status = DiagnosticStatus(name="focus_sweep_depth: inputs", values=pairs)
        diagnostics.publish(DiagnosticArray(status=[status]))
        wanted = {key.replace("__", "."): str(n) for key, n in values.items()}
        wait(lambda: collector.diagnostics("inputs") == wanted, "diagnostics")

    with spinning(node):
        wait(lambda: reports.get_subscription_count() and diagnostics.get_subscription_count(),
             "subscriptions")
        BagPlayer(node, bag, rate=50.0).play(on_published=collector.note_published)
        report = FrameReport()
        report.header.stamp.sec, report.header.stamp.nanosec = divmod(NEWEST_NS, 10**9)
        reports.publish(report)
        wait(lambda: collector.stamps(FRAME_REPORT) == [NEWEST_NS], "the report")
        assert not collector.accounted(), "nothing is known of the slices"
        tell(slices__received=4, slices__pending=1, slices__used_complete=3)
        assert not collector.accounted(), "one is pending"
        tell(slices__received=3, slices__pending=0, slices__used_complete=3)
        assert not collector.accounted(), "one never arrived"
        tell(slices__received=4, slices__pending=0, slices__used_complete=3)
        assert not collector.accounted(), "one vanished inside the node"
        tell(slices__received=4, slices__pending=0, slices__used_complete=3,
             slices__dropped__no_lens_state=1)
        assert collector.accounted()
        assert collector.slices()["dropped.no_lens_state"] == 1


def test_a_bag_of_the_other_path_is_refused_before_a_node_is_started(tmp_path: Path) -> None:
    write_small_bag(tmp_path / "sets", frames=1)
    write_small_sweeps(tmp_path / "sweeps", 1)
    ensure_ros_environment(domain_id=free_domain_id())
    for name, path in (("sets", FOCUS_SWEEP), ("sweeps", DUAL_PIXEL)):
        with pytest.raises(BagError, match="the other path"):
            replay_through_node(tmp_path / name, ReplaySettings(path=path),
                                log_path=tmp_path / "node.log")
    assert not (tmp_path / "node.log").exists()
    with pytest.raises(ValueError, match="dual_pixel, focus_sweep"):
        replay_path("stereo")
