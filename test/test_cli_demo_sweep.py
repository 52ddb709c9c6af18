"""The focus-sweep path of `depth-fusion demo`, end to end over real DDS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import pytest

from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.cli.demo_path import problem_of
from depth_fusion_ros.cli.simulated_sweep_bag import SimulatedSweepBag
from depth_fusion_ros.evaluation.report import ReplayReport
from depth_fusion_ros.ros.environment import child_environment, free_domain_id, ros_problem

PLAN = SimulatedSweepBag(sweeps=3, slices=4, width_px=64, height_px=48, rate_hz=4.0)
SMALL = ("--sweeps", "3", "--slices", "4", "--size", "64x48", "--sweep-hz", "4")
needs_ros = pytest.mark.skipif(ros_problem() is not None, reason=str(ros_problem()))


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run depth-fusion demo in a process and ROS domain of its own."""
    environment = child_environment(domain_id=free_domain_id())
    environment |= {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "depth_fusion_ros.cli.main", "demo", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo folder whose bag is there already."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: {0})  # here, without worker processes
        PLAN.make(folder / "bags" / PLAN.name)
    return folder


def test_a_simulated_sweep_bag_has_what_was_planned_and_is_taken_only_for_its_plan(
    folder: Path,
) -> None:
    path = folder / "bags" / PLAN.name
    assert PLAN.is_at(path)
    others = (SimulatedSweepBag(sweeps=3, slices=4, width_px=64, height_px=48, rate_hz=4.0, seed=1),
              SimulatedSweepBag(sweeps=3, slices=4, width_px=64, height_px=48, rate_hz=4.0,
                                breathing=True))
    assert not any(other.is_at(path) for other in others)
    assert len({PLAN.name, *(other.name for other in others)}) == 3
    with BagReader(path) as bag:
        records = list(bag.sweeps())
    assert len(records) == 3 and all(r.is_complete and r.truth is not None for r in records)
    stamps = [item.stamp_ns for record in records for item in record.slices]
    assert {b - a for a, b in pairwise(stamps)} == {PLAN.slice_period_ns}
    assert records[0].truth.array.shape == (48, 64)


@needs_ros
@pytest.mark.ros
@pytest.mark.alone
def test_the_demo_gives_one_depth_per_sweep_and_accounts_for_every_slice(folder: Path) -> None:
    done = demo("--path", "focus_sweep", "--out", str(folder), "--process-all", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bag from before" in done.stdout and "each of 12 slices" in done.stdout
    assert "last slice published" in done.stdout
    report = json.loads((folder / "focus_sweep" / "report.json").read_text())
    assert report["unit"] == "sweep" and report["model_id"].startswith("sweep_depth@")
    assert report["sets_sent"] == report["sets_estimated"] == 3 and report["sets_missing"] == 0
    assert report["slices_sent"] == report["slices"]["received"] == 12
    assert report["slices"]["used_complete"] == 12 and report["slices_missing"] == 0
    assert 0.0 < report["accuracy"]["abs_rel"] < 0.5
    assert report["latency_ms"]["p95_ms"] > report["stages_ms"]["inference"] > 0
    assert {"align", "inference", "postprocess"} <= set(report["stages_ms"])
    sheet = cv2.imread(str(folder / "focus_sweep" / "contact_sheet.png"))
    assert sheet.shape[1] == pytest.approx(100 * (7 * 2.9 + 1.1), abs=2), "seven columns"
    assert not (folder / "dual_pixel").exists()


@needs_ros
@pytest.mark.ros
@pytest.mark.alone
def test_a_node_that_refuses_its_model_fails_the_demo_with_the_reason(folder: Path) -> None:
    done = demo("--path", "focus_sweep", "--out", str(folder), "--sweep-model", "difuse_net_s",
                *SMALL)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "focus_sweep:" in done.stdout and "family sweep_depth" in done.stdout


def test_a_lost_slice_or_sweep_is_a_problem_and_a_dropped_one_is_not(tmp_path: Path) -> None:
    def problem(estimated: int, **slices: int) -> str:
        return problem_of(ReplayReport(
            "m", "d", sets_sent=2, sets_estimated=estimated, sets_dropped={"busy": 1},
            unit="sweep", slices_sent=8, slices=slices), tmp_path / "node.log")

    assert problem(1, received=8, pending=0, used_complete=8) == ""
    assert problem(1, received=7, used_complete=7, lost=1) == ""
    assert problem(1, received=8, used_complete=7, **{"dropped.no_lens_state": 1}) == ""
    assert "1 of 8 slices are unaccounted for" in problem(1, received=7, used_complete=7)
    assert "2 of 8 slices" in problem(1, received=8, used_complete=6, pending=2)
    assert "nothing was estimated" in problem(0, received=8, used_complete=8)
    missing = ReplayReport("m", "d", sets_sent=3, sets_estimated=1, unit="sweep")
    assert "2 of 3 sweeps are unaccounted for" in problem_of(missing, tmp_path / "node.log")


def test_an_unknown_sweep_model_is_refused_before_anything_is_rendered(tmp_path: Path) -> None:
    done = demo("--out", str(tmp_path / "demo"), "--model", "closed_form",
                "--sweep-model", "/no/such/card.json")
    assert done.returncode == 2
    assert "/no/such/card.json" in done.stdout and "--sweep-model closed_form" in done.stdout
    assert not (tmp_path / "demo").exists()
