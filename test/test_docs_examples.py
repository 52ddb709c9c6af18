"""The worked examples of the command pages run as they are written."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from depth_fusion_ros.cli.main import app
from depth_fusion_ros.ros.environment import ros_problem

DOCS = Path(__file__).resolve().parents[1] / "docs"
needs_ros = pytest.mark.skipif(ros_problem() is not None, reason=str(ros_problem()))


def commands(page: str) -> list[list[str]]:
    """The `$ depth-fusion …` lines of a page's worked example, as arguments."""
    text = (DOCS / page).read_text(encoding="utf-8")
    example = text.split("## A worked example", 1)[1].split("\n## ", 1)[0]
    return [shlex.split(line)[2:] for line in example.splitlines()
            if line.startswith("$ depth-fusion ")]


@needs_ros
def test_the_example_of_evaluate_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = commands("evaluate.md")
    assert [line[0] for line in lines] == ["bag", "bag", "evaluate", "evaluate", "compare"]
    for line in lines:
        result = CliRunner().invoke(app, line)
        assert result.exit_code == 0, f"{line}: {result.output}"
    for file in ("answer/report.html", "answer/report.json", "answer/bags/kitchen.png",
                 "answer/bags/hall.json", "compared/compare.html"):
        assert (tmp_path / file).stat().st_size > 1000, file
