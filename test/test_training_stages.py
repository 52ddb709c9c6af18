"""Cross-modal transfer learning: what a stage trains, what is copied, and the run of all three."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from training_scenes import DATA, TINY, fill_caches

from depth_fusion_ros.networks.registry import build
from depth_fusion_ros.training.config import TrainingConfig, stage_config
from depth_fusion_ros.training.stage_networks import DualPixelStage, RgbStage
from depth_fusion_ros.training.stages import fresh_network, stage_trainer, train, transfer

ENCODERS = {
    "dual_pixel": ("dual_half.", "dual_quarter.", "attention_half.", "attention_quarter."),
    "rgb": ("stem.", "stages.", "context."),
}
STAGES = [{"name": "dual_pixel", "steps": 2}, {"name": "rgb", "steps": 2},
          {"name": "whole", "steps": 3}]


def inputs(batch: int = 2, size: int = 64) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(0)
    return (*(torch.rand(batch, c, size, size, generator=random) for c in (1, 1, 3)),
            torch.rand(batch, 4, generator=random))


@pytest.mark.parametrize("stage", ["dual_pixel", "rgb"])
def test_transfer_copies_the_encoder_of_the_stage_and_nothing_else(stage: str) -> None:
    stage_network = (DualPixelStage if stage == "dual_pixel" else RgbStage)(
        fresh_network(TrainingConfig()))
    with torch.no_grad():  # as training would: every number differs from any fresh network's
        for value in stage_network.state_dict().values():
            value.add_(1)
    network = fresh_network(TrainingConfig(seed=2))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    copied = transfer(network, stage, stage_network.state_dict())
    assert copied
    assert set(copied) == {k for k in before if k.startswith(ENCODERS[stage])}
    for key, value in network.state_dict().items():
        if key in copied:
            assert torch.equal(value, stage_network.state_dict()[key]), key
        else:
            assert torch.equal(value, before[key]), key


def test_every_weight_outside_both_encoders_is_fusion_or_decoder() -> None:
    network = fresh_network(TrainingConfig())
    rest = {k.split(".")[0] for k in network.state_dict()
            if not k.startswith((*ENCODERS["dual_pixel"], *ENCODERS["rgb"]))}
    assert rest <= {"fusion_half", "fusion_quarter", "decoder", "aggregation", "heads", "refine",
                    "head_half", "head_full"}


def test_an_encoder_of_another_size_is_refused() -> None:
    weights = RgbStage(fresh_network(TrainingConfig())).state_dict()
    del weights["stem.0.weight"]
    with pytest.raises(ValueError, match=r"stem\.0\.weight"):
        transfer(build("difuse_net_s"), "rgb", weights)


def test_the_dual_pixel_stage_is_blind_to_rgb_and_the_rgb_stage_to_everything_else() -> None:
    left, right, rgb, condition = inputs()
    dual = DualPixelStage(fresh_network(TrainingConfig())).eval()
    mono = RgbStage(fresh_network(TrainingConfig())).eval()
    with torch.no_grad():
        for network in (dual, mono):
            for head in network.decoder.heads:
                torch.nn.init.normal_(head.weight)
        a = dual(left, right, rgb, condition)[0]
        assert torch.equal(a, dual(left, right, 1 - rgb, condition)[0])
        assert not torch.equal(a, dual(right, left, rgb, condition)[0])
        b = mono(left, right, rgb, condition)[0]
        assert torch.equal(b, mono(right, left, rgb, 0 * condition)[0])
        assert not torch.equal(b, mono(left, right, 1 - rgb, condition)[0])
    assert a.shape == b.shape == left.shape


@pytest.mark.parametrize("name", ["difuse_net", "difuse_net_s_paper", "difuse_net_s-line"])
def test_stages_fit_every_difuse_net(name: str) -> None:
    network = fresh_network(TrainingConfig(network=name))
    arguments = inputs(1)
    for stage in (DualPixelStage(network), RgbStage(network)):
        output = stage.eval().forward_full(*arguments)
        assert output.disparity_px.shape == arguments[0].shape
        assert [d.shape[-1] for d, _ in output.intermediate][-1] == 32
        assert torch.isfinite(output.disparity_px).all()


def test_three_stages_run_from_one_configuration_and_resume_where_they_were(
    tmp_path: Path
) -> None:
    cache_root = fill_caches(tmp_path / "cache")
    config = TrainingConfig(**{**TINY, "stages": STAGES})
    out = tmp_path / "run"
    fabric = Fabric(accelerator="cpu", devices=1)
    train(config, out, cache_root, fabric)
    stage_1 = load_file(out / "dual_pixel" / "dual_pixel.safetensors")
    stage_2 = load_file(out / "rgb" / "rgb.safetensors")
    facts = json.loads((out / "run.json").read_text())
    assert facts["steps_done"] == 3
    assert json.loads((out / "rgb" / "run.json").read_text())["training"]["loss"]["kind"] == (
        "affine")

    (out / "checkpoint.pt").unlink()
    last = stage_trainer(config, 2, out, cache_root, fabric)
    assert last.step == 0
    state = last.network.state_dict()
    for stage, weights in (("dual_pixel", stage_1), ("rgb", stage_2)):
        mine = [k for k in state if k.startswith(ENCODERS[stage])]
        assert mine
        assert all(torch.equal(state[k], weights[k]) for k in mine)
    fresh = fresh_network(config).state_dict()
    assert torch.equal(state["decoder.0.reduce.0.weight"], fresh["decoder.0.reduce.0.weight"])
    assert not torch.equal(state["stem.0.weight"], fresh["stem.0.weight"])
    assert all(torch.equal(last.ema[k], v) for k, v in state.items())

    again = stage_trainer(config, 0, out, cache_root, fabric)
    assert again.step == 2, "a finished stage is not trained again"


def test_a_stage_inherits_what_it_does_not_set() -> None:
    config = TrainingConfig(**{**TINY, "learning_rate": 1e-3, "stages": [
        {"name": "rgb", "steps": 7, "batch": 2, "data": {**DATA, "seed": 5}},
        {"name": "whole", "steps": 9, "loss": {"gradient": 2.0}}]})
    first, last = (stage_config(config, stage) for stage in config.stages)
    assert (first.steps, first.batch, first.data.seed, first.loss.kind) == (7, 2, 5, "affine")
    assert (last.steps, last.batch, last.data.seed, last.loss.kind) == (9, 4, 1, "metric")
    assert first.learning_rate == last.learning_rate == 1e-3
    assert last.loss.gradient == 2.0
