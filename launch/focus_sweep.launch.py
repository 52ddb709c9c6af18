"""Start focus_sweep_depth for one camera, with what tags its slices and says its focus.

    ros2 launch depth_fusion_ros focus_sweep.launch.py camera_name:=camera controller:=true

A camera that publishes a tagged lens_state itself needs neither controller nor bridge. Further
arguments (model, device, rviz, use_sim_time, log_level, ...) are those of depth_node.launch.py;
``--show-args`` lists them all.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

ROOT = Path(__file__).resolve().parents[1]  # the checkout, or share/depth_fusion_ros
BOOLEAN = ["true", "false"]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "camera_name",
                default_value="camera",
                description="Namespace of all topics, e.g. camera for /camera/sweep/image_raw.",
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value=str(ROOT / "config" / "focus_sweep.yaml"),
                description="Parameters of the depth node; copy config/focus_sweep.yaml.",
            ),
            DeclareLaunchArgument(
                "controller",
                default_value="false",
                choices=BOOLEAN,
                description="Start focus_sweep_controller, which drives the lens and tags slices.",
            ),
            DeclareLaunchArgument(
                "controller_file",
                default_value=str(ROOT / "config" / "focus_sweep_controller.yaml"),
                description="Parameters of the controller: the camera's node, the positions.",
            ),
            DeclareLaunchArgument(
                "bridge",
                default_value="false",
                choices=BOOLEAN,
                description="Start lens_state_bridge, which says the focus of each image where "
                "the camera driver does not.",
            ),
            DeclareLaunchArgument(
                "bridge_file",
                default_value=str(ROOT / "config" / "lens_state_bridge.yaml"),
                description="Parameters of the bridge: where the focus comes from, lens numbers.",
            ),
            # first: it sets the middleware profile for the processes that follow
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(ROOT / "launch" / "depth_node.launch.py")),
                launch_arguments={
                    "node": "focus_sweep_depth",
                    "camera_name": LaunchConfiguration("camera_name"),
                    "params_file": LaunchConfiguration("params_file"),
                }.items(),
            ),
            OpaqueFunction(function=_lens_nodes),
        ]
    )


def _lens_nodes(context: LaunchContext) -> list:
    """Return controller and bridge, where asked for."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    controlled = value("controller") == "true"
    actions = []
    if controlled:
        actions.append(
            LifecycleNode(
                package="depth_fusion_ros",
                executable="focus_sweep_controller",
                name="focus_sweep_controller",
                namespace=value("camera_name"),
                parameters=[value("controller_file")],
                output="screen",
            )
        )
    if value("bridge") == "true":
        actions.append(
            Node(
                package="depth_fusion_ros",
                executable="lens_state_bridge",
                name="lens_state_bridge",
                namespace=value("camera_name"),
                parameters=[value("bridge_file")],
                # With a controller the bridge's reports go to it, and it says which are slices.
                remappings=[("lens_state", "lens_state_untagged")] if controlled else [],
                output="screen",
            )
        )
    return actions
