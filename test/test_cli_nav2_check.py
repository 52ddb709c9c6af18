"""`depth-fusion nav2-check` end to end: a short scene through the node over real DDS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from depth_fusion_ros.cli.main import app
from depth_fusion_ros.ros.environment import child_environment, free_domain_id, ros_problem

needs_ros = pytest.mark.skipif(ros_problem() is not None, reason=str(ros_problem()))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = child_environment(domain_id=free_domain_id())
    environment |= {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "depth_fusion_ros.cli.main", "nav2-check", *arguments],
        env=environment, capture_output=True, text=True, timeout=280.0)


@needs_ros
@pytest.mark.ros
def test_a_scene_goes_through_the_node_into_table_json_and_picture(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path), "--scenes", "box", "--size", "96x72", "--frames", "5",
               "--model", "closed_form")
    found = json.loads((tmp_path / "nav2_check.json").read_text())
    missed = [target for target in found["targets"] if not target["met"]]
    assert done.returncode == (1 if missed else 0), done.stdout + done.stderr
    assert ("missed" in done.stdout) == bool(missed)
    assert "all scenes are simulated" in done.stdout and "naive" in done.stdout
    assert found["sets"] == {"sent": 5, "estimated": 5, "dropped": {}}
    assert found["model_id"].startswith("closed_form")
    box = found["scenes"]["box"]
    assert set(box) == {"ours", "naive"}
    assert box["ours"]["found_share"] > 0 or box["naive"]["found_share"] > 0
    assert box["ours"]["cleared_blind"] == 0 and box["ours"]["current_blind"] == 0
    assert (tmp_path / "box.png").stat().st_size > 20_000
    assert os.fspath(tmp_path) not in (tmp_path / "nav2_check.json").read_text()


def test_an_unknown_scene_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["nav2-check", "--out", str(tmp_path), "--scenes", "lake"])
    assert done.exit_code == 2
    assert "lake" in done.output and "thin_pole" in done.output
    assert not list(tmp_path.iterdir())
