"""Studies: networks trained alike and compared, with the ratio that tells the paper's order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from training_scenes import TINY, fill_caches
from typer.testing import CliRunner

from depth_fusion_ros.cli.main import app
from depth_fusion_ros.evaluation.results_page import condense, table
from depth_fusion_ros.evaluation.study import COLUMNS, Study, compare, load_study, runs
from depth_fusion_ros.training.config import ConfigError

ROOT = Path(__file__).resolve().parent.parent
ENTRIES = [{"label": "ours", "network": "difuse_net_s-no_evidence"},
           {"label": "RGB alone", "network": "monocular_s", "training": {"steps": 2}}]
VALUES: dict[str, Any] = {"reference": "ours", "seeds": [1, 2], "entries": ENTRIES,
                          "training": {**TINY, "steps": 1}}


def written(values: dict[str, Any], folder: Path) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_every_entry_is_trained_alike_but_for_what_it_changes(tmp_path: Path) -> None:
    every = list(runs(load_study(written(VALUES, tmp_path))))
    assert [(r.label, r.seed) for r in every] == [
        ("ours", 1), ("RGB alone", 1), ("ours", 2), ("RGB alone", 2)]
    assert [r.config.steps for r in every] == [1, 2, 1, 2]
    assert len({r.folder for r in every}) == 4
    same = {"network", "seed", "steps"}
    assert every[0].config.model_dump(exclude=same) == every[1].config.model_dump(exclude=same)


def test_the_shipped_study_holds_the_papers_baselines_and_ablations() -> None:
    study = load_study(ROOT / "config/study/paper_order.yaml")
    networks = {entry.network for entry in study.entries}
    assert {"dpnet", "deeper_s", "stereo_correlation_s", "monocular_s"} <= networks
    switches = {s for n in networks for s in n.split("-")[1:]}
    assert {"no_wbipam", "line", "one_direction", "pixel_fusion"} <= switches
    assert len(study.seeds) > 1


@pytest.mark.parametrize(("changes", "named"), [
    ({"reference": "theirs"}, "theirs"), ({"seeds": []}, "seeds"),
    ({"entries": [*ENTRIES, ENTRIES[0]]}, "each label once"),
    ({"entries": [{"label": "ours", "network": "nonesuch"}]}, "nonesuch"),
    ({"training": {**TINY, "stops": 3}}, "stops"), ({"colour": 1}, "colour")])
def test_a_study_that_is_none_is_refused_by_name(
    changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=named):
        load_study(written({**VALUES, **changes}, tmp_path))


def test_ratios_and_spread_of_hand_worked_scores() -> None:
    def row(rank: float) -> dict[str, float]:
        return {**dict.fromkeys(COLUMNS, 0.5), "one_minus_spearman": rank}

    study = Study(**VALUES)
    rows = compare(study, {"ours": {1: row(0.1), 2: row(0.2)}, "RGB alone": {1: row(0.4)}})
    assert rows["ours"]["mean"]["one_minus_spearman"] == pytest.approx(0.15)
    assert rows["ours"]["spread"]["one_minus_spearman"] == pytest.approx(0.1)
    assert rows["ours"]["ratio"] == pytest.approx(1.0)
    assert rows["RGB alone"]["seeds"] == [1]
    assert rows["RGB alone"]["ratio"] == pytest.approx(0.25), "of the seed that both have"
    assert "RGB alone" not in compare(study, {"ours": {1: row(0.1)}})


def test_the_command_trains_once_compares_and_goes_on(tmp_path: Path) -> None:
    cache = fill_caches(tmp_path / "cache")
    arguments = ["study", "--config", str(written(VALUES, tmp_path)), "--out", str(tmp_path),
                 "--cache", str(cache), "--preset", "eval-tiny", "--evaluation-cache",
                 str(tmp_path / "eval")]
    runner = CliRunner()
    first = runner.invoke(app, [*arguments, "--only", "ours"])
    assert first.exit_code == 0, first.output
    assert list(json.loads((tmp_path / "study.json").read_text())["study"]["simulated"]) == ["ours"]
    weights = tmp_path / "ours/seed_1/difuse_net_s-no_evidence.safetensors"
    trained_at = weights.stat().st_mtime_ns
    again = runner.invoke(app, arguments)
    assert again.exit_code == 0, again.output
    assert weights.stat().st_mtime_ns == trained_at, "what is trained is not trained again"
    results = json.loads((tmp_path / "study.json").read_text())
    rows = results["study"]["simulated"]
    assert rows["RGB alone"]["seeds"] == [1, 2] and rows["RGB alone"]["ratio"] > 0
    assert str(tmp_path) not in json.dumps(results)
    text = table(condense(results), "simulated")
    assert "| RGB alone | 1, 2 |" in text and "depth-fusion study" in text
    refused = runner.invoke(app, [*arguments, "--only", "theirs"])
    assert refused.exit_code == 2 and "theirs" in refused.output


@pytest.mark.parametrize("arguments", [["--preset", "none"], ["--raytraced", "nowhere"]])
def test_an_evaluation_set_that_is_none_is_refused_before_anything_is_trained(
    arguments: list[str], tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, ["study", "--config", str(written(VALUES, tmp_path)),
                                      "--out", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 2 and arguments[1] in result.output
    assert not (tmp_path / "out").exists()
