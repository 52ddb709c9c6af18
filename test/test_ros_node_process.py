"""A node process that dies or never comes up is reported with the tail of its log."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from depth_fusion_ros.ros.environment import (
    child_environment,
    ensure_ros_environment,
    free_domain_id,
    ros_problem,
)

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

import rclpy

from depth_fusion_ros.ros.collector import spinning
from depth_fusion_ros.ros.node_process import NodeFailure, NodeProcess

pytestmark = pytest.mark.ros
CLOSED_FORM = ["-p", "model.path:=closed_form", "-p", "model.warmup_iterations:=0"]


@pytest.fixture
def node() -> Iterator[rclpy.node.Node]:
    domain = free_domain_id()
    ensure_ros_environment(domain_id=domain)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("process_watcher", context=context)
    with spinning(node):
        yield node
    rclpy.shutdown(context=context)


def test_a_node_becomes_active_and_stops_cleanly(node: rclpy.node.Node, tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    with NodeProcess("dual_pixel_depth", CLOSED_FORM, log_path=log) as process:
        process.wait_active(node, timeout_s=90.0)
        assert process.return_code is None
        assert process.stop() == 0
    assert "active" in log.read_text()


def test_a_refused_parameter_is_reported_with_the_nodes_own_words(
    node: rclpy.node.Node, tmp_path: Path
) -> None:
    arguments = [*CLOSED_FORM, "-p", "depth.max_m:=-1.0"]
    log = tmp_path / "node.log"
    with (
        NodeProcess("dual_pixel_depth", arguments, log_path=log) as process,
        pytest.raises(NodeFailure, match=r"ended with exit status 2") as caught,
    ):
        process.wait_active(node, timeout_s=90.0)
    assert "depth.max_m" in str(caught.value) and str(log) in str(caught.value)


def test_a_model_that_cannot_be_loaded_is_reported_with_the_nodes_own_words(
    node: rclpy.node.Node, tmp_path: Path
) -> None:
    arguments = ["-p", "model.path:=/no/such/card.json"]
    process = NodeProcess("dual_pixel_depth", arguments, log_path=tmp_path / "node.log")
    with process, pytest.raises(NodeFailure, match="refused its configuration") as caught:
        process.wait_active(node, timeout_s=90.0)
    assert "/no/such/card.json" in str(caught.value)


def test_a_killed_node_is_noticed_at_once(node: rclpy.node.Node, tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    with NodeProcess("dual_pixel_depth", CLOSED_FORM, log_path=log) as process:
        os.kill(process._process.pid, signal.SIGKILL)
        time.sleep(0.2)
        with pytest.raises(NodeFailure, match="exit status -9"):
            process.wait_active(node, timeout_s=90.0)


def test_a_node_that_stays_inactive_is_reported_with_its_state(
    node: rclpy.node.Node, tmp_path: Path
) -> None:
    arguments = [*CLOSED_FORM, "-p", "autostart:=false"]
    log = tmp_path / "node.log"
    process = NodeProcess(
        "dual_pixel_depth", arguments, log_path=log, environment=child_environment()
    )
    with process:
        deadline = time.monotonic() + 60
        while "dual_pixel_depth" not in node.get_node_names() and time.monotonic() < deadline:
            time.sleep(0.1)
        with pytest.raises(NodeFailure, match=r"not active after .* \(state: unconf"):
            process.wait_active(node, timeout_s=4.0)
