"""Replay a bag into dual_pixel_depth at its recorded pace, on the bag's clock.

    ros2 launch depth_fusion_ros replay.launch.py bag:=path/to/bag rate:=1.0

The launch ends when the bag does. For numbers against ground truth use `depth-fusion demo`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

ROOT = Path(__file__).resolve().parents[1]  # the checkout, or share/depth_fusion_ros
FINISH_S = 2.0  # for the last sets, after the last message of the bag


def generate_launch_description() -> LaunchDescription:
    player = ExecuteProcess(
        cmd=[
            sys.executable,
            "-m",
            "depth_fusion_ros.cli.main",
            "bag",
            "play",
            LaunchConfiguration("bag"),
            "--rate",
            LaunchConfiguration("rate"),
            "--wait",
            "60",
        ],
        name="bag_play",
        output="screen",
    )
    done = Shutdown(reason="the bag has been played")
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "bag", description="Bag to play: its folder, or a .mcap or .db3 file."
            ),
            DeclareLaunchArgument(
                "rate", default_value="1.0", description="Speed against the recording, > 0."
            ),
            DeclareLaunchArgument(
                "model",
                default_value="",
                description="Network: a shipped name (difuse_net_s), a model card (.json), or "
                "closed_form; empty = as in config/dual_pixel.yaml.",
            ),
            DeclareLaunchArgument(
                "camera_file",
                default_value="",
                description="Parameters of the recorded camera, e.g. one in config/cameras.",
            ),
            DeclareLaunchArgument(
                "process_all",
                default_value="true",
                choices=["true", "false"],
                description="Process every set in order; false = latest only, as on a robot.",
            ),
            DeclareLaunchArgument(
                "rviz",
                default_value="false",
                choices=["true", "false"],
                description="Open RViz (skipped with a note where rviz2 is not installed).",
            ),
            DeclareLaunchArgument(
                "dds_profile",
                default_value="auto",
                description="Fast DDS profile: auto, off, or a file; see dual_pixel.launch.py.",
            ),
            # first: it sets the middleware profile for the processes that follow
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(ROOT / "launch" / "dual_pixel.launch.py")),
                launch_arguments={
                    "use_sim_time": "true",
                    **{
                        name: LaunchConfiguration(name)
                        for name in ("model", "camera_file", "process_all", "rviz", "dds_profile")
                    },
                }.items(),
            ),
            player,
            RegisterEventHandler(
                OnProcessExit(
                    target_action=player,
                    on_exit=[TimerAction(period=FINISH_S, actions=[EmitEvent(event=done)])],
                )
            ),
        ]
    )
