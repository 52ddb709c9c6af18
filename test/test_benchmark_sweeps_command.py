"""`depth-fusion benchmark-sweeps`: JSON, tables by lens group, and their place on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from sweep_scenes import write_raytraced, write_run
from typer.testing import CliRunner

from depth_fusion_ros.cli.export import accuracy_lines
from depth_fusion_ros.cli.main import app
from depth_fusion_ros.evaluation import results_page
from depth_fusion_ros.evaluation.results_page import SWEEP_COLUMNS, condense, render, table


@pytest.fixture(scope="module")
def raytraced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raytraced(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def out(raytraced: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    run = write_run(folder / "run", "sweep_depth")
    result = CliRunner().invoke(app, [
        "benchmark-sweeps", "--raytraced", str(raytraced), "--slices", "10,5", "--noise",
        "clean,indoor", "--methods", f"constant,ring,closed_form,{run},{run}#volume,{run}#prior",
        "--threads", "1", "--out", str(folder)])
    assert result.exit_code == 0, result.output
    assert "Ray-traced focus sweeps" in result.output and "ring difference" in result.output
    return folder


@pytest.fixture(scope="module")
def written(out: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((out / "sweeps.json").read_text())
    return values


def test_every_set_group_and_method_is_written_with_a_record(
    written: dict[str, Any], out: Path
) -> None:
    assert set(written) == {"sweeps", "methods", "record"}
    assert list(written["sweeps"]) == ["10 slices, clean", "10 slices, indoor", "5 slices, clean",
                                       "5 slices, indoor"]
    groups = written["sweeps"]["10 slices, clean"]
    assert set(groups) == {"all", "robot", "phone", "robot_12mm", "phone_b4"}
    assert len(groups["all"]) == 6
    ring = {group: groups[group]["ring difference"] for group in groups}
    assert [ring[g]["count"] for g in ("all", "robot", "phone")] == [2, 1, 1]
    assert len(ring["all"]["images"]) == 2 and "images" not in ring["robot"]
    assert ring["all"]["mean"]["abs_rel"] == pytest.approx(
        (ring["robot"]["mean"]["abs_rel"] + ring["phone"]["mean"]["abs_rel"]) / 2, rel=1e-4)
    assert ring["all"]["mean"]["abs_rel"] < 0.06
    assert groups["all"]["sweep_depth"]["mean"]["within_1_sigma"] is not None
    assert written["methods"]["ring difference"]["parameters"] == 0
    assert written["methods"]["sweep_depth"]["parameters"] > 1e6
    record = written["record"]
    assert record["command"].startswith("depth-fusion benchmark-sweeps --raytraced")
    assert "--slices 10,5" in record["command"] and "run#volume" in record["command"]
    assert record["seeds"] == {"sensor noise": 0} and record["wall_time_s"] > 0
    assert str(out) not in json.dumps(written) and str(out.parent) not in json.dumps(written)


def test_a_lens_may_be_told_right_wrong_or_not_at_all(raytraced: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [
        "benchmark-sweeps", "--raytraced", str(raytraced), "--slices", "5", "--noise", "clean",
        "--methods", "closed_form,ring", "--lens", "1,0,2", "--threads", "1", "--out",
        str(tmp_path)])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "sweeps.json").read_text())
    assert "--lens 1,0,2" in written["record"]["command"]
    told, untold, wrong = (written["sweeps"][f"5 slices, clean{words}"]["all"] for words in (
        "", ", lens not told", ", lens told × 2"))
    ring = "ring difference"
    assert told[ring]["mean"]["abs_rel"] == wrong[ring]["mean"]["abs_rel"]
    method = "closed form, focus and defocus"
    for row in (untold, wrong):  # the slices say how wide the lens blurs
        assert row[method]["mean"]["abs_rel"] == pytest.approx(
            told[method]["mean"]["abs_rel"], abs=0.02)


def test_the_markdown_shows_lens_groups_and_not_lenses(
    written: dict[str, Any], out: Path
) -> None:
    text = (out / "sweeps.md").read_text()
    assert text == table(condense(written), "sweeps")
    heading = text.splitlines()[0]
    assert all(column in heading for column in SWEEP_COLUMNS.values())
    assert "| 5 slices, indoor | phone (1) | ring difference |" in text
    assert "robot_12mm" not in text
    assert "images" not in json.dumps(condense(written))


def test_the_results_page_takes_sweeps_as_a_section_of_their_own(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "results.md"
    page.write_text("# Results\n\nwords\n")
    monkeypatch.setattr(results_page, "PAGE", page)
    monkeypatch.setattr(results_page, "FOLDER", tmp_path / "results")
    for _ in range(2):
        assert results_page.main(["--take", str(out / "sweeps.json"), "focus"]) == 0
    assert results_page.main([]) == 1, "taken, not shown yet"
    assert results_page.main(["--write"]) == 0
    shown = page.read_text()
    assert shown.count("## Focus sweeps (ray-traced; no real sweep with truth exists)") == 1
    assert shown.startswith("# Results\n\nwords\n")
    assert "| 10 slices, clean | all (2) | ring difference |" in shown
    assert render(shown, tmp_path / "results") == shown


def test_a_card_takes_its_accuracy_from_the_sweeps(out: Path, written: dict[str, Any]) -> None:
    lines = accuracy_lines(out / "sweeps.json", "sweep_depth")
    assert [line["measured_on"] for line in lines] == [
        f"ray-traced sweeps: {name}" for name in written["sweeps"]]
    groups = written["sweeps"]["5 slices, clean"]["all"]
    assert lines[2]["abs_rel"] == round(groups["sweep_depth"]["mean"]["abs_rel"], 4)
    closed_form = groups["closed form, focus and defocus"]["mean"]["abs_rel"]
    assert lines[2]["closed_form_abs_rel"] == round(closed_form, 4)
    with pytest.raises(typer.BadParameter, match="benchmark-sweeps --methods closed_form,other"):
        accuracy_lines(out / "sweeps.json", "other")


@pytest.mark.parametrize(("arguments", "said"), [
    (["--noise", "loud"], "indoor"), (["--slices", "many"], "whole numbers"),
    (["--lens", "-1"], "--lens -1: must be numbers >= 0"), (["--lens", "f/2"], "e.g. 1,0"),
    (["--slices", "11"], "has 10 of them; use 2 to 10"), (["--methods", "sobel"], "laplacian"),
    (["--methods", "ring,ring"], "called 'ring difference'"), (["--methods", ","], "--methods")])
def test_what_it_does_not_know_is_refused_with_a_sentence(
    arguments: list[str], said: str, raytraced: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, ["benchmark-sweeps", "--raytraced", str(raytraced), "--out",
                                      str(tmp_path), *arguments])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["benchmark-sweeps", "--raytraced", str(tmp_path)])
    assert result.exit_code == 2 and "scene_*.npz" in result.output
