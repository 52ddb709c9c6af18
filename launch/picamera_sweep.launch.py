"""A Raspberry Pi camera with focus motor: camera_ros, lens bridge, controller, focus_sweep_depth.

    ros2 launch depth_fusion_ros picamera_sweep.launch.py

camera_ros is a package of its own (apt install ros-<distro>-camera-ros). Its LensPosition is
what was commanded and not calibrated: metres come only with lens.allow_nominal or a calibration.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

ROOT = Path(__file__).resolve().parents[1]  # the checkout, or share/depth_fusion_ros


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "camera_name",
                default_value="camera",
                description="Namespace of all topics and name of the camera's node.",
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value=str(ROOT / "config" / "focus_sweep.yaml"),
                description="Parameters of the depth node; copy config/focus_sweep.yaml.",
            ),
            DeclareLaunchArgument(
                "controller_file",
                default_value=str(ROOT / "config" / "cameras" / "picam3_imx708.yaml"),
                description="Parameters of the controller and the bridge for this camera.",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(ROOT / "launch" / "focus_sweep.launch.py")),
                launch_arguments={
                    "camera_name": LaunchConfiguration("camera_name"),
                    "params_file": LaunchConfiguration("params_file"),
                    "controller": "true",
                    "controller_file": LaunchConfiguration("controller_file"),
                    "bridge": "true",
                    "bridge_file": LaunchConfiguration("controller_file"),
                }.items(),
            ),
            Node(
                package="camera_ros",
                executable="camera_node",
                name="camera_driver",
                namespace=LaunchConfiguration("camera_name"),
                # AfMode 0 = manual: the lens goes where LensPosition says.
                parameters=[{"AfMode": 0, "AeEnable": False, "width": 640, "height": 480}],
                remappings=[
                    ("~/image_raw", "sweep/image_raw"),
                    ("~/camera_info", "sweep/camera_info"),
                ],
                output="screen",
            ),
        ]
    )
