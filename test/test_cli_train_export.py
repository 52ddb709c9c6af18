"""The commands train and export, from nothing to a model that loads."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from depth_fusion_ros.cli.main import app
from depth_fusion_ros.estimation.backends import load_backend
from depth_fusion_ros.estimation.model_card import load_card

CONFIG = """
network: difuse_net_s
data: {scenes: 16, width_px: 64, height_px: 64, aperture_samples: 16}
steps: 2
batch: 4
validation: {scenes: 16, every_steps: 2}
threads: 1
"""


def test_train_then_export_gives_a_model_that_loads(tmp_path: Path) -> None:
    config, run = tmp_path / "tiny.yaml", tmp_path / "run"
    config.write_text(CONFIG)
    arguments = ["train", "--config", str(config), "--out", str(run), "--cache",
                 str(tmp_path / "cache")]
    runner = CliRunner()
    trained = runner.invoke(app, arguments)
    assert trained.exit_code == 0, trained.output
    again = runner.invoke(app, arguments)
    assert "resuming" in again.output
    exported = runner.invoke(app, [
        "export", str(run), "--out", str(tmp_path / "model"), "--name", "tiny", "--cache",
        str(tmp_path / "cache"), "--curve", str(tmp_path / "curve.png")])
    assert exported.exit_code == 0, exported.output
    card = load_card(tmp_path / "model" / "tiny.json")
    assert card.training["steps"] == 2
    assert card.sigma_scale > 0
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    backend = load_backend(str(tmp_path / "model" / "tiny.json"), threads=1)
    assert backend.model_id.startswith("tiny@")


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
    unfinished = runner.invoke(app, ["export", str(tmp_path), "--out", str(tmp_path / "m")])
    assert unfinished.exit_code == 2
    assert "run.json" in unfinished.output
