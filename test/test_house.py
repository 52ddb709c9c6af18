"""The house keeps its rules: floors, the ROS seam, declared dependencies, one version."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

import depth_fusion_ros

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / "depth_fusion_ros"

DISTRIBUTION_OF = {  # where the names differ
    "cv2": "opencv-python-headless",
    "rerun": "rerun-sdk",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
ROS_PACKAGE_OF = {"ament_package": "ament_cmake"}
ONLY_IN_THE_SEAM = re.compile(
    r"(rclpy|launch|launch_ros|cv_bridge|message_filters|diagnostic_updater|tf2_\w+"
    r"|tf_transformations|builtin_interfaces|rcl_interfaces|std_srvs|\w+_msgs\w*"
    r"|depth_fusion_ros\.msg)(\.|$)"
)


def imports_of(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of each import, those inside functions included."""
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def third_party_imports(files: list[Path]) -> dict[str, str]:
    """Return imported top-level names that are neither Python's nor ours, and where they stand."""
    ours = {"depth_fusion_ros", "setuptools", *(file.stem for file in files)}
    found: dict[str, str] = {}
    for file in files:
        for line, name in imports_of(file):
            top = name.split(".")[0]
            if top not in ours and top not in sys.stdlib_module_names:
                found.setdefault(top, f"{file.relative_to(CHECKOUT)}:{line}")
    return found


def required(*lists: str) -> set[str]:
    """Return the names of the distributions that the lists in requirements/ require."""
    lines = [
        line
        for name in lists
        for line in (CHECKOUT / "requirements" / name).read_text().split("\n")
    ]
    names = (re.match(r"[A-Za-z0-9._-]+", line) for line in lines if not line.startswith("#"))
    return {re.sub(r"[._-]+", "-", name.group()).lower() for name in names if name}


def package_xml(*tags: str) -> set[str]:
    """Return the text of package.xml's elements of these names."""
    root = ElementTree.parse(CHECKOUT / "package.xml").getroot()
    return {element.text or "" for tag in tags for element in root.iter(tag)}


def undeclared(files: list[Path], lists: list[str], tags: list[str]) -> dict[str, str]:
    """Return imports that are in none of the lists nor in package.xml under one of the tags."""
    pip = required(*lists)
    ros = package_xml(*tags)
    return {
        name: where
        for name, where in third_party_imports(files).items()
        if re.sub(r"_", "-", DISTRIBUTION_OF.get(name, name)).lower() not in pip
        and ROS_PACKAGE_OF.get(name, name) not in ros
    }


def test_every_import_of_the_package_is_declared() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert undeclared(files, ["runtime.txt"], ["depend", "exec_depend"]) == {}


def test_every_import_of_launch_files_is_declared() -> None:
    files = sorted((CHECKOUT / "launch").rglob("*.py"))
    assert undeclared(files, ["runtime.txt"], ["depend", "exec_depend"]) == {}


def test_every_import_of_tests_is_declared() -> None:
    files = sorted((CHECKOUT / "test").rglob("*.py"))
    tags = ["depend", "exec_depend", "test_depend"]
    assert undeclared(files, ["runtime.txt", "dev.txt", "ros.txt", "rerun.txt"], tags) == {}


def test_only_the_ros_seam_imports_ros_at_any_depth() -> None:
    """Complements the import-linter contract, which does not see the generated messages."""
    seam = {PACKAGE / "ros", PACKAGE / "nodes"}
    offenders = [
        f"{file.relative_to(CHECKOUT)}:{line} imports {name}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if seam.isdisjoint(file.parents)
        for line, name in imports_of(file)
        if ONLY_IN_THE_SEAM.match(name)
    ]
    assert offenders == []


def test_the_pattern_of_the_seam_knows_messages_from_modules() -> None:
    assert all(
        ONLY_IN_THE_SEAM.match(name)
        for name in ("rclpy", "sensor_msgs.msg.Image", "depth_fusion_ros.msg.LensState", "tf2_ros")
    )
    assert not any(
        ONLY_IN_THE_SEAM.match(name)
        for name in ("depth_fusion_ros.ros.messages", "rosbags.rosbag2", "torch", "launchpad")
    )


def test_imports_run_down_the_floors() -> None:
    lint_imports = shutil.which("lint-imports", path=sysconfig.get_path("scripts"))
    if lint_imports is None:
        pytest.skip("import-linter is not installed")
    result = subprocess.run(
        [lint_imports, "--no-logo"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_one_version_everywhere() -> None:
    changelog = re.search(r"^## (\d+\.\d+\.\d+)", (CHECKOUT / "CHANGELOG.md").read_text(), re.M)
    assert changelog
    assert package_xml("version") == {depth_fusion_ros.__version__}
    assert changelog.group(1) == depth_fusion_ros.__version__
    # pyproject.toml reads the version from the package, and setup.py adds none of its own.
    pyproject = (CHECKOUT / "pyproject.toml").read_text()
    assert 'version = { attr = "depth_fusion_ros.__version__" }' in pyproject
    assert "version=" not in (CHECKOUT / "setup.py").read_text()


def test_the_checkout_is_what_runs() -> None:
    if not (CHECKOUT / ".venv").is_dir() or Path(sys.prefix) != CHECKOUT / ".venv":
        pytest.skip("runs in an environment that make did not prepare")
    assert Path(depth_fusion_ros.__file__).parent == PACKAGE
    elsewhere = subprocess.run(
        [sys.executable, "-c", "import depth_fusion_ros as d; print(d.__file__)"],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(elsewhere.stdout.strip()).parent == PACKAGE
