"""A simulated dual-pixel camera with ground truth into dual_pixel_depth: no hardware needed.

    ros2 launch depth_fusion_ros demo_synthetic.launch.py

The camera renders its frames at start (some seconds), then repeats them with new stamps.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

ROOT = Path(__file__).resolve().parents[1]  # the checkout, or share/depth_fusion_ros
OPTICAL_FROM_LINK = ["--qx", "-0.5", "--qy", "0.5", "--qz", "-0.5", "--qw", "0.5"]  # REP-103


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "camera_params_file",
                default_value=str(ROOT / "config" / "synthetic_camera.yaml"),
                description="Parameters of the simulated camera (lens, size, rate, seed).",
            ),
            DeclareLaunchArgument(
                "model",
                default_value="",
                description="Network: a shipped name (difuse_net_s), a model card (.json), or "
                "closed_form; empty = as in config/dual_pixel.yaml.",
            ),
            DeclareLaunchArgument(
                "rviz",
                default_value="true",
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
                    "camera_name": "camera",
                    "model": LaunchConfiguration("model"),
                    "rviz": LaunchConfiguration("rviz"),
                    "dds_profile": LaunchConfiguration("dds_profile"),
                }.items(),
            ),
            Node(
                package="depth_fusion_ros",
                executable="synthetic_camera",
                name="synthetic_camera",
                namespace="camera",
                parameters=[LaunchConfiguration("camera_params_file")],
                output="screen",
            ),
            OpaqueFunction(function=_static_transform),
        ]
    )


def _static_transform(context: LaunchContext) -> list:
    """Return camera_link -> optical frame, where tf2_ros is installed (RViz needs it)."""
    from ament_index_python.resources import has_resource

    if not has_resource("packages", "tf2_ros"):
        return []
    frames = ["--frame-id", "camera_link", "--child-frame-id", "camera_rgb_optical_frame"]
    return [
        Node(
            package="tf2_ros",
            executable="static_transform_publisher",
            name="camera_optical_frame",
            arguments=[*frames, *OPTICAL_FROM_LINK],
        )
    ]
