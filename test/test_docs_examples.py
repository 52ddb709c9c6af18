"""The worked examples of the command pages run as they are written, and print what is shown."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from docs_examples import Step, missing_lines, steps, write_scripts
from typer.testing import CliRunner

from depth_fusion_ros.cli.main import app
from depth_fusion_ros.ros.environment import (
    child_environment,
    ensure_ros_environment,
    free_domain_id,
    ros_problem,
)

needs_ros = pytest.mark.skipif(ros_problem() is not None, reason=str(ros_problem()))


class Terminal:
    """Runs the steps of a page in a folder; `ros2 run` goes on in another process until the end."""

    def __init__(self, other: ExitStack) -> None:
        self._other = other

    def run(self, step: Step, code: int = 0) -> None:
        """Run a step; its status must be `code` and its output what the page shows."""
        outputs = [self._output(command, code) for command in step.commands()]
        missing = missing_lines(step.shown, "\n".join(outputs))
        assert not missing, f"{step.typed}\nshown but not printed: {missing}\n{outputs}"

    def _output(self, command: list[str], code: int) -> str:
        program, *rest = command
        if program == "depth-fusion":
            done = CliRunner().invoke(app, rest, env={"COLUMNS": "80"})
            assert done.exit_code == code, f"{command}: {done.output}"
            return str(done.output)
        if program == "cat":
            return "\n".join(Path(name).read_text(encoding="utf-8") for name in rest)
        if program == "python":
            runpy.run_path(rest[0], run_name="__main__")
            return ""
        if rest[:2] == ["run", "depth_fusion_ros"]:
            self._other.enter_context(node_process(rest[2], rest[3:]))
            return ""
        assert rest[:2] == ["service", "call"], f"no stand-in for {command}"
        return called(rest[2])


@contextmanager
def node_process(name: str, arguments: list[str]) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", f"depth_fusion_ros.nodes.{name}", *arguments],
                               env=child_environment())
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def called(service: str) -> str:
    """Call a Trigger until it tells of the last set played: a person is slower than the node."""
    import rclpy
    from std_srvs.srv import Trigger

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("terminal", context=context)
    try:
        client = node.create_client(Trigger, service)
        assert client.wait_for_service(20.0), service
        executor = rclpy.executors.SingleThreadedExecutor(context=context)
        deadline = time.monotonic() + 20.0
        while True:
            future = client.call_async(Trigger.Request())
            executor.add_node(node)
            executor.spin_until_future_complete(future, 10.0)
            executor.remove_node(node)
            answer = future.result()
            if "_600000000.npz" in answer.message or time.monotonic() > deadline:
                return f"response: success={answer.success}, message='{answer.message}'"
            time.sleep(0.1)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal in an empty folder, in a ROS domain of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("ROS_DOMAIN_ID", "LD_LIBRARY_PATH", "AMENT_PREFIX_PATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # given back afterwards
    if ros_problem() is None:
        ensure_ros_environment(domain_id=free_domain_id())
    with ExitStack() as other:
        yield Terminal(other)


@needs_ros
def test_the_example_of_evaluate_runs(terminal: Terminal) -> None:
    for step in steps("evaluate.md"):
        terminal.run(step)
    for file in ("answer/report.html", "answer/report.json", "answer/bags/kitchen.png",
                 "answer/bags/hall.json", "compared/compare.html"):
        assert Path(file).stat().st_size > 1000, file


@needs_ros
def test_the_example_of_compare_prints_the_table_it_shows(terminal: Terminal) -> None:
    for step in steps("compare.md"):
        terminal.run(step)
    found = json.loads(Path("comparison/compare.json").read_text())
    assert found["shared"] == {"bags": 7, "frames": 28}
    verdicts = {row["key"]: row["verdict"] for row in found["metrics"]}
    assert verdicts["abs_rel"] == "better" and verdicts["coverage"] == "worse"
    *before, refused = steps("compare.md", "What is refused")
    for step in before:
        terminal.run(step)
    terminal.run(refused, code=2)


@needs_ros
@pytest.mark.ros
def test_the_example_of_dataset_to_bag_makes_bags_that_can_be_scored(terminal: Terminal,
                                                                     tmp_path: Path) -> None:
    write_scripts("dataset_to_bag.md", tmp_path)
    for step in steps("dataset_to_bag.md"):
        terminal.run(step)
    assert sorted(p.name for p in Path("bags").iterdir()) == ["room_0", "room_1"]
    assert len(json.loads(Path("answer/report.json").read_text())["bags"]) == 2


def test_the_example_of_calibrate_lens_gives_the_camera_file_it_shows(terminal: Terminal) -> None:
    for step in steps("calibrate_lens.md"):
        terminal.run(step)
    made = yaml.safe_load(Path("my_cameras/inverted.yaml").read_text())["/**"]["ros__parameters"]
    assert made["lens.diopter_scale"] == pytest.approx(1.15, rel=0.02)  # as it was simulated
    assert made["dp.swap_views"] is True
    table = json.loads(Path("calibration/truth_table.json").read_text())["cameras"]["inverted"]
    assert not [row["quantity"] for row in table if row["met"] is False]
    assert Path("calibration/inverted.html").stat().st_size > 10_000


@needs_ros
@pytest.mark.ros
def test_the_example_of_replay_frame_runs_a_saved_frame_again(terminal: Terminal) -> None:
    made = steps("replay_frame.md")
    assert [s.typed.split()[0] for s in made] == ["depth-fusion", "ros2", "depth-fusion", "ros2",
                                                  "depth-fusion", "depth-fusion"]
    for step in made[:-1]:
        terminal.run(step)
    terminal.run(made[-1], code=1)
    (saved, *_) = Path("frames").glob("*_600000000.npz")
    with np.load(saved) as content:
        assert content["outputs/depth_m"].shape == (120, 160)


@pytest.mark.parametrize(("shown", "printed", "missing"), [
    ("│ AbsRel │ 0.080 │", "┃ AbsRel  ┃ 0.081 ┃", False),
    ("│ AbsRel │ 0.080 │", "│ AbsRel │ 0.180 │", True),
    ("│ AbsRel │ 0.080 │ better │", "│ AbsRel │ 0.080 │ worse │", True),
    ("2 written, 0.3 s: bags", "2 written, 1.7 s: bags", False),
    ("2 written, 0.3 s: bags", "3 written, 0.3 s: bags", True),
    ("… message='…/frames/x.npz'", "success, message='/tmp/frames/x.npz'", False),
    ("depth_fusion_ros 0.1.0", "depth_fusion_ros 0.2.0", True)])
def test_a_page_that_shows_something_else_is_noticed(shown: str, printed: str, missing: bool
                                                     ) -> None:
    assert bool(missing_lines([shown], f"before\n{printed}\nafter")) is missing
