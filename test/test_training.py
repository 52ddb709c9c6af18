"""Training: labels agree with the lens, losses behave, runs resume to the same weights."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from depth_fusion_ros.networks.evidence import dual_pixel_evidence
from depth_fusion_ros.training.config import ConfigError, TrainingConfig, load_config
from depth_fusion_ros.training.datasets import SceneCache, SceneCacheConfig, make_batch
from depth_fusion_ros.training.losses import laplace_nll, log_depth_error
from depth_fusion_ros.training.trainer import Trainer

DATA = {"scenes": 16, "width_px": 64, "height_px": 64, "aperture_samples": 16}
TINY = {
    "data": DATA, "steps": 4, "batch": 4, "warmup_steps": 1, "checkpoint_every_steps": 2,
    "validation": {"scenes": 16, "every_steps": 2}, "threads": 1,
}


@pytest.fixture(scope="module")
def cache_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cache")
    SceneCache(SceneCacheConfig(**DATA, seed=1), root).render()
    return root


def test_labels_agree_with_what_matching_sees(cache_root: Path) -> None:
    """On strong texture the closed form, which knows no label, must find the label."""
    cache = SceneCache(SceneCacheConfig(**DATA, seed=1), cache_root)
    batch = make_batch(cache, torch.arange(16), torch.Generator().manual_seed(0))
    evidence = dual_pixel_evidence(batch.left, batch.right)
    truth = torch.nn.functional.avg_pool2d(batch.disparity_px, 2)
    strong = (evidence.energy[:, 1:2] > 3e-3) & (evidence.residual < 0.05)
    error = (evidence.disparity_px[:, 1:2] - truth)[strong].abs()
    guess = truth[strong].abs()
    assert strong.sum() > 500
    assert float(error.median()) < 0.1
    assert float(error.median()) < 0.5 * float(guess.median())


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


def test_rendering_resumes_to_the_same_scenes(tmp_path: Path, cache_root: Path) -> None:
    whole = SceneCache(SceneCacheConfig(**DATA, seed=1), cache_root)

    class Interrupted(Exception):
        pass

    config = SceneCacheConfig(**{**DATA, "scenes": 32}, seed=1)

    def interrupt(done: int) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        SceneCache(config, tmp_path).render(progress=interrupt)
    resumed = SceneCache(config, tmp_path)
    assert resumed.rendered == 16
    assert (resumed.strips[:16] == whole.strips).all(), "a scene depends on seed and index alone"


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


def test_interrupted_training_ends_with_the_same_weights(
    tmp_path: Path, cache_root: Path
) -> None:
    config = TrainingConfig(**TINY)
    straight = load_file(Trainer(config, tmp_path / "a", cache_root).run())
    half = Trainer(config, tmp_path / "b", cache_root)
    half.held_out.render()
    for _ in range(2):
        half._train_step()
    half._save_checkpoint()
    resumed = Trainer(config, tmp_path / "b", cache_root)
    assert resumed.step == 2
    again = load_file(resumed.run())
    for key, value in straight.items():
        assert torch.allclose(value, again[key], atol=1e-6), key
    rows = list(csv.DictReader((tmp_path / "a" / "curve.csv").open()))
    assert rows[-1]["step"] == "4"
    assert float(rows[-1]["val_mae_px"]) > 0


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


@pytest.mark.parametrize(
    ("text", "named"),
    [("steps: 0", "steps"), ("stepps: 5", "stepps"), ("data: {scenes: 17}", "scenes"),
     ("network: resnet", "difuse_net_s"), ("learning_rate: fast", "learning_rate"),
     ("[1, 2]", "config"), ("a: [", "YAML")],
)
def test_wrong_configuration_is_refused_by_field_and_rule(
    tmp_path: Path, text: str, named: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        load_config(path)


def test_shipped_training_configurations_are_valid() -> None:
    folder = Path(__file__).parent.parent / "config" / "train"
    files = sorted(folder.glob("*.yaml"))
    assert files
    for path in files:
        load_config(path)
