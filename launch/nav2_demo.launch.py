"""A Nav2 local costmap fed by dual_pixel_depth: the simulated camera, or a bag. No robot needed.

    ros2 launch depth_fusion_ros nav2_demo.launch.py
    ros2 launch depth_fusion_ros nav2_demo.launch.py bag:=path/to/bag

The costmap runs alone, with the block of config/nav2/voxel_layer.yaml. The robot stands still:
odom, base_link and camera_link are tied together, the camera `camera_height_m` above the floor.
Needs nav2_costmap_2d, nav2_lifecycle_manager and tf2_ros.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.condition import Condition
from launch.conditions import IfCondition, UnlessCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PythonExpression
from launch_ros.actions import Node

ROOT = Path(__file__).resolve().parents[1]  # the checkout, or share/depth_fusion_ros
NEEDED = ("nav2_costmap_2d", "nav2_lifecycle_manager", "tf2_ros")
LAYOUT = str(ROOT / "config" / "rviz" / "nav2_costmap.rviz")
WITH_BAG = PythonExpression(["'", LaunchConfiguration("bag"), "' != ''"])


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "bag",
                default_value="",
                description="Bag to play instead of the simulated camera: its folder or a file.",
            ),
            DeclareLaunchArgument(
                "costmap_file",
                default_value=str(ROOT / "config" / "nav2" / "voxel_layer.yaml"),
                description="Nav2 parameters with a local_costmap block.",
            ),
            DeclareLaunchArgument(
                "camera_height_m",
                default_value="0.3",
                description="Height of the camera above the floor; it looks straight ahead.",
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
            OpaqueFunction(function=_check),
            # before the rest: it sets the middleware profile for the processes that follow
            _include("demo_synthetic", UnlessCondition(WITH_BAG)),
            _include("replay", IfCondition(WITH_BAG), bag=LaunchConfiguration("bag"),
                     process_all="false"),
            OpaqueFunction(function=_costmap),
        ]
    )


def _include(name: str, condition: Condition, **arguments: object) -> GroupAction:
    """Return another launch file, without its RViz; scoped, or its rviz:=false would be ours."""
    included = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(ROOT / "launch" / f"{name}.launch.py")),
        # camera_height_m is for depth_node.launch.py, which theirs include
        launch_arguments={"model": LaunchConfiguration("model"), "rviz": "false",
                          "camera_height_m": LaunchConfiguration("camera_height_m"),
                          **arguments}.items(),
    )
    return GroupAction([included], condition=condition, scoped=True, forwarding=True)


def _check(context: LaunchContext) -> list:
    """Say what is missing before anything starts."""
    from ament_index_python.resources import has_resource

    missing = [name for name in NEEDED if not has_resource("packages", name)]
    if missing:
        raise RuntimeError(
            f"nav2_demo needs {', '.join(missing)}: install ros-$ROS_DISTRO-navigation2 and "
            "ros-$ROS_DISTRO-tf2-ros, or look at the clouds alone with demo_synthetic.launch.py"
        )
    return []


def _costmap(context: LaunchContext) -> list:
    """Return the costmap, who activates it, its frames and RViz."""
    from ament_index_python.resources import has_resource

    sim_time = {"use_sim_time": WITH_BAG}
    height = LaunchConfiguration("camera_height_m").perform(context)
    frames = [("odom", "base_link", "0"), ("base_link", "camera_link", height)]
    if LaunchConfiguration("bag").perform(context):
        frames.append(("camera_link", "camera_rgb_optical_frame", None))
    nodes = [_static_transform(parent, child, z) for parent, child, z in frames]
    nodes += [
        Node(
            package="nav2_costmap_2d",
            executable="nav2_costmap_2d",
            parameters=[_as_standalone(LaunchConfiguration("costmap_file").perform(context)),
                        sim_time],
            output="screen",
        ),
        Node(
            package="nav2_lifecycle_manager",
            executable="lifecycle_manager",
            name="lifecycle_manager_costmap",
            # The costmap offers no bond when it runs alone.
            parameters=[{"autostart": True, "bond_timeout": 0.0,
                         "node_names": ["costmap/costmap"]}, sim_time],
            output="screen",
        ),
    ]
    wanted = LaunchConfiguration("rviz").perform(context) == "true"
    if wanted and has_resource("packages", "rviz2"):
        nodes.append(Node(package="rviz2", executable="rviz2", arguments=["-d", LAYOUT],
                          parameters=[sim_time]))
    return nodes


def _static_transform(parent: str, child: str, z_m: str | None) -> Node:
    """Return parent → child: raised by z, or, where z is None, from link to optical frame."""
    arguments = ["--frame-id", parent, "--child-frame-id", child]
    if z_m is None:
        arguments += ["--qx", "-0.5", "--qy", "0.5", "--qz", "-0.5", "--qw", "0.5"]  # REP-103
    else:
        arguments += ["--z", z_m]
    return Node(package="tf2_ros", executable="static_transform_publisher",
                name=f"{child}_in_{parent}", arguments=arguments)


def _as_standalone(costmap_file: str) -> str:
    """Return a parameter file for Nav2's costmap executable, which names itself costmap/costmap."""
    content = yaml.safe_load(Path(costmap_file).read_text())
    block = content["local_costmap"]["local_costmap"]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as file:
        yaml.safe_dump({"costmap": {"costmap": block}}, file)
    return file.name
