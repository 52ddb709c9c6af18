"""The commands train and export, from nothing to a model that loads."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from training_scenes import TINY, fill_caches
from typer.testing import CliRunner

from depth_fusion_ros.cli.main import app
from depth_fusion_ros.estimation.backends import NetworkInput, load_backend
from depth_fusion_ros.estimation.model_card import load_card
from depth_fusion_ros.networks.convention import CONDITION_CHANNELS


@pytest.fixture(scope="module")
def cache_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_caches(tmp_path_factory.mktemp("cache"))


def test_train_then_export_gives_a_model_that_loads(tmp_path: Path, cache_root: Path) -> None:
    config, run = tmp_path / "tiny.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump({**TINY, "network": "difuse_net_s", "steps": 2}))
    arguments = ["train", "--config", str(config), "--out", str(run), "--cache", str(cache_root)]
    runner = CliRunner()
    trained = runner.invoke(app, arguments)
    assert trained.exit_code == 0, trained.output
    assert "resuming" not in trained.output
    again = runner.invoke(app, arguments)
    assert "resuming" in again.output
    exported = runner.invoke(app, [
        "export", str(run), "--out", str(tmp_path / "model"), "--name", "tiny", "--cache",
        str(cache_root), "--curve", str(tmp_path / "curve.png")])
    assert exported.exit_code == 0, exported.output
    card = load_card(tmp_path / "model" / "tiny.json")
    assert card.training["steps"] == 2
    assert card.sigma_scale > 0
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    backend = load_backend(str(tmp_path / "model" / "tiny.json"), threads=1)
    assert backend.model_id.startswith("tiny@")

    compact = runner.invoke(app, [
        "export", str(run), "--out", str(tmp_path / "compact"), "--name", "tiny", "--compact",
        "--cache", str(cache_root)])
    assert compact.exit_code == 0, compact.output
    sizes = [(tmp_path / folder / "tiny.safetensors").stat().st_size
             for folder in ("model", "compact")]
    assert sizes[1] < 0.6 * sizes[0]
    small = load_backend(str(tmp_path / "compact" / "tiny.json"), threads=1)
    assert small.backend_name == "torch" and small.card.onnx is None
    views = np.random.default_rng(0).random((2, 1, 1, 64, 96)).astype(np.float32)
    rgb = np.repeat(views[0], 3, axis=1)
    inputs = NetworkInput(views[0], views[1], rgb, np.zeros((1, CONDITION_CHANNELS), np.float32))
    whole = load_backend(str(tmp_path / "model" / "tiny.json"), backend="torch", threads=1)
    (a, _), (b, _) = whole.infer(inputs), small.infer(inputs)
    assert np.quantile(np.abs(a - b), 0.99) < 0.05, "half precision of weights changes little"


def test_a_run_goes_on_from_its_folder_alone_and_can_begin_anew(
    tmp_path: Path, cache_root: Path
) -> None:
    config, run = tmp_path / "tiny.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump({**TINY, "steps": 2}))
    place = ["--out", str(run), "--cache", str(cache_root)]
    runner = CliRunner()
    assert runner.invoke(app, ["train", "--config", str(config), *place]).exit_code == 0
    first = [row["loss"] for row in csv.DictReader((run / "curve.csv").open())]
    again = runner.invoke(app, ["train", *place])
    assert again.exit_code == 0, again.output
    assert "at step 2" in again.output
    anew = runner.invoke(app, ["train", *place, "--restart"])
    assert anew.exit_code == 0, anew.output
    assert "resuming" not in anew.output
    assert [row["loss"] for row in csv.DictReader((run / "curve.csv").open())] == first


def test_wrong_configuration_and_unfinished_run_are_refused_with_a_sentence(
    tmp_path: Path,
) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("steps: -3\nfoo: 1\n")
    runner = CliRunner()
    refused = runner.invoke(app, ["train", "--config", str(config)])
    assert refused.exit_code == 2
    assert "steps" in refused.output
    assert "foo" in refused.output
    nothing = runner.invoke(app, ["train", "--out", str(tmp_path / "none")])
    assert nothing.exit_code == 2
    assert "--config is missing" in nothing.output
    config.write_text("data: {kind: folder, path: nowhere}\n")
    no_data = runner.invoke(app, ["train", "--config", str(config), "--out", str(tmp_path / "r")])
    assert no_data.exit_code == 2
    assert "no files in depth/" in no_data.output
    unfinished = runner.invoke(app, ["export", str(tmp_path), "--out", str(tmp_path / "m")])
    assert unfinished.exit_code == 2
    assert "run.json" in unfinished.output
