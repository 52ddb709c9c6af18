"""Fusions compared on the same volume and prior by one command, and what it trained shipped."""

from __future__ import annotations

import csv
import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from sweep_scenes import HELD_OUT_SEED, SIZE, TINY, fill_caches, write_raytraced
from typer.testing import CliRunner

from depth_fusion_ros.cli.main import app
from depth_fusion_ros.estimation.model_card import load_card
from depth_fusion_ros.evaluation.results_page import condense, table
from depth_fusion_ros.evaluation.study import load_study, runs
from depth_fusion_ros.evaluation.sweep_benchmark import open_sweep_method
from depth_fusion_ros.evaluation.sweep_samples import held_out_sweeps
from depth_fusion_ros.training.config import ConfigError
from depth_fusion_ros.training.sweep_data import SweepCache, SweepCacheConfig
from depth_fusion_ros.training.sweep_exposure import MIN_SLICES

ROOT = Path(__file__).resolve().parent.parent
ENTRIES: list[dict[str, Any]] = [
    {"label": "ours", "network": "sweep_depth"},
    {"label": "focus alone", "network": "sweep_depth", "parts_of": "ours", "shown": "volume"},
    {"label": "hybrid", "network": "sweep_depth-hybrid", "parts_of": "ours",
     "training": {"loss": {"kind": "silog"}}}]
VALUES: dict[str, Any] = {
    "reference": "ours", "ranked": "abs_rel", "seeds": [1], "entries": ENTRIES,
    "training": {k: v for k, v in TINY.items() if k != "network"}}


def written(values: dict[str, Any], folder: Path) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one step for each stage, trained and scored by the command."""
    folder = tmp_path_factory.mktemp("study")
    fill_caches(folder / "cache")
    (folder / "rt").mkdir()
    arguments = ["study", "--config", str(written(VALUES, folder)), "--out", str(folder),
                 "--cache", str(folder / "cache"), "--raytraced",
                 str(write_raytraced(folder / "rt"))]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "training 'focus alone'" not in result.output
    return folder


def test_every_fusion_stands_on_the_same_volume_and_prior(root: Path) -> None:
    ours = load_file(root / "ours/seed_1/sweep_depth.safetensors")
    hybrid = load_file(root / "hybrid/seed_1/sweep_depth-hybrid.safetensors")
    shared = [name for name in ours if name.split(".")[0] in ("volume", "prior")]
    assert shared and all(torch.equal(ours[name], hybrid[name]) for name in shared)
    assert sorted(p.name for p in (root / "hybrid/seed_1").iterdir() if p.is_dir()) == []
    facts = json.loads((root / "hybrid/seed_1/run.json").read_text())
    assert facts["training"]["start_from"] == str(root / "ours/seed_1/prior/prior.safetensors")
    assert facts["training"]["loss"]["kind"] == "silog"
    row, = csv.DictReader((root / "hybrid/seed_1/curve.csv").open())
    assert float(row["log_depth"]) > 0 and float(row["mae_px"]) > 0


def test_they_are_compared_by_absrel_on_held_out_and_raytraced_sweeps(root: Path) -> None:
    results = json.loads((root / "study.json").read_text())
    assert list(results["study"]) == ["held_out", "raytraced_10_clean", "raytraced_5_clean",
                                      "raytraced_10_indoor", "raytraced_5_indoor"]
    rows = results["study"]["held_out"]
    assert list(rows) == ["ours", "focus alone", "hybrid"]
    ours, focus, hybrid = rows.values()
    assert ours["ratio"] == 1.0
    assert hybrid["ratio"] == pytest.approx(
        ours["mean"]["abs_rel"] / hybrid["mean"]["abs_rel"], rel=1e-3)
    assert focus["parameters"] < ours["parameters"]
    assert str(root) not in json.dumps(results) and "--preset" not in results["record"]["command"]
    text = table(condense(results), "raytraced_5_clean")
    assert "| focus alone | 1 |" in text and "depth-fusion study" in text


def test_held_out_sweeps_repeat_and_have_their_truth(root: Path) -> None:
    cache = SweepCache(SweepCacheConfig(16, seed=HELD_OUT_SEED, **SIZE), root / "cache")
    first, again = list(held_out_sweeps(cache, 4)), list(held_out_sweeps(cache, 4))
    assert len(first) == 16 and first[0].stack.shape == (4, 64, 64, 3)
    assert all(np.array_equal(a.stack, b.stack) for a, b in zip(first, again, strict=True))
    truth = 1 / np.linspace(0.5, 2.0, 16)
    assert [float(s.depth_m.mean()) for s in first] == pytest.approx(truth, rel=1e-5)
    assert (np.diff(first[3].focus_diopters) > 0).all()
    assert first[0].smooth.all()


def test_the_export_of_a_run_calibrates_sigma_on_held_out_sweeps(
    root: Path, tmp_path: Path
) -> None:
    runner = CliRunner()
    arguments = ["--out", str(tmp_path), "--cache", str(root / "cache")]
    result = runner.invoke(app, ["export", str(root / "ours/seed_1"), *arguments, "--curve",
                                 str(tmp_path / "curve.png")])
    assert result.exit_code == 0, result.output
    assert "no ONNX graph" in " ".join(result.output.split())
    card = load_card(tmp_path / "sweep_depth.json")
    assert card.onnx is None and card.input_multiple_px == 32
    assert set(card.training["stages"]) == {"volume", "prior"}
    assert card.training["command"].endswith("config/train/sweep_depth.yaml")
    assert card.sigma_calibration is not None
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    method = open_sweep_method(str(tmp_path / "sweep_depth.json"))
    cache = SweepCache(SweepCacheConfig(16, seed=HELD_OUT_SEED, **SIZE), root / "cache")
    inside = []
    for sample in chain(held_out_sweeps(cache, MIN_SLICES), held_out_sweeps(cache)):
        result_m = method.estimate(sample)
        assert result_m.depth_m is not None and result_m.sigma_m is not None
        sigma = result_m.sigma_m / result_m.depth_m**2
        inside.append(np.mean(np.abs(result_m.inverse_depth - 1 / sample.depth_m) < sigma))
    assert np.mean(inside) == pytest.approx(0.683, abs=0.1), "σ means σ on what it was fitted to"
    named = runner.invoke(app, ["export", str(root / "hybrid/seed_1"), *arguments, "--name", "h"])
    assert named.exit_code == 0, named.output
    assert str(root) not in (tmp_path / "h.json").read_text()
    for stage in ("volume", "prior"):
        refused = runner.invoke(app, ["export", str(root / "ours/seed_1" / stage), *arguments])
        assert refused.exit_code == 2 and f"is the stage {stage!r}" in " ".join(
                refused.output.split())


def test_the_shipped_study_trains_every_fusion_from_the_same_parts() -> None:
    study = load_study(ROOT / "config/study/sweep_fusions.yaml")
    every = list(runs(study))
    assert {run.config.network for run in every} == {
        "sweep_depth", "sweep_depth-hybrid", "sweep_depth-crossdepth_code",
        "sweep_depth-crossdepth_paper"}
    own, *others = [run for run in every if not run.shown]
    assert own.start_from is None and [s.name for s in own.config.stages] == [
        "volume", "prior", "fusion"]
    for run in others:
        assert run.start_from == own.folder / "prior/prior.safetensors"
        assert [s.name for s in run.config.stages] == ["fusion"]
        assert run.config.stages[0].steps == own.config.stages[-1].steps
        as_own = {"stand_in_prior_share": own.config.data.stand_in_prior_share}
        assert run.config.data.model_copy(update=as_own) == own.config.data, "the same sweeps"
        published = run.label.endswith(", own prior")
        assert (run.config.data.stand_in_prior_share == 0) == published
        assert run.config.seed == own.config.seed
    assert {run.config.loss.kind for run in others} == {"metric", "silog"}
    assert {run.shown for run in every} == {"", "volume", "prior"}
    assert len({run.key for run in every}) == len(every)


@pytest.mark.parametrize(("changes", "named"), [
    ({"ranked": "colour"}, "ranked"),
    ({"entries": [ENTRIES[2], ENTRIES[0]]}, "name an entry above it"),
    ({"entries": [ENTRIES[0], {**ENTRIES[2], "parts_of": "theirs"}]}, "parts_of = 'theirs'"),
    ({"entries": [ENTRIES[0], {**ENTRIES[1], "parts_of": ""}]}, "shown = 'volume': needs parts_of"),
    ({"entries": [{**ENTRIES[0], "training": {"stages": [{"name": "fusion", "steps": 1}]}},
                  ENTRIES[2]]}, "volume, prior and fusion are needed"),
    ({"entries": [ENTRIES[0], {"label": "d", "network": "difuse_net_s", "training": {
        "stages": [], "data": {"scenes": 16}}}]}, "make two studies")])
def test_a_study_whose_parts_do_not_fit_is_refused_by_name(
    changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=named):
        load_study(written({**VALUES, **changes}, tmp_path))
