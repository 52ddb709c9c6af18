"""The player and the collector over real DDS, with the other end in another process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from bag_scenes import PERIOD_NS, write_small_bag

from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.ros.environment import (
    child_environment,
    ensure_ros_environment,
    free_domain_id,
    ros_problem,
)

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

import rclpy

from depth_fusion_ros.bags.writer import DEFAULT_START_NS
from depth_fusion_ros.ros.collector import DEPTH, SIGMA, OutputCollector, spinning
from depth_fusion_ros.ros.player import BagPlayer

pytestmark = pytest.mark.ros
PEER = Path(__file__).with_name("depth_peer.py")
LEFT = "/camera/dp/left/image_raw"
TRUTH = "/camera/ground_truth/depth"


@pytest.fixture
def node() -> Iterator[rclpy.node.Node]:
    """A node in a context and ROS domain of its own; processes started meanwhile share it."""
    domain = free_domain_id()
    ensure_ros_environment(domain_id=domain)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("player_under_test", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


@contextmanager
def peer(*arguments: str) -> Iterator[subprocess.Popen]:
    """Run depth_peer.py in a process of its own; `finish(process)` gives its state."""
    process = subprocess.Popen(
        [sys.executable, str(PEER), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment(),
        text=True,
    )
    assert process.stdout.readline().strip() == "ready"
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=10)


def finish(process: subprocess.Popen) -> dict:
    out, _ = process.communicate("quit\n", timeout=20)
    return json.loads(out)


def test_every_message_arrives_in_another_process_and_the_clock_is_the_bags(
    node: rclpy.node.Node, tmp_path: Path
) -> None:
    write_small_bag(tmp_path / "bag", frames=10)
    with peer("count", LEFT, TRUTH) as process, BagReader(tmp_path / "bag") as bag:
        player = BagPlayer(node, bag, rate=2.0)
        assert player.wait_for_subscribers([LEFT, TRUTH], timeout_s=15.0) == []
        report = player.play()
        state = finish(process)
    assert state["counts"] == {LEFT: 10, TRUTH: 10}
    assert report.published[LEFT] == 10 and report.total == 70
    assert report.unacknowledged == []
    assert 0.4 < report.wall_s < 1.5  # 0.9 s of bag at rate 2
    clock = state["clock"]
    assert clock == sorted(clock)
    assert clock[0] >= DEFAULT_START_NS and clock[-1] == DEFAULT_START_NS + 9 * PERIOD_NS


def test_a_topic_whose_type_is_not_installed_is_left_out_with_the_reason(
    node: rclpy.node.Node, tmp_path: Path
) -> None:
    write_small_bag(tmp_path / "bag", frames=1)
    with BagReader(tmp_path / "bag") as bag:
        player = BagPlayer(node, bag, publish_clock=False)
        report = player.play()
    try:
        import tf2_msgs  # noqa: F401
    except ImportError:
        assert "tf2_msgs/msg/TFMessage is not installed" in report.skipped["/tf_static"]
        assert "/tf_static" not in report.published
    else:
        assert report.published["/tf_static"] == 1


def test_waiting_for_a_subscriber_that_does_not_come_ends_and_names_the_topic(
    node: rclpy.node.Node, tmp_path: Path
) -> None:
    write_small_bag(tmp_path / "bag", frames=1)
    with BagReader(tmp_path / "bag") as bag:
        player = BagPlayer(node, bag, topics=[LEFT])
        started = time.monotonic()
        assert player.wait_for_subscribers([LEFT], timeout_s=0.3) == [LEFT]
        assert time.monotonic() - started < 2.0
        assert player.play(should_stop=lambda: True).total == 0
        with pytest.raises(ValueError, match="not in"):
            BagPlayer(node, bag, topics=["/nothing"])
        with pytest.raises(ValueError, match="rate"):
            BagPlayer(node, bag, rate=0.0)


def test_the_collector_joins_outputs_by_stamp_and_accounts_for_every_set(
    node: rclpy.node.Node, tmp_path: Path
) -> None:
    write_small_bag(tmp_path / "bag", frames=12)
    collector = OutputCollector(node)
    with peer("depth") as process, BagReader(tmp_path / "bag") as bag, spinning(node):
        player = BagPlayer(node, bag, rate=2.0)
        assert player.wait_for_subscribers([LEFT], timeout_s=15.0) == []
        player.play(on_published=collector.note_published)
        assert player.keep_clock_running(10.0, collector.accounted)
        finish(process)
    stamps = [DEFAULT_START_NS + i * PERIOD_NS for i in range(12)]
    estimated = [s for i, s in enumerate(stamps) if (i + 1) % 5]
    assert collector.sets_sent == stamps
    assert collector.stamps(DEPTH) == collector.stamps(SIGMA) == estimated
    assert collector.drops() == {"every_fifth": 2}
    depth = collector.image(DEPTH, estimated[3])
    np.testing.assert_array_equal(depth.array, np.full((24, 32), 2.0, np.float32))
    assert len(collector.latencies_ms()) == 10
    assert all(-50.0 < ms < 5000.0 for ms in collector.latencies_ms()), collector.latencies_ms()
    assert collector.stages_ms()["node total"] == [5.0] * 10
    assert collector.diagnostics("inputs")["rate_hz"] == "10"
    assert collector.image(DEPTH, stamps[4]) is None


def test_a_set_that_vanishes_without_a_word_is_not_accounted_for(
    node: rclpy.node.Node, tmp_path: Path
) -> None:
    write_small_bag(tmp_path / "bag", frames=4)
    collector = OutputCollector(node)
    with peer("depth", "--silent", "2"), BagReader(tmp_path / "bag") as bag, spinning(node):
        player = BagPlayer(node, bag, rate=2.0)
        assert player.wait_for_subscribers([LEFT], timeout_s=15.0) == []
        player.play(on_published=collector.note_published)
        assert not player.keep_clock_running(1.0, collector.accounted)
    assert len(collector.sets_sent) - len(collector.stamps(DEPTH)) == 1
