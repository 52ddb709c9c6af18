"""docs/results.md shows what was measured, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from depth_fusion_ros.evaluation.results_page import condense, render, table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = {
    "methods": {"closed form": {"parameters": 0}},
    "raytraced": {"ideal split, clean": {"robot": {"closed form": {
        "count": 6, "mean": {"abs_rel": 0.25, "aiwe_1": 0.01234, "unknown": 3.0},
        "images": [{"name": "scene_000"}]}}}},
    "record": {"command": "depth-fusion benchmark --raytraced raytraced", "seeds": {"noise": 0},
               "hardware": {"cpu": "some", "cores": 2, "threads": 2},
               "versions": {"torch": "2.13.0"}, "wall_time_s": 90.0},
}


def test_condensed_results_keep_means_and_drop_images() -> None:
    row = condense(RESULTS)["raytraced"]["ideal split, clean"]["robot"]["closed form"]
    assert row["mean"]["abs_rel"] == 0.25
    assert "images" not in row and "unknown" not in row["mean"]


def test_a_table_shows_each_method_and_how_it_was_measured() -> None:
    text = table(condense(RESULTS), "raytraced")
    assert "| ideal split, clean | robot (6) | closed form | 0.250 | – |" in text
    assert "0.0123" in text
    assert "depth-fusion benchmark --raytraced raytraced" in text and "1.5 min" in text


def test_a_marker_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        render("<!-- results gone raytraced -->\n<!-- end -->", tmp_path)


def test_the_results_page_is_up_to_date() -> None:
    page = (ROOT / "docs/results.md").read_text()
    assert "<!-- results" in page
    assert render(page, ROOT / "docs/results") == page, (
        "run python -m depth_fusion_ros.evaluation.results_page --write")
