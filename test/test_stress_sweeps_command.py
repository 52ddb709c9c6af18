"""`depth-fusion stress-sweeps`: what drift, breathing and a blank wall cost, beside undisturbed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweep_scenes import write_raytraced
from typer.testing import CliRunner

from depth_fusion_ros.cli.main import app
from depth_fusion_ros.evaluation.sweep_stress import (
    NEAREST_FOCUS_M,
    StressScore,
    breathing_cases,
)


@pytest.fixture(scope="module")
def raytraced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raytraced(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def stress(raytraced: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("out")
    result = CliRunner().invoke(app, [
        "stress-sweeps", "--raytraced", str(raytraced), "--slices", "6", "--drift", "1,5",
        "--rooms", "1", "--threads", "1", "--out", str(folder)])
    assert result.exit_code == 0, result.output
    assert "drift 1 px/slice" in result.output and "ray-traced" in result.output
    written = json.loads((folder / "stress.json").read_text())
    assert "--drift 1,5" in written["record"]["command"]
    values: dict[str, Any] = written["stress"]
    return values


def test_a_small_drift_is_undone_and_its_cost_told(stress: dict[str, Any]) -> None:
    row = stress["drift 1 px/slice, clean"]["closed_form"]
    assert row["scenes"] == 2 and row["rejected"] == 0
    assert row["motion_px"] == pytest.approx(5, abs=1)
    assert row["cost"] == pytest.approx(row["abs_rel"] / row["twin_abs_rel"] - 1, rel=1e-3)
    assert row["cost"] < 0.3 and row["coverage"] > 0.8


def test_a_large_drift_gives_no_depth(stress: dict[str, Any]) -> None:
    row = stress["drift 5 px/slice, clean"]["closed_form"]
    assert row["rejected"] == 1 and row["coverage"] == 0
    assert row["abs_rel"] is None, "nothing was estimated, so nothing can be wrong"


def test_a_wall_without_texture_is_labelled_and_its_sigma_is_wider(stress: dict[str, Any]) -> None:
    row = stress["blank half, clean"]["closed_form"]
    assert row["blank_guessed"] > 0.7  # of 48 px, the 11 next to the texture have it in a window
    assert row["blank_sigma_ratio"] > 1.5


def test_breathing_is_rendered_and_its_truth_is_that_of_the_farthest_focus() -> None:
    case, = breathing_cases(1, 0.04, width_px=64, height_px=48)
    assert case.twin is not None
    fx = [item.image.intrinsics.fx_px for item in case.frame.sweep.slices if item.image.intrinsics]
    focus = np.asarray(case.frame.sweep.focus_diopters)
    assert fx[0] == pytest.approx(case.twin.frame.sweep.slices[0].image.intrinsics.fx_px)
    expected = fx[0] * (1 + 0.04 * focus) / (1 + 0.04 * focus[0])
    assert np.allclose(fx, expected, rtol=1e-5)
    pairs = list(zip(case.frame.sweep.slices, case.twin.frame.sweep.slices, strict=True))
    assert np.array_equal(pairs[0][0].image.image, pairs[0][1].image.image)
    assert not np.array_equal(pairs[-1][0].image.image, pairs[-1][1].image.image)
    assert np.array_equal(case.depth_m, case.twin.depth_m)


def test_lenses_are_not_focused_nearer_than_lenses_go() -> None:
    for case in breathing_cases(8, 0.04, width_px=64, height_px=48):
        focus = np.asarray(case.frame.sweep.focus_diopters)
        assert (np.diff(focus) > 0).all() and focus[0] > 0
        assert focus[-1] <= 1 / NEAREST_FOCUS_M + 1e-5
        assert np.nanmin(case.depth_m) >= NEAREST_FOCUS_M, "and nothing lies where they cannot"


def test_what_was_measured_is_kept_when_a_later_set_cannot_be(
    raytraced: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, [
        "stress-sweeps", "--raytraced", str(raytraced), "--slices", "5", "--drift", "1,40",
        "--rooms", "0", "--threads", "1", "--out", str(tmp_path)])
    assert result.exit_code == 2, result.output
    assert "drift of 40 px" in " ".join(result.output.split())
    kept = json.loads((tmp_path / "stress.json").read_text())["stress"]
    assert list(kept) == ["drift 1 px/slice, clean"]
    row = kept["drift 1 px/slice, clean"]["closed_form"]
    for shown in (f"{row['abs_rel']:.4f}", f"{row['cost']:+.1%}", f"{row['motion_px']:.1f}"):
        assert shown in result.output, "on the 80 columns of no terminal nothing is cut"
    assert "…" not in result.output


def test_a_row_of_nothing_is_all_unknown() -> None:
    row = StressScore().row()
    assert np.isnan(row["abs_rel"]) and np.isnan(row["cost"]) and row["scenes"] == 0


@pytest.mark.parametrize(("option", "value", "said"), [
    ("--drift", "15", "leaves"), ("--methods", "nothing_like_it", "nothing_like_it"),
    ("--noise", "foggy", "foggy"), ("--slices", "40", "slices"), ("--slices", "2", "--slices"),
    ("--breathing", "much", "numbers"),
    ("--methods", ",", "names nothing"), ("--rooms", "-1", "--rooms")])
def test_what_cannot_be_measured_is_refused_by_name(
    raytraced: Path, tmp_path: Path, option: str, value: str, said: str
) -> None:
    result = CliRunner().invoke(app, ["stress-sweeps", "--raytraced", str(raytraced), "--out",
                                      str(tmp_path), option, value])
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())
