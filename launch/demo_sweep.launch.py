"""A simulated camera whose focus is driven, the controller that drives it, and focus_sweep_depth.

    ros2 launch depth_fusion_ros demo_sweep.launch.py

No hardware needed. The camera renders its scene at start (some seconds), then obeys the lens
commands with the latency, hysteresis and breathing of config/synthetic_camera.yaml.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

ROOT = Path(__file__).resolve().parents[1]  # the checkout, or share/depth_fusion_ros
OPTICAL_FROM_LINK = ["--qx", "-0.5", "--qy", "0.5", "--qz", "-0.5", "--qw", "0.5"]  # REP-103
POSITION = "lens_position_diopters"


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "camera_params_file",
                default_value=str(ROOT / "config" / "synthetic_camera.yaml"),
                description="Parameters of the simulated camera (lens, size, rate, latency).",
            ),
            DeclareLaunchArgument(
                "controller_file",
                default_value=str(ROOT / "config" / "focus_sweep_controller.yaml"),
                description="Parameters of the controller (positions, settling, trigger).",
            ),
            DeclareLaunchArgument(
                "rviz",
                default_value="true",
                choices=["true", "false"],
                description="Open RViz (skipped with a note where rviz2 is not installed).",
            ),
            # first: it sets the middleware profile for the processes that follow
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(ROOT / "launch" / "depth_node.launch.py")),
                launch_arguments={
                    "node": "focus_sweep_depth",
                    "camera_name": "camera",
                    "rviz": LaunchConfiguration("rviz"),
                }.items(),
            ),
            Node(
                package="depth_fusion_ros",
                executable="synthetic_camera",
                name="synthetic_camera",
                namespace="camera",
                parameters=[LaunchConfiguration("camera_params_file"), {"kind": "focus"}],
                # What the lens reports goes to the controller, which says what is a slice.
                remappings=[("lens_state", "lens_state_untagged")],
                output="screen",
            ),
            LifecycleNode(
                package="depth_fusion_ros",
                executable="focus_sweep_controller",
                name="focus_sweep_controller",
                namespace="camera",
                parameters=[
                    LaunchConfiguration("controller_file"),
                    {"camera.node": "synthetic_camera", "camera.parameter": POSITION},
                ],
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
