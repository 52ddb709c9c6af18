"""The depth-fusion command: help, bags, doctor, and the demo end to end over real DDS."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from bag_scenes import write_small_bag
from typer.testing import CliRunner

from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.cli.main import app
from depth_fusion_ros.cli.simulated_bag import SimulatedBag
from depth_fusion_ros.ros.environment import child_environment, free_domain_id, ros_problem

SMALL = ("--frames", "4", "--size", "96x72")
CLOSED_FORM = ("--path", "dual_pixel", "--model", "closed_form")
needs_ros = pytest.mark.skipif(ros_problem() is not None, reason=str(ros_problem()))


def run(*arguments: str, timeout_s: float = 280.0) -> subprocess.CompletedProcess[str]:
    """Run depth-fusion in a process and ROS domain of its own."""
    environment = child_environment(domain_id=free_domain_id())
    environment |= {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "depth_fusion_ros.cli.main", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


@pytest.mark.parametrize(
    "command", [["demo"], ["bag"], ["bag", "make"], ["bag", "play"], ["doctor"], ["train"]]
)
def test_every_command_explains_itself_and_its_options(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_help_does_not_load_torch_or_rclpy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner;"
        "from depth_fusion_ros.cli.main import app;"
        "CliRunner().invoke(app, ['demo', '--help']);"
        "print([m for m in ('torch', 'rclpy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_no_file_of_the_cli_imports_ros_at_module_level() -> None:
    folder = Path(__file__).resolve().parents[1] / "depth_fusion_ros" / "cli"
    free_of_rclpy = {"depth_fusion_ros.ros.environment"}
    for source in folder.glob("*.py"):
        for statement in ast.parse(source.read_text()).body:
            modules = []
            if isinstance(statement, ast.ImportFrom):
                modules = [statement.module or ""]
            elif isinstance(statement, ast.Import):
                modules = [alias.name for alias in statement.names]
            bad = [m for m in modules if m.startswith(("rclpy", "depth_fusion_ros.ros"))]
            assert set(bad) <= free_of_rclpy, f"{source.name} imports {bad}"


def test_bag_make_writes_the_sets_that_were_asked_for_and_they_repeat(tmp_path: Path) -> None:
    for name in ("a", "b"):
        done = CliRunner().invoke(
            app, ["bag", "make", str(tmp_path / name), "--frames", "2", "--size", "64x48"]
        )
        assert done.exit_code == 0, done.output
    with BagReader(tmp_path / "a") as one, BagReader(tmp_path / "b") as two:
        assert one.metadata["camera"] == "robot_12mm" and one.metadata["frames"] == "2"
        first, second = list(one.frames()), list(two.frames())
    assert len(first) == 2 and all(r.is_complete and r.truth is not None for r in first)
    assert first[0].left.array.shape == (48, 64)
    assert (first[1].left.array == second[1].left.array).all()
    again = CliRunner().invoke(app, ["bag", "make", str(tmp_path / "a")])
    assert again.exit_code == 2 and "--overwrite" in again.output


def test_bag_make_refuses_wrong_sizes_and_cameras(tmp_path: Path) -> None:
    path = str(tmp_path / "bag")
    wrong_size = CliRunner().invoke(app, ["bag", "make", path, "--size", "320"])
    assert wrong_size.exit_code == 2 and "WIDTHxHEIGHT" in wrong_size.output
    wrong_camera = CliRunner().invoke(app, ["bag", "make", path, "--camera", "gopro"])
    assert wrong_camera.exit_code == 2 and "gopro" in wrong_camera.output
    assert not Path(path).exists()


def test_images_do_not_depend_on_the_number_of_cores_that_rendered_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = SimulatedBag(frames=7, width_px=48, height_px=32)
    for name, cores in (("one", {0}), ("two", {0, 1})):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        plan.make(tmp_path / name)
    with BagReader(tmp_path / "one") as one, BagReader(tmp_path / "two") as two:
        for first, second in zip(one.frames(), two.frames(), strict=True):
            difference = first.left.array.astype(int) - second.left.array
            assert abs(difference).max() <= 1  # sums of floats in another order
            np.testing.assert_allclose(first.truth.array, second.truth.array, rtol=1e-5)


def test_a_cached_bag_is_taken_only_for_the_same_parameters_and_never_half_made(
    tmp_path: Path,
) -> None:
    plan = SimulatedBag(frames=1, width_px=32, height_px=32)

    def fail_at_once(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan.make(tmp_path / "bag", on_frame=fail_at_once)
    assert not plan.is_at(tmp_path / "bag")
    plan.make(tmp_path / "bag")
    assert plan.is_at(tmp_path / "bag")
    assert not SimulatedBag(frames=1, width_px=32, height_px=32, seed=1).is_at(tmp_path / "bag")
    assert SimulatedBag().name != SimulatedBag(camera="phone").name


def test_bag_info_lists_topics_and_a_broken_bag_ends_with_a_sentence(tmp_path: Path) -> None:
    write_small_bag(tmp_path / "bag")
    shown = CliRunner().invoke(app, ["bag", "info", str(tmp_path / "bag")])
    assert shown.exit_code == 0 and "/camera/lens_state" in shown.output
    (file,) = (tmp_path / "bag").glob("*.mcap")
    file.write_bytes(file.read_bytes()[:2000])
    broken = CliRunner().invoke(app, ["bag", "info", str(tmp_path / "bag")])
    assert broken.exit_code == 1 and "truncated, damaged" in broken.output
    assert "Traceback" not in broken.output


@needs_ros
@pytest.mark.ros
@pytest.mark.alone
def test_bag_play_counts_what_it_published(tmp_path: Path) -> None:
    write_small_bag(tmp_path / "bag")
    done = run("bag", "play", str(tmp_path / "bag"), "--rate", "5")
    assert done.returncode == 0, done.stderr
    assert "messages in" in done.stdout
    missing = run("bag", "play", str(tmp_path / "nowhere"))
    assert missing.returncode == 1 and "metadata.yaml" in missing.stdout


@needs_ros
@pytest.mark.ros
@pytest.mark.alone
def test_doctor_finds_ros_our_messages_and_large_messages_arriving() -> None:
    done = run("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in ("LensState, FrameReport", "PyTorch", "rmw_fastrtps_cpp", "4 MB"):
        assert expected in done.stdout
    arrived = [line for line in done.stdout.splitlines() if " of 15 arrive" in line]
    assert len(arrived) == 3


@needs_ros
@pytest.mark.ros
@pytest.mark.alone
@pytest.mark.skipif(
    os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp") != "rmw_fastrtps_cpp",
    reason="only Fast DDS has this default",
)
def test_the_transport_check_sees_a_small_shared_memory_segment_lose_images(
    tmp_path: Path,
) -> None:
    profile = Path(child_environment({})["FASTDDS_DEFAULT_PROFILES_FILE"]).read_text()
    small = tmp_path / "small.xml"
    small.write_text(profile.replace("67108864", "524288").replace(
        "<maxMessageSize>16777216", "<maxMessageSize>65500"))
    code = (
        "from depth_fusion_ros.ros.environment import ensure_ros_environment as e; e();"
        "from depth_fusion_ros.ros.transport_check import check_transport;"
        "print([r.is_good for r in check_transport((0.2, 4.0), messages=8)])"
    )
    environment = child_environment(domain_id=free_domain_id())
    environment["FASTDDS_DEFAULT_PROFILES_FILE"] = str(small)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=90
    )
    assert done.stdout.strip() == "[True, False]", done.stdout + done.stderr


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo folder whose bag is there already."""
    folder = tmp_path_factory.mktemp("demo")
    plan = SimulatedBag(frames=4, width_px=96, height_px=72)
    made = run("bag", "make", str(folder / "bags" / plan.name), *SMALL)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


@needs_ros
@pytest.mark.ros
@pytest.mark.alone
def test_the_demo_accounts_for_every_set_and_leaves_picture_report_and_bag(
    demo_folder: Path,
) -> None:
    done = run("demo", "--out", str(demo_folder), *CLOSED_FORM, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every set is accounted for" in done.stdout and "simulated data" in done.stdout
    report = json.loads((demo_folder / "dual_pixel" / "report.json").read_text())
    assert report["sets_sent"] == 4
    assert report["sets_estimated"] + sum(report["sets_dropped"].values()) == 4
    assert 0.0 < report["accuracy"]["abs_rel"] < 1.0
    assert 0.3 < report["accuracy"]["delta_1"] <= 1.0
    assert report["latency_ms"]["p50_ms"] > report["stages_ms"]["inference"] > 0
    assert (demo_folder / "dual_pixel" / "contact_sheet.png").stat().st_size > 20_000
    assert Path(report["files"]["bag"]).is_dir()


@needs_ros
@pytest.mark.ros
@pytest.mark.alone
def test_an_overloaded_node_drops_sets_with_a_cause_and_all_are_accounted_for(
    demo_folder: Path,
) -> None:
    done = run(
        "demo", "--out", str(demo_folder), *CLOSED_FORM, "--rate", "1000", *SMALL
    )
    report = json.loads((demo_folder / "dual_pixel" / "report.json").read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bag from before" in done.stdout
    assert report["sets_estimated"] >= 1 and report["sets_dropped"]["busy"] >= 1
    assert report["sets_estimated"] + sum(report["sets_dropped"].values()) == 4


@needs_ros
@pytest.mark.ros
@pytest.mark.alone
def test_a_terminated_demo_takes_its_node_with_it(demo_folder: Path) -> None:
    with slow_demo(demo_folder) as (demo, node):
        demo.terminate()
        assert demo.wait(timeout=60.0) == 128 + signal.SIGTERM
        wait_until(lambda: not Path(f"/proc/{node}").exists(), 10.0)


@needs_ros
@pytest.mark.ros
@pytest.mark.alone
def test_a_node_that_dies_while_the_bag_plays_ends_the_demo_with_its_log(
    demo_folder: Path,
) -> None:
    with slow_demo(demo_folder) as (demo, node):
        os.kill(node, signal.SIGKILL)
        output, _ = demo.communicate(timeout=60.0)
    assert demo.returncode == 1
    assert "ended with exit status -9" in output and "active" in output, output


@contextmanager
def slow_demo(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a demo that plays for half a minute; give it and the pid of its active node."""
    command = [sys.executable, "-m", "depth_fusion_ros.cli.main", "demo", *SMALL]
    command += ["--out", str(folder), *CLOSED_FORM, "--rate", "0.01"]
    log = folder / "dual_pixel" / "node.log"
    log.unlink(missing_ok=True)
    environment = child_environment(domain_id=free_domain_id()) | {"TERM": "dumb"}
    demo = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: log.exists() and "active" in log.read_text(), 120.0)
        time.sleep(1.0)  # the demo sees it too, and begins to play
        (node,) = children_of(demo.pid)
        yield demo, node
    finally:
        demo.terminate()
        demo.wait(timeout=60.0)


def children_of(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # polled: the other side is another process
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_an_unknown_model_is_refused_before_anything_is_rendered(tmp_path: Path) -> None:
    done = run("demo", "--out", str(tmp_path / "demo"), "--model", "/no/such/card.json")
    assert done.returncode == 2
    assert "/no/such/card.json" in done.stdout and "--model closed_form" in done.stdout
    assert not (tmp_path / "demo").exists()
