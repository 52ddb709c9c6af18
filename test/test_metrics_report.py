"""The contact sheet, the tables and the JSON that a replay leaves behind."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from depth_fusion_ros.evaluation.contact_sheet import (
    INVALID_COLOUR,
    ContactSample,
    write_contact_sheet,
)
from depth_fusion_ros.evaluation.report import ReplayReport, median_stages
from depth_fusion_ros.evaluation.rerun_file import write_rerun


def sample(depth: np.ndarray, label: str = "set 0") -> ContactSample:
    random = np.random.default_rng(0)
    shape = depth.shape
    return ContactSample(
        label=label,
        rgb=random.integers(0, 256, (*shape, 3), dtype=np.uint8),
        left=random.integers(0, 65536, shape, dtype=np.uint16),
        right=random.integers(0, 65536, shape, dtype=np.uint16),
        truth_m=np.linspace(0.5, 5, shape[0] * shape[1], dtype=np.float32).reshape(shape),
        depth_m=depth,
        sigma_m=np.where(np.isfinite(depth), 0.1 * depth, np.nan).astype(np.float32),
    )


def share_of_invalid_colour(path: Path) -> float:
    picture = cv2.imread(str(path))[:, :, ::-1]
    grey = int(INVALID_COLOUR[1:3], 16)
    return float(np.mean(np.all(np.abs(picture.astype(int) - grey) <= 1, axis=2)))


def test_pixels_without_depth_are_drawn_in_the_invalid_grey(tmp_path: Path) -> None:
    good = np.full((60, 80), 2.0, np.float32)
    half = good.copy()
    half[:30] = np.nan
    full = share_of_invalid_colour(
        write_contact_sheet(tmp_path / "a.png", [sample(good)], title="all")
    )
    part = share_of_invalid_colour(
        write_contact_sheet(tmp_path / "b.png", [sample(half)], title="half")
    )
    # depth, sigma and error: half of each of three cells out of six
    assert full < 0.01 and 0.08 < part < 0.3


def test_infinite_depth_is_drawn_as_far_and_near_and_not_as_invalid(tmp_path: Path) -> None:
    depth = np.full((60, 80), np.inf, np.float32)
    depth[:30] = -np.inf
    one = sample(depth)
    row = ContactSample(**{**vars(one), "sigma_m": np.full_like(depth, 0.1)})
    path = write_contact_sheet(tmp_path / "deep" / "c.png", [row, row], title="ends")
    assert share_of_invalid_colour(path) < 0.01


def test_an_empty_sheet_and_mixed_grids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing was estimated"):
        write_contact_sheet(tmp_path / "d.png", [], title="none")
    one = sample(np.ones((6, 8), np.float32))
    bad = ContactSample(**{**vars(one), "truth_m": np.ones((3, 4), np.float32)})
    with pytest.raises(ValueError, match="one shape"):
        write_contact_sheet(tmp_path / "e.png", [bad], title="mixed")


def test_all_nan_depth_still_gives_a_picture(tmp_path: Path) -> None:
    path = write_contact_sheet(
        tmp_path / "f.png", [sample(np.full((6, 8), np.nan, np.float32))], title="nothing known"
    )
    assert path.stat().st_size > 1000


def report(**changes: object) -> ReplayReport:
    values: dict = {
        "model_id": "closed_form@00000000",
        "data": "simulated",
        "sets_sent": 10,
        "sets_estimated": 7,
        "sets_dropped": {"busy": 2, "nan_image": 1},
        "accuracy": {"abs_rel": 0.1234, "delta_1": 0.9, "rmse_m": math.nan},
        "latency_ms": {"p50_ms": 10.0, "p95_ms": 20.0, "p99_ms": 30.0},
        "stages_ms": {"inference": 8.0, "total": 9.5},
    }
    return ReplayReport(**{**values, **changes})


def printed(shown: ReplayReport) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(*shown.tables())
    return console.export_text()


def test_sets_are_accounted_for_only_if_estimates_and_drops_add_up() -> None:
    assert report().is_accounted
    assert report(sets_estimated=6).sets_missing == 1
    assert report(sets_estimated=8).sets_missing == -1
    assert not report(sets_estimated=6).is_accounted


def test_the_tables_show_the_numbers_and_the_causes() -> None:
    text = printed(report())
    for expected in ("dropped: nan_image", "0.123", "δ<1.25", "20.0", "inference", "simulated"):
        assert expected in text


def test_json_is_strict_and_complete(tmp_path: Path) -> None:
    path = report().write_json(tmp_path / "deep" / "report.json")
    read = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read["accuracy"]["rmse_m"] is None
    assert read["sets_missing"] == 0 and read["sets_dropped"]["busy"] == 2


def test_stage_medians_skip_stages_that_never_ran() -> None:
    assert median_stages({"a": [1.0, 9.0, 2.0], "b": []}) == {"a": 2.0}


def test_a_rerun_file_is_written_where_rerun_is_installed_and_skipped_elsewhere(
    tmp_path: Path,
) -> None:
    pictures = {"rgb": np.zeros((4, 5, 3), np.uint8), "depth": np.ones((4, 5), np.float32)}
    written = write_rerun(tmp_path / "demo.rrd", [(1_000, pictures)])
    try:
        import rerun  # noqa: F401
    except ImportError:
        assert written is None and not (tmp_path / "demo.rrd").exists()
    else:
        assert (tmp_path / "demo.rrd").stat().st_size > 100
