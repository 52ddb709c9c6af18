"""The environment for child processes: what is set, what is the user's, what is found."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from depth_fusion_ros.ros.environment import (
    DDS_PROFILE,
    child_environment,
    free_domain_id,
    ros_problem,
    share_file,
    uses_wheels,
)


def test_a_bare_environment_gets_middleware_discovery_and_our_profile() -> None:
    got = child_environment({}, domain_id=17)
    assert got["ROS_DOMAIN_ID"] == "17"
    assert got["RMW_IMPLEMENTATION"] == "rmw_fastrtps_cpp"
    assert got["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert Path(got["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()


def test_what_the_user_has_set_is_kept() -> None:
    theirs = {
        "RMW_IMPLEMENTATION": "rmw_fastrtps_dynamic_cpp",
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",
        "FASTDDS_DEFAULT_PROFILES_FILE": "/my/profile.xml",
        "ROS_DOMAIN_ID": "3",
    }
    assert theirs.items() <= child_environment(theirs).items()


@pytest.mark.parametrize(
    "theirs",
    [
        {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"},
        {"FASTRTPS_DEFAULT_PROFILES_FILE": "/my/old_profile.xml"},
        {"FASTDDS_BUILTIN_TRANSPORTS": "DEFAULT"},
    ],
)
def test_our_profile_is_not_set_for_another_middleware_or_beside_a_choice_of_the_user(
    theirs: dict[str, str],
) -> None:
    assert "FASTDDS_DEFAULT_PROFILES_FILE" not in child_environment(theirs)


@pytest.mark.skipif(not uses_wheels(), reason="rclpy does not come from wheels here")
@pytest.mark.ros
def test_a_child_imports_rclpy_and_our_messages_from_wheels_without_inherited_paths(
    tmp_path: Path,
) -> None:
    bare = {"PATH": os.environ["PATH"], "ROS_LOG_DIR": str(tmp_path)}
    bare["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"  # as inherited from another environment
    code = (
        "import rclpy; rclpy.init(); rclpy.create_node('n');"
        "from depth_fusion_ros.msg import LensState, FrameReport; print('ok')"
    )
    environment = child_environment(bare, domain_id=free_domain_id())
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "ok", done.stderr


def test_the_domain_is_in_the_safe_range_and_differs_between_runs() -> None:
    domains = {free_domain_id(seed) for seed in range(8)}
    assert all(1 <= d <= 101 for d in domains) and len(domains) > 1


def test_who_asks_at_the_same_time_gets_another_domain_and_old_claims_are_given_up() -> None:
    code = ("from depth_fusion_ros.ros.environment import free_domain_id; import sys;"
            "print(free_domain_id(1), flush=True); sys.stdin.read()")
    asking = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        given = [int(process.stdout.readline()) for process in asking if process.stdout]
    finally:
        for process in asking:
            process.communicate()
    assert len(set(given)) == 4, "the same order of search, and no two the same"
    here = [free_domain_id(1) for _ in range(150)]
    assert len(set(here[:8])) == 8
    assert len(set(here)) < 20, "claims do not pile up until every domain is taken"


def test_where_no_domain_can_be_claimed_one_is_given_all_the_same(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = socket.socket

    def without_unix(family: int, *arguments: int) -> socket.socket:
        if family == socket.AF_UNIX:
            raise PermissionError(1, "Operation not permitted")
        return whole(family, *arguments)

    monkeypatch.setattr(socket, "socket", without_unix)
    assert free_domain_id(1) == free_domain_id(1)


def test_a_missing_file_lists_where_it_was_looked_for() -> None:
    assert share_file(DDS_PROFILE).name == "fastdds_large_data.xml"
    with pytest.raises(FileNotFoundError, match="install the package"):
        share_file("config/nonsense.yaml")


def test_the_dds_profile_is_one_default_participant_with_a_64_mib_segment() -> None:
    root = ElementTree.parse(share_file(DDS_PROFILE)).getroot()
    text = {e.tag.rpartition("}")[2]: (e.text or "").strip() for e in root.iter()}
    assert text["segment_size"] == str(64 * 2**20)
    assert text["maxMessageSize"] == str(16 * 2**20)
    assert text["useBuiltinTransports"] == "false"
    (participant,) = (e for e in root.iter() if e.tag.endswith("}participant"))
    assert participant.get("is_default_profile") == "true"


_SAY = """
import sys, time, rclpy
from std_msgs.msg import String
rclpy.init()
node = rclpy.create_node("robot")
publisher = node.create_publisher(String, "word", 1)
while True:
    publisher.publish(String(data="heard"))
    time.sleep(0.05)
"""
_HEAR = """
import rclpy
from std_msgs.msg import String
rclpy.init()
node, heard = rclpy.create_node("laptop"), []
node.create_subscription(String, "word", lambda message: heard.append(message.data), 1)
while not heard:
    rclpy.spin_once(node, timeout_sec=0.1)
print(heard[0])
"""


@pytest.mark.ros
@pytest.mark.skipif(ros_problem() is not None, reason=str(ros_problem()))
def test_who_shares_no_memory_hears_a_process_with_our_profile_as_another_computer_would(
    tmp_path: Path,
) -> None:
    bare = {"PATH": os.environ["PATH"], "ROS_LOG_DIR": str(tmp_path),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}  # with LOCALHOST rmw adds a UDP of its own
    ours = child_environment(bare, domain_id=free_domain_id())
    without_memory = tmp_path / "udp.xml"
    without_memory.write_text(share_file(DDS_PROFILE).read_text().replace(
        "<transport_id>large_data_shm</transport_id>\n          ", ""))
    laptop = ours | {"FASTDDS_DEFAULT_PROFILES_FILE": str(without_memory)}
    robot = subprocess.Popen([sys.executable, "-c", _SAY], env=ours)
    try:
        done = subprocess.run([sys.executable, "-c", _HEAR], env=laptop, capture_output=True,
                              text=True, timeout=30)
    finally:
        robot.terminate()
        robot.wait(10)
    assert done.stdout.strip() == "heard", done.stderr
