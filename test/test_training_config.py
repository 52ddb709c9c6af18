"""Training configurations: what is refused, with what words, and what is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from depth_fusion_ros.training.config import (
    ConfigError,
    TrainingConfig,
    load_config,
    save_config,
    with_hardware,
)

SHIPPED = sorted((Path(__file__).parent.parent / "config" / "train").glob("*.yaml"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("steps: 0", "steps = 0"),
        ("stepps: 5", "stepps"),
        ("data: {scenes: 17}", r"data\.scenes = 17.*multiple of 16"),
        ("network: resnet", "difuse_net_s"),
        ("network: difuse_net_s-nothing", "no_evidence"),
        ("network: difuse_net\ndata: {height_px: 96}", "multiples of 64"),
        ("learning_rate: fast", "learning_rate = 'fast'"),
        ("[1, 2]", "config"),
        ("a: [", "YAML"),
        ("batch: 6\nparts: 4", "multiple of parts"),
        ("batch: 6\nhardware: {devices: 4}", "multiple of devices x num_nodes|multiple of parts"),
        ("hardware: {precision: half}", "hardware.precision = 'half'"),
        ("hardware: {precision: 16-mixed, accelerator: cpu}", "bf16-mixed"),
        ("data: {kind: folder}", "path is missing"),
        ("data: {path: here}", "not for kind = 'simulated'"),
        ("data: {kind: folder, path: a, swap_views: true}", "swap_views"),
        ("data: {kind: google_dual_pixel, path: a}", "affine"),
        ("more_data: [{kind: dcdp, path: a}]", "affine"),
        ("stages: [{name: whole, steps: 1}, {name: rgb, steps: 1}]", "'whole' comes last"),
        ("stages: [{name: rgb, steps: 1, loss: {kind: metric}}, {name: whole, steps: 1}]",
         "RGB alone shows no disparity"),
        ("stages: [{name: rgb, steps: 1, batch: 3}, {name: whole, steps: 1}]\nparts: 2",
         "stage 'rgb'.*batch = 3"),
        ("network: dpnet\nstages: [{name: whole, steps: 1}]", "remove stages"),
    ],
)
def test_wrong_configuration_is_refused_by_field_and_rule(
    tmp_path: Path, text: str, named: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        load_config(path)


def test_every_wrong_field_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("steps: 0\nbatch: none\nfoo: 1\n")
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert all(name in str(error.value) for name in ("steps", "batch", "foo"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_training_configurations_are_valid_and_survive_being_saved(
    path: Path, tmp_path: Path
) -> None:
    config = load_config(path)
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config


def test_there_are_shipped_configurations() -> None:
    assert {"difuse_net_s", "difuse_net_s_cmtl"} <= {path.stem for path in SHIPPED}


def test_hardware_of_the_command_line_replaces_that_of_the_file() -> None:
    config = TrainingConfig(**yaml.safe_load("hardware: {devices: 2, precision: bf16-mixed}"))
    changed = with_hardware(config, {"devices": 4, "precision": None})
    assert (changed.hardware.devices, changed.hardware.precision) == (4, "bf16-mixed")
    with pytest.raises(ConfigError, match="devices = 0"):
        with_hardware(config, {"devices": 0})
    with pytest.raises(ConfigError, match="multiple of parts"):
        with_hardware(config, {"devices": 3})
