"""What an interrupt does to a node's process, wherever in its work it comes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from depth_fusion_ros.ros.environment import child_environment, free_domain_id, ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

pytestmark = pytest.mark.ros
NODE = """
import os, signal, sys, time
from rclpy.node import Node
from depth_fusion_ros.ros.run import run_node

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)

class Interrupted(Node):
    def __init__(self):
        super().__init__("interrupted")
        if sys.argv[1] == "start":
            interrupt()
        self.create_timer(0.01, self.work)

    def work(self):
        interrupt()
        print("the callback came to its end", flush=True)

    def destroy_node(self):
        interrupt()
        super().destroy_node()
        print("tidied up", flush=True)

sys.exit(run_node(Interrupted, []))
"""


def interrupted(during: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", NODE, during], timeout=60.0, capture_output=True, text=True,
        env=child_environment(domain_id=free_domain_id()))


def test_an_interrupt_lets_the_running_callback_finish_and_a_second_one_breaks_nothing():
    """A KeyboardInterrupt inside rclpy's conversion of a message would come out as an error."""
    ended = interrupted("work")
    assert ended.stdout.splitlines() == ["the callback came to its end", "tidied up"], ended
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_interrupt_while_the_node_is_being_made_ends_it_cleanly():
    ended = interrupted("start")
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
