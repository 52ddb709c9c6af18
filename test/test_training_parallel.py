"""Two processes train as one does, through the command that people use."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning_fabric import Fabric
from safetensors.torch import load_file
from training_scenes import TINY, fill_caches

from depth_fusion_ros.training.config import HardwareSection, TrainingConfig
from depth_fusion_ros.training.parallel import RunningStatistics, start_processes
from depth_fusion_ros.training.trainer import Trainer


@pytest.fixture(scope="module")
def cache_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_caches(tmp_path_factory.mktemp("cache"))


def run_command(config: dict[str, object], folder: Path, cache_root: Path) -> Path:
    """Run `depth-fusion train` as a process of its own; returns the run folder."""
    path = folder / "config.yaml"
    folder.mkdir()
    path.write_text(yaml.safe_dump(config))
    environment = {k: v for k, v in os.environ.items()
                   if k not in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "MASTER_ADDR")}
    environment["OMP_NUM_THREADS"] = "1"
    result = subprocess.run(
        [sys.executable, "-m", "depth_fusion_ros.cli.main", "train", "--config", str(path),
         "--out", str(folder / "run"), "--cache", str(cache_root)],
        capture_output=True, text=True, timeout=280, check=False, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "run"


def test_two_processes_end_with_the_weights_of_one(tmp_path: Path, cache_root: Path) -> None:
    """Each of two processes trains on half of every batch; a single one on both halves."""
    steps = {**TINY, "steps": 3, "parts": 2}
    two = run_command({**steps, "hardware": {"accelerator": "cpu", "devices": 2}},
                      tmp_path / "two", cache_root)
    one = tmp_path / "one"
    Trainer(TrainingConfig(**steps), one, cache_root).run()
    assert json.loads((two / "run.json").read_text())["processes"] == 2

    losses = [[float(row["loss"]) for row in csv.DictReader((run / "curve.csv").open())]
              for run in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    halves, whole = (load_file(run / "difuse_net_s.safetensors") for run in (two, one))
    fresh = Trainer(TrainingConfig(**steps), tmp_path / "fresh", cache_root)
    moved, apart = 0.0, 0.0
    for key, start in fresh.network.state_dict().items():
        if start.dtype.is_floating_point:  # running statistics too
            moved = max(moved, float((whole[key] - start).abs().max()))
            apart = max(apart, float((whole[key] - halves[key]).abs().max()))
    assert moved > 1e-3
    assert apart < 0.02 * moved, (apart, moved)


def test_one_part_is_another_batch_than_two_parts(tmp_path: Path, cache_root: Path) -> None:
    """So the test above would see a process that ignored the parts."""
    rows = []
    for parts in (1, 2):
        trainer = Trainer(TrainingConfig(**TINY, parts=parts), tmp_path / str(parts), cache_root)
        trainer.prepare()
        batches = trainer.batch_parts(0)
        assert [len(b.left) for b in batches] == [4 // parts] * parts
        rows.append(trainer.train_step(batches)["loss"])
    assert abs(rows[0] - rows[1]) > 1e-3


def test_running_statistics_are_the_mean_over_parts() -> None:
    """Momentum 0.1 from mean 0: parts with means 1 and 3 give 0.1 and 0.3, so 0.2 is right."""
    norm = torch.nn.BatchNorm1d(1, momentum=0.1)
    statistics = RunningStatistics(list(norm.buffers()), Fabric(accelerator="cpu", devices=1), 2)
    for mean in (1.0, 3.0):
        statistics.begin_part()
        norm(torch.tensor([[mean - 1], [mean + 1]]))
    statistics.end_step()
    assert norm.running_mean is not None
    assert norm.running_mean.item() == pytest.approx(0.2)


def test_hardware_that_is_not_there_is_refused_with_the_remedy() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="accelerator = 'cpu'"):
        start_processes(HardwareSection(accelerator="cuda"))
    with pytest.raises(ValueError, match="bf16-mixed"):
        start_processes(HardwareSection(precision="16-mixed"))


def test_bfloat16_trains_with_finite_losses_in_float32(tmp_path: Path, cache_root: Path) -> None:
    config = TrainingConfig(**{
        **TINY, "steps": 1, "hardware": {"accelerator": "cpu", "precision": "bf16-mixed"}})
    trainer = Trainer(config, tmp_path / "half", cache_root)
    trainer.prepare()
    seen: list[torch.dtype] = []
    forward = trainer.network.forward_full

    def spy(*images: torch.Tensor) -> object:
        seen.extend(image.dtype for image in images)
        return forward(*images)

    trainer.network.forward_full = spy
    row = trainer.train_step(trainer.batch_parts(0))
    assert set(seen) == {torch.float32}, "images are not rounded on the way in"
    full = Trainer(TrainingConfig(**TINY), tmp_path / "full", cache_root)
    full.prepare()
    exact = full.train_step(full.batch_parts(0))
    assert row["loss"] == pytest.approx(exact["loss"], rel=0.05)
    assert row["loss"] != exact["loss"], "it did run in another precision"
    assert {p.dtype for p in trainer.network.parameters()} == {torch.float32}
