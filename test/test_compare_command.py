"""`depth-fusion compare` on folders: table, JSON, page, and every way in which runs do not fit."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from comparison_runs import bag, write_run
from typer.testing import CliRunner

from depth_fusion_ros.cli.main import app

COUNT = 8


def compare(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["compare", "--resamples", "300", *map(str, arguments)],
                              env={"COLUMNS": "200"})


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    """B is worse by 0.1 in every frame but those of the last bag, where it is better."""
    a = [bag(f"scene_{n}", [0.1 + 0.01 * n, 0.2]) for n in range(COUNT)]
    b = [bag(f"scene_{n}", [0.2 + 0.01 * n, 0.3] if n < COUNT - 1 else [0.1, 0.1],
             model="closed_form") for n in range(COUNT)]
    return (write_run(tmp_path / "a", a, pictures=True),
            write_run(tmp_path / "b", b, pictures=True, parameters={"model.path": "closed_form"}))


class Page(HTMLParser):
    """Counts pictures and collects what a page would load from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures = 0
        self.foreign: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href"):
                self.pictures += tag == "img"
                if not (value or "").startswith("data:"):
                    self.foreign.append(value or "")


def test_two_runs_give_table_json_and_a_page_that_needs_no_network(
        two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    done = compare(*two_runs, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "B worse" in done.output and "model: net@1 | closed_form" in done.output
    assert "dual_pixel: model.path: default | closed_form" in done.output
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    row = found["metrics"][0]
    mean = (14 * 0.1 - (0.07 + 0.1)) / 16
    assert row["key"] == "abs_rel" and row["difference"] == pytest.approx(mean)
    assert 0 < row["low"] < mean < row["high"] and row["verdict"] == "worse"
    assert found["shared"] == {"bags": COUNT, "frames": 2 * COUNT}
    assert found["interval"]["seed"] == 0 and found["interval"]["over"] == "bags"
    page = Page((tmp_path / "out" / "compare.html").read_text())
    assert page.foreign == [] and page.pictures == 2 + 2 * 6
    assert "clear: B is worse" in (tmp_path / "out" / "compare.html").read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "compare.html", "compare.json"]


def test_the_seed_decides_every_digit_of_the_file(two_runs: tuple[Path, Path], tmp_path: Path
                                                  ) -> None:
    texts = []
    for name in ("first", "again"):
        assert compare(*two_runs, "--out", tmp_path / name, "--seed", 1).exit_code == 0
        texts.append((tmp_path / name / "compare.json").read_text())
    assert texts[0] == texts[1] and json.loads(texts[0])["interval"]["seed"] == 1


def test_a_run_against_itself_differs_nowhere(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    done = compare(two_runs[0], two_runs[0], "--out", tmp_path / "out")
    assert done.exit_code == 0 and "differs: nothing that the runs record" in done.output
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert {row["verdict"] for row in found["metrics"]} == {"equal"}
    assert {(row["low"], row["high"]) for row in found["metrics"]} == {(0.0, 0.0)}
    assert Page((tmp_path / "out" / "compare.html").read_text()).pictures == 2


def test_one_bag_without_pictures_is_compared_over_its_frames(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", [bag("only", [0.1, 0.2, 0.3])])
    b = write_run(tmp_path / "b", [bag("only", [0.3, 0.2, 0.3])])
    done = compare(a, b, "--out", tmp_path / "out")
    assert done.exit_code == 0 and "One bag only" in done.output
    text = (tmp_path / "out" / "compare.html").read_text()
    assert "has no picture of this bag" in text and Page(text).pictures == 2


def test_runs_without_a_single_error_to_compare_still_make_a_page(tmp_path: Path) -> None:
    nothing = [bag("x", [float("nan")])]
    a, b = (write_run(tmp_path / name, nothing) for name in "ab")
    done = compare(a, b, "--out", tmp_path / "out")
    assert done.exit_code == 0 and "no frame" in done.output
    assert Page((tmp_path / "out" / "compare.html").read_text()).pictures == 0


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    bags = [bag("[red]<b>x</b>", [0.1 * n]) for n in (1, 2)]
    a, b = (write_run(tmp_path / f"[bold]{side}", [one]) for side, one in zip("ab", bags))
    done = compare(a, b, "--out", tmp_path / "out")
    assert done.exit_code == 0 and "[bold]a" in done.output
    assert "<b>x" not in (tmp_path / "out" / "compare.html").read_text()


@pytest.mark.parametrize(("setting", "says"), [
    ({"max_m": 4.0}, "largest true depth scored [m] is 8.0 in A and 4.0 in B"),
    ({"reference": "plane", "topic": ""}, "reference is topic in A and plane in B"),
    ({"region": [1, 2, 3, 4]}, "region of the plane [px] is null in A")])
def test_runs_that_were_scored_otherwise_need_force(
        tmp_path: Path, setting: dict[str, Any], says: str) -> None:
    bags = [bag("x", [0.1])]
    a, b = write_run(tmp_path / "a", bags), write_run(tmp_path / "b", bags, settings=setting)
    out = tmp_path / "out"
    out.mkdir()
    (out / "compare.json").write_text("of before")
    refused = compare(a, b, "--out", out)
    assert refused.exit_code == 2 and says in refused.output and "--force" in refused.output
    assert [path.name for path in out.iterdir()] == ["compare.json"]
    assert (out / "compare.json").read_text() == "of before"


def test_force_compares_what_was_scored_otherwise_and_the_page_says_so(tmp_path: Path) -> None:
    bags = [bag("x", [0.1])]
    a, b = (write_run(tmp_path / name, bags, settings={"max_m": far})
            for name, far in (("a", 8.0), ("b", 4.0)))
    done = compare(a, b, "--out", tmp_path / "out", "--force")
    assert done.exit_code == 0 and "not scored alike" in done.output
    assert "were not scored alike" in (tmp_path / "out" / "compare.html").read_text()


def test_another_namespace_is_no_reason_to_refuse(tmp_path: Path) -> None:
    bags = [bag("x", [0.1])]
    a = write_run(tmp_path / "a", bags)
    b = write_run(tmp_path / "b", bags, settings={"namespace": "/front"})
    assert compare(a, b, "--out", tmp_path / "out").exit_code == 0


@pytest.mark.parametrize(("other", "says"), [
    (bag("y", [0.1]), "no bag is in both runs: A has x"),
    (bag("x", [0.1], data="new"), "bag x and 0 more have other data"),
    (bag("sub/x", [0.1], data="x"), "that A calls x is sub/x in B"),
    (bag("x", [0.1], first=9), "stamps are not")])
def test_runs_that_share_no_frame_are_refused_with_the_reason(
        tmp_path: Path, other: dict[str, Any], says: str) -> None:
    a, b = write_run(tmp_path / "a", [bag("x", [0.1])]), write_run(tmp_path / "b", [other])
    done = compare(a, b, "--out", tmp_path / "out")
    assert done.exit_code == 2 and says in done.output
    assert not (tmp_path / "out").exists()


def spoil(run: Path, how: str) -> None:
    report, bags = run / "report.json", run / "bags" / "scene_0.json"
    content = json.loads(bags.read_text())
    if how == "no folder":
        shutil.rmtree(run)
    elif how == "no report":
        report.unlink()
    elif how == "half a report":
        report.write_text(report.read_text()[:200])
    elif how == "a report of something else":
        report.write_text('{"results": []}')
    elif how == "a report of strange types":
        report.write_text(json.dumps(json.loads(report.read_text()) | {"parameters": 3}))
    elif how == "no bags":
        report.write_text(json.dumps(json.loads(report.read_text()) | {"bags": []}))
    elif how == "a bag is missing":
        bags.unlink()
    elif how == "half a bag":
        bags.write_text(bags.read_text()[:100])
    elif how == "text for a number":
        content["rows"][0]["metrics"]["rmse_m"] = "far"
        bags.write_text(json.dumps(content))
    elif how == "no rows":
        bags.write_text(json.dumps({key: content[key] for key in content if key != "rows"}))
    elif how == "rows of another run":
        content["rows"][0]["metrics"]["abs_rel"] = 9.0
        bags.write_text(json.dumps(content))


@pytest.mark.parametrize(("how", "says"), [
    ("no folder", "has no report.json"), ("no report", "has no report.json"),
    ("half a report", "is damaged"), ("a report of something else", "is damaged"),
    ("a report of strange types", "is damaged"), ("no bags", "is damaged"),
    ("a bag is missing", "scene_0.json: is missing or damaged"),
    ("half a bag", "scene_0.json: is missing or damaged"),
    ("text for a number", "scene_0.json: is damaged"), ("no rows", "scene_0.json: is damaged"),
    ("rows of another run", "is not what report.json was made of")])
def test_a_damaged_run_ends_in_one_sentence_and_writes_nothing(
        two_runs: tuple[Path, Path], tmp_path: Path, how: str, says: str) -> None:
    spoil(two_runs[1], how)
    done = compare(*two_runs, "--out", tmp_path / "out")
    assert done.exit_code == 2 and says in done.output and "depth-fusion evaluate" in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_said(two_runs: tuple[Path, Path], tmp_path: Path
                                                 ) -> None:
    (tmp_path / "out").write_text("a file")
    done = compare(*two_runs, "--out", tmp_path / "out")
    assert done.exit_code == 2 and "cannot be written" in done.output
