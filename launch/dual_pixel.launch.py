"""Start dual_pixel_depth for one camera, with RViz if asked for and installed.

    ros2 launch depth_fusion_ros dual_pixel.launch.py camera_name:=camera model:=difuse_net_s

Further arguments (device, rviz, use_sim_time, log_level, ...) are those of depth_node.launch.py;
``--show-args`` lists them all.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

ROOT = Path(__file__).resolve().parents[1]  # the checkout, or share/depth_fusion_ros


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params_file",
                default_value=str(ROOT / "config" / "dual_pixel.yaml"),
                description="Parameters of the node; copy config/dual_pixel.yaml and edit it.",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(ROOT / "launch" / "depth_node.launch.py")),
                launch_arguments={
                    "node": "dual_pixel_depth",
                    "params_file": LaunchConfiguration("params_file"),
                }.items(),
            ),
        ]
    )
