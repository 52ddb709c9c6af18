"""Start one depth node, with RViz if asked for and installed; the other launch files include this.

    ros2 launch depth_fusion_ros depth_node.launch.py node:=focus_sweep_depth

Arguments only choose files or flip switches; values live in config/. No network access.
"""

from __future__ import annotations

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

ROOT = Path(__file__).resolve().parents[1]  # the checkout, or share/depth_fusion_ros
BOOLEAN = ["true", "false"]
FILES = {"dual_pixel_depth": "dual_pixel", "focus_sweep_depth": "focus_sweep"}
"""Node to the stem of its files in config/ and config/rviz/."""


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "node",
                choices=list(FILES),
                description="Which depth node to start.",
            ),
            DeclareLaunchArgument(
                "camera_name",
                default_value="camera",
                description="Namespace of all topics, e.g. camera for /camera/dp/left/image_raw.",
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value="",
                description="Parameters of the node; empty = its file in config/, which you can "
                "copy and edit.",
            ),
            DeclareLaunchArgument(
                "camera_file",
                default_value="",
                description="Parameters of your camera on top, e.g. a copy of one in "
                "config/cameras; empty = none.",
            ),
            DeclareLaunchArgument(
                "model",
                default_value="",
                description="Network: a shipped name, a model card (.json), or closed_form; "
                "empty = as in params_file.",
            ),
            DeclareLaunchArgument(
                "device",
                default_value="",
                description="Where the network runs: auto, cpu, cuda or cuda:N; empty = as in "
                "params_file.",
            ),
            DeclareLaunchArgument(
                "camera_height_m",
                default_value="",
                description="Height of the camera above the floor (floor.camera_height_m); empty "
                "= as in params_file.",
            ),
            DeclareLaunchArgument(
                "rviz",
                default_value="false",
                choices=BOOLEAN,
                description="Open RViz with the node's layout in config/rviz (skipped with a note "
                "where rviz2 is not installed).",
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="false",
                choices=BOOLEAN,
                description="Take time from /clock: true for bags, false for a live camera.",
            ),
            DeclareLaunchArgument(
                "process_all",
                default_value="false",
                choices=BOOLEAN,
                description="Process every set in order instead of the latest only (for bags).",
            ),
            DeclareLaunchArgument(
                "autostart",
                default_value="true",
                choices=BOOLEAN,
                description="The node configures and activates itself; false where a lifecycle "
                "manager does it.",
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                choices=["debug", "info", "warn", "error", "fatal"],
                description="Log level of the node.",
            ),
            DeclareLaunchArgument(
                "dds_profile",
                default_value="auto",
                description="Fast DDS profile: auto = the shipped large-data profile unless "
                "you have set one; off = the middleware's own transports; or a file.",
            ),
            OpaqueFunction(function=_start),
        ]
    )


def _start(context: LaunchContext) -> list:
    """Return the actions; here the arguments have their values."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    def flag(name: str) -> bool:
        return value(name) == "true"

    overrides = {"use_sim_time": flag("use_sim_time"), "autostart": flag("autostart")}
    if flag("process_all"):
        overrides["replay.process_all"] = True
    overrides.update(
        {
            parameter: value(argument)
            for argument, parameter in (("model", "model.path"), ("device", "device"))
            if value(argument)
        }
    )
    if value("camera_height_m"):
        overrides["floor.camera_height_m"] = float(value("camera_height_m"))
    node = value("node")
    shipped = str(ROOT / "config" / f"{FILES[node]}.yaml")
    files = [value("params_file") or shipped]
    if value("camera_file"):
        files.append(value("camera_file"))
    actions = _dds_profile(value("dds_profile"))
    actions.append(
        LifecycleNode(
            package="depth_fusion_ros",
            executable=node,
            name=node,
            namespace=value("camera_name"),
            parameters=[*files, overrides],
            ros_arguments=["--log-level", value("log_level")],
            output="screen",
            emulate_tty=True,
        )
    )
    if flag("rviz"):
        actions.append(_rviz(FILES[node], flag("use_sim_time")))
    return actions


def _dds_profile(choice: str) -> list:
    """Return the action that sets the large-data profile, unless the user decided already."""
    theirs = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    theirs += ("FASTDDS_BUILTIN_TRANSPORTS",)
    if choice in ("auto", "off") and any(os.environ.get(name) for name in theirs):
        return []
    if choice == "off":  # said aloud, or the nodes would take the shipped profile themselves
        return [SetEnvironmentVariable("FASTDDS_BUILTIN_TRANSPORTS", "DEFAULT")]
    shipped = ROOT / "config" / "dds" / "fastdds_large_data.xml"
    path = str(shipped) if choice == "auto" else choice
    return [SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", path)]


def _rviz(layout: str, use_sim_time: bool) -> Node | LogInfo:
    """Return RViz, or a note where it is not installed."""
    if not _has_package("rviz2"):
        return LogInfo(msg="rviz2 is not installed: rviz:=true is ignored")
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        arguments=["-d", str(ROOT / "config" / "rviz" / f"{layout}.rviz")],
        parameters=[{"use_sim_time": use_sim_time}],
    )


def _has_package(name: str) -> bool:
    from ament_index_python.resources import has_resource

    return bool(has_resource("packages", name))
