"""Training: labels agree with the lens, losses behave, runs resume to the same weights."""

from __future__ import annotations

import csv
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from training_scenes import DATA, FOCUS_DIOPTERS, TINY, fill_caches

from depth_fusion_ros.networks.evidence import dual_pixel_evidence
from depth_fusion_ros.simulation.camera import STRIPS, AperturePattern, CameraBatch
from depth_fusion_ros.simulation.scenes import SceneBatch
from depth_fusion_ros.training import datasets, render_cache
from depth_fusion_ros.training.checkpoint import CheckpointError
from depth_fusion_ros.training.config import TrainingConfig
from depth_fusion_ros.training.curve import Curve
from depth_fusion_ros.training.datasets import SceneCache, SceneCacheConfig, make_batch
from depth_fusion_ros.training.losses import laplace_nll, log_depth_error, relative_depth_error
from depth_fusion_ros.training.parallel import Prefetcher
from depth_fusion_ros.training.trainer import Progress, Trainer


@pytest.fixture(scope="module")
def cache_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_caches(tmp_path_factory.mktemp("cache"))


def test_labels_agree_with_what_matching_sees(cache_root: Path) -> None:
    """On strong texture the closed form, which knows no label, must find the label.

    That rendered scenes follow the lens equation is tested with the simulation.
    """
    cache = SceneCache(SceneCacheConfig(**DATA, seed=1), cache_root)
    signs = set()
    for seed in range(4):  # mirrored, upside down, on soft and hard splits
        batch = make_batch(cache, torch.arange(16), torch.Generator().manual_seed(seed))
        evidence = dual_pixel_evidence(batch.left, batch.right)
        truth = torch.nn.functional.avg_pool2d(batch.disparity_px, 2)
        strong = (evidence.energy[:, 1:2] > 1e-3) & (evidence.residual < 0.05) & (
            truth.abs() > 0.3)
        error = (evidence.disparity_px[:, 1:2] - truth)[strong].abs()
        assert strong.sum() > 500
        assert float(error.median()) < 0.1 * float(truth[strong].abs().median())
        signs |= set(truth[strong].sign().tolist())
        inverse = batch.inverse_depth_diopters
        k_px_m = batch.pixels_per_log / inverse
        assert torch.allclose(batch.disparity_px, k_px_m * (FOCUS_DIOPTERS - inverse), atol=1e-4)
    assert signs == {-1.0, 1.0}, "walls before and behind the focus plane"


def test_batches_repeat_by_seed_and_hide_the_lens_as_asked(cache_root: Path) -> None:
    cache = SceneCache(SceneCacheConfig(**DATA, seed=1), cache_root)
    a, b = (make_batch(cache, torch.arange(8), torch.Generator().manual_seed(3))
            for _ in range(2))
    assert torch.equal(a.left, b.left)
    hidden = make_batch(cache, torch.arange(8), torch.Generator().manual_seed(3),
                        unknown_lens_share=1.0)
    assert float(hidden.condition.abs().sum()) == 0
    assert torch.equal(hidden.disparity_px, a.disparity_px)
    assert all(torch.isfinite(t).all() for t in vars(a).values())


def test_rendering_resumes_to_the_same_scenes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for the tracer, which takes seconds a scene on one core."""

    def traced(scene: SceneBatch, camera: CameraBatch, pattern: AperturePattern) -> Tensor:
        seen = scene.centre.sum((1, 2)) + camera.blur_gain_px_m + pattern.points.sum()
        return torch.sin(seen)[:, None, None, None, None].expand(-1, STRIPS, 64, 64, 3)

    monkeypatch.setattr(render_cache, "ATLAS_TILES", 2)
    monkeypatch.setattr(datasets.fast_tracer, "available", lambda: False)
    monkeypatch.setattr(datasets, "render_strips", traced)
    monkeypatch.setattr(datasets, "render_depth",
                        lambda scene, camera: camera.focus_diopters[:, None, None])
    config = SceneCacheConfig(**{**DATA, "scenes": 48}, seed=1)
    whole = SceneCache(config, tmp_path / "whole")
    whole.render()

    class Interrupted(Exception):
        pass

    def interrupt(done: int) -> None:
        if done == 32:
            raise Interrupted

    with pytest.raises(Interrupted):
        SceneCache(config, tmp_path / "parts").render(progress=interrupt)
    resumed = SceneCache(config, tmp_path / "parts")
    assert resumed.rendered == 32
    done: list[int] = []
    resumed.render(progress=done.append)
    assert done == [48], "only what is missing is rendered"
    for name in ("strips", "depth", "camera"):
        assert (getattr(resumed, name) == getattr(whole, name)).all(), name
    assert len(set(whole.strips[:, 0, 0, 0].tolist())) > 40, "scenes differ"


def test_relative_depth_error_is_absrel_up_to_twice_the_depth_and_a_line_beyond() -> None:
    k_over_z = torch.full((5,), 4.0)
    error = torch.tensor([-4.0, 0.0, 1.0, 2.0, 4.0])  # Z/2, Z, 4/3 Z, 2 Z, infinity
    value = relative_depth_error(error, k_over_z)
    assert torch.allclose(value, torch.tensor([0.5, 0.0, 1 / 3, 1.0, 3.0]), atol=1e-6)


def test_log_depth_error_is_the_log_ratio_and_continues_beyond_infinity() -> None:
    k_over_z = torch.tensor(2.0)
    error = torch.tensor([0.4, -0.4, 3.0, 5.0], requires_grad=True)
    value = log_depth_error(error, k_over_z)
    assert value[0].item() == pytest.approx(-torch.log(torch.tensor(0.8)).item(), rel=1e-5)
    assert value[1].item() == pytest.approx(torch.log(torch.tensor(1.2)).item(), rel=1e-5)
    value.sum().backward()
    assert error.grad is not None
    assert (error.grad[[0, 2]] > 0).all(), "estimates beyond infinity keep a gradient"
    assert value[2] < value[3]


def test_likelihood_is_lowest_where_the_scale_equals_the_error() -> None:
    scales = torch.linspace(-4, 2, 601)
    best = scales[laplace_nll(torch.tensor(0.3), scales).argmin()]
    assert best.exp().item() == pytest.approx(0.3, rel=0.02)


def test_interrupted_training_ends_with_the_same_weights_bit_by_bit(
    tmp_path: Path, cache_root: Path
) -> None:
    config = TrainingConfig(**TINY)
    weights = load_file(Trainer(config, tmp_path / "a", cache_root).run())
    half = Trainer(config, tmp_path / "b", cache_root)
    half.prepare()
    for step in range(3):  # one step more than the checkpoint has
        half.train_step(half.batch_parts(step))
        if step == 1:
            half.save_checkpoint()
    resumed = Trainer(config, tmp_path / "b", cache_root)
    assert resumed.step == 2
    again = load_file(resumed.run())
    assert all(torch.equal(value, again[key]) for key, value in weights.items())
    rows = {name: list(csv.DictReader((tmp_path / name / "curve.csv").open()))
            for name in ("a", "b")}
    assert rows["a"][-1]["step"] == rows["b"][-1]["step"] == "4"
    for column in ("loss", "mae_px", "val_mae_px"):
        assert rows["a"][-1][column] == rows["b"][-1][column]
    assert float(rows["a"][-1]["val_mae_px"]) > 0


def test_the_same_seed_gives_the_same_first_losses_and_another_seed_others(
    tmp_path: Path, cache_root: Path
) -> None:
    def losses(name: str, **changes: object) -> list[float]:
        trainer = Trainer(TrainingConfig(**{**TINY, **changes}), tmp_path / name, cache_root)
        trainer.prepare()
        return [trainer.train_step(trainer.batch_parts(s))["loss"] for s in range(2)]

    first = losses("a")
    assert losses("b") == first
    assert losses("c", seed=2)[0] != first[0]


def test_curve_rows_after_the_checkpoint_are_made_again(tmp_path: Path, cache_root: Path) -> None:
    header = "step,minutes,loss"
    (tmp_path / "curve.csv").write_text(f"{header}\n2,0.1,7.0\n6,0.2,5.0\n")
    trainer = Trainer(TrainingConfig(**TINY), tmp_path, cache_root)
    trainer.step = 2
    trainer.save_checkpoint()
    Trainer(TrainingConfig(**TINY), tmp_path, cache_root).run()
    rows = (tmp_path / "curve.csv").read_text().splitlines()
    assert rows[0] == header, "a curve keeps the columns it began with"
    assert [row.split(",")[0] for row in rows[1:]] == ["2", "4"]


def test_tensorboard_gets_the_curve_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[object, ...]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            written.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append(("closed",))

    installed = types.ModuleType("torch.utils.tensorboard")
    installed.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", installed)
    curve = Curve(tmp_path, 7)
    curve.write({"step": 8, "loss": 1.5, "val_mae_px": 0.25})
    curve.close()
    assert written == [(str(tmp_path / "tensorboard"), 8), ("training/loss", 1.5, 8),
                       ("held_out/val_mae_px", 0.25, 8), ("closed",)]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # now it is not
    Curve(tmp_path, 8).write({"step": 9, "loss": 1.25})
    rows = list(csv.DictReader((tmp_path / "curve.csv").open()))
    assert [row["loss"] for row in rows] == ["1.5", "1.25"]
    assert len(written) == 4


def test_a_loss_that_is_not_finite_stops_the_run_with_the_remedy(
    tmp_path: Path, cache_root: Path
) -> None:
    trainer = Trainer(TrainingConfig(**TINY), tmp_path, cache_root)
    trainer.prepare()
    parts = trainer.batch_parts(0)
    parts[0].disparity_px.fill_(float("nan"))
    before = {k: v.clone() for k, v in trainer.network.named_parameters()}
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        trainer.train_step(parts)
    assert trainer.step == 0
    assert all(torch.equal(v, before[k]) for k, v in trainer.network.named_parameters())


def test_weight_decay_is_for_convolution_kernels_only(tmp_path: Path, cache_root: Path) -> None:
    trainer = Trainer(TrainingConfig(**TINY, weight_decay=0.1), tmp_path, cache_root)
    decayed, plain = trainer._optimizer.param_groups
    assert decayed["weight_decay"] == 0.1
    assert {p.ndim for p in decayed["params"]} == {4}
    assert plain["weight_decay"] == 0.0
    assert 4 not in {p.ndim for p in plain["params"]}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(trainer.network.parameters()))


def test_learning_rate_warms_up_holds_and_decays_to_zero(
    tmp_path: Path, cache_root: Path
) -> None:
    config = TrainingConfig(**{**TINY, "steps": 100, "warmup_steps": 10, "decay_share": 0.3})
    trainer = Trainer(config, tmp_path, cache_root)
    rates = [trainer.learning_rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(config.learning_rate / 10)
    assert rates[10:70] == pytest.approx([config.learning_rate] * 60)
    assert rates[99] < config.learning_rate / 25
    assert rates[70:] == sorted(rates[70:], reverse=True)


def test_every_cycle_begins_again_from_half_the_rate_and_leaves_those_before_as_they_were(
    tmp_path: Path, cache_root: Path
) -> None:
    values = {**TINY, "warmup_steps": 10, "decay_share": 0.3}
    once, short, thrice = (
        Trainer(TrainingConfig(**{**values, **more}), tmp_path, cache_root)
        for more in ({"steps": 100}, {"steps": 50}, {"steps": 250, "cycles": [100, 100, 50]}))
    first, of_50 = ([one.learning_rate(step) for step in range(one.config.steps)]
                    for one in (once, short))
    assert [thrice.learning_rate(step) for step in range(250)] == pytest.approx(
        first + [rate / 2 for rate in first] + [rate / 4 for rate in of_50])
    assert [thrice.learning_rate(step) for step in range(100)] == first
    with pytest.raises(ValueError, match=r"steps = 100 in cycles = \[60, 50\], 110 in sum"):
        TrainingConfig(**{**values, "steps": 100, "cycles": [60, 50]})


def test_resuming_says_what_changed_and_refuses_another_network(
    tmp_path: Path, cache_root: Path
) -> None:
    Trainer(TrainingConfig(**TINY), tmp_path, cache_root).save_checkpoint()
    said: list[str] = []
    changed = TrainingConfig(**{**TINY, "learning_rate": 1e-4, "threads": 0})
    Trainer(changed, tmp_path, cache_root, progress=Progress(say=said.append))
    assert "at step 0" in said[0]
    assert "learning_rate: 0.0015 → 0.0001" in said[0]
    assert "threads" not in said[0]
    other = TrainingConfig(**{**TINY, "network": "difuse_net_s-no_evidence"})
    with pytest.raises(CheckpointError, match="another run folder"):
        Trainer(other, tmp_path, cache_root)
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        Trainer(TrainingConfig(**TINY), tmp_path, cache_root)


def test_prefetched_items_come_in_order_and_errors_are_not_lost() -> None:
    def make(step: int) -> int:
        if step == 4:
            raise ValueError("step 4")
        return step * step

    ahead = Prefetcher(make, ahead=3, last=10)
    assert [ahead.get(step) for step in range(4)] == [0, 1, 4, 9]
    with pytest.raises(ValueError, match="step 4"):
        ahead.get(4)
    assert ahead.get(9) == 81, "any step may be asked for"
    ahead.close()


def test_a_run_with_prefetch_ends_with_the_same_weights(tmp_path: Path, cache_root: Path) -> None:
    one, other = (
        load_file(Trainer(
            TrainingConfig(**{**TINY, "hardware": {"accelerator": "cpu", "prefetch": ahead}}),
            tmp_path / str(ahead), cache_root).run())
        for ahead in (0, 2))
    assert all(torch.equal(value, other[key]) for key, value in one.items())
