"""Launch files: readable anywhere, every argument described, run where launch is installed."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bag_scenes import write_small_bag

from depth_fusion_ros.ros.environment import child_environment, free_domain_id

ROOT = Path(__file__).resolve().parents[1]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
HAS_LAUNCH = all(importlib.util.find_spec(name) for name in ("launch", "launch_ros"))
needs_launch = pytest.mark.skipif(
    not HAS_LAUNCH, reason="launch and launch_ros are not installed (they have no PyPI wheels)"
)
each_file = pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda p: p.name)


def calls(path: Path, name: str) -> list[ast.Call]:
    tree = ast.parse(path.read_text(), filename=str(path))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [c for c in found if isinstance(c.func, ast.Name) and c.func.id == name]


def test_there_is_a_launch_file_for_camera_demo_and_replay() -> None:
    names = {path.name for path in LAUNCH_FILES}
    assert names >= {"dual_pixel.launch.py", "demo_synthetic.launch.py", "replay.launch.py",
                     "focus_sweep.launch.py", "demo_sweep.launch.py", "picamera_sweep.launch.py"}


@each_file
def test_every_argument_says_what_it_is_for(path: Path) -> None:
    arguments = calls(path, "DeclareLaunchArgument")
    assert arguments
    for argument in arguments:
        name = ast.literal_eval(argument.args[0])
        keywords = {k.arg: k.value for k in argument.keywords}
        description = ast.literal_eval(keywords["description"])
        assert len(description) > 20 and description.endswith("."), f"{path.name}: {name}"
        default = keywords.get("default_value")
        if isinstance(default, ast.Constant) and default.value in ("true", "false"):
            assert "choices" in keywords, f"{path.name}: {name} is a switch without choices"


@each_file
def test_no_launch_file_reaches_for_the_network_or_evaluates_text(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert not {i.split(".")[0] for i in imported} & {"urllib", "requests", "socket", "http"}
    assert not calls(path, "eval") and not calls(path, "exec")


@each_file
def test_arguments_that_are_used_are_declared_here(path: Path) -> None:
    declared = {ast.literal_eval(c.args[0]) for c in calls(path, "DeclareLaunchArgument")}
    used = {
        c.args[0].value
        for c in calls(path, "LaunchConfiguration")
        if isinstance(c.args[0], ast.Constant)
    }
    assert used <= declared


def test_parameter_files_of_cameras_only_name_parameters_the_node_has() -> None:
    def sections(path: Path) -> dict[str, set[str]]:
        return {node: set(values["ros__parameters"])
                for node, values in yaml.safe_load(path.read_text()).items()}

    cameras = sorted((ROOT / "config" / "cameras").glob("*.yaml"))
    assert len(cameras) >= 4
    for path in cameras:
        for node, named in sections(path).items():
            stem = "dual_pixel" if node == "/**" else node.removeprefix("/**/")
            known = sections(ROOT / "config" / f"{stem}.yaml")["/**"]
            assert named <= known, f"{path.name}, {node}: {named - known}"


@pytest.mark.parametrize(("layout", "picture"), [
    ("dual_pixel", "/camera/rgb/image_rect"), ("focus_sweep", "/camera/aif/image")])
def test_rviz_layouts_show_what_came_in_and_what_came_out(layout: str, picture: str) -> None:
    shown = yaml.safe_load((ROOT / "config" / "rviz" / f"{layout}.rviz").read_text())
    displays = shown["Visualization Manager"]["Displays"]
    topics = {d["Topic"]["Value"] for d in displays if "Topic" in d}
    assert {"/camera/points", "/camera/depth_registered/preview", picture} <= topics
    assert all(d["Topic"]["Reliability Policy"] == "Reliable" for d in displays if "Topic" in d)


def test_rosbag_files_are_yaml_and_speak_of_our_topics() -> None:
    recorded = yaml.safe_load((ROOT / "config" / "rosbag" / "record.yaml").read_text())["topics"]
    qos = yaml.safe_load((ROOT / "config" / "rosbag" / "qos_overrides.yaml").read_text())
    assert set(qos) <= set(recorded)
    assert all(profile["reliability"] == "reliable" for profile in qos.values())


@needs_launch
@each_file
def test_launch_reads_the_file_and_its_arguments(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.name.split(".")[0], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description = module.generate_launch_description()
    assert all(argument.description for argument in description.get_launch_arguments())


@needs_launch
@pytest.mark.ros_install
def test_replay_starts_the_node_plays_the_bag_and_ends_cleanly(tmp_path: Path) -> None:
    write_small_bag(tmp_path / "bag", frames=5, width_px=64, height_px=48)
    code = (
        "import sys; from launch import LaunchDescription, LaunchService;"
        "from launch.actions import IncludeLaunchDescription as Include;"
        "from launch.launch_description_sources import PythonLaunchDescriptionSource as Source;"
        "service = LaunchService();"
        f"file = {str(ROOT / 'launch' / 'replay.launch.py')!r};"
        f"arguments = [('bag', {str(tmp_path / 'bag')!r}), ('model', 'closed_form')];"
        "include = Include(Source(file), launch_arguments=arguments);"
        "service.include_launch_description(LaunchDescription([include]));"
        "sys.exit(service.run())"
    )
    environment = child_environment(domain_id=free_domain_id())
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    environment["ROS_LOG_DIR"] = str(tmp_path / "log")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "dual_pixel_depth]: active" in output
    assert "messages in" in output  # the player's last line
    assert "died" not in output, output
