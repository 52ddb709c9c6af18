"""Losses of the focus-sweep network's parts: ours and the attention-fusion paper's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sweep_scenes import SIZE, filled

from depth_fusion_ros.networks.registry import build
from depth_fusion_ros.networks.sweep_depth import SweepDepth
from depth_fusion_ros.training.config import LossSection
from depth_fusion_ros.training.objective import SealedBatch
from depth_fusion_ros.training.sweep_data import SweepCache
from depth_fusion_ros.training.sweep_exposure import SweepBatch, make_sweep_batch
from depth_fusion_ros.training.tasks import make_objective


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> SweepBatch:
    cache: SweepCache = filled(tmp_path_factory.mktemp("sweeps"), 1)
    assert cache.config.slices == SIZE["slices"]
    return make_sweep_batch(cache, torch.arange(3), torch.Generator().manual_seed(0), slices=4)


@pytest.mark.parametrize("kind", ["metric", "silog"])
@pytest.mark.parametrize(("name", "part"), [
    ("sweep_depth", "volume"), ("sweep_depth", "fusion"), ("sweep_depth-hybrid", "fusion"),
    ("sweep_depth-crossdepth_code", "fusion"), ("sweep_depth-crossdepth_paper", "fusion")])
def test_every_fusion_learns_by_either_loss(
    kind: Any, name: str, part: str, batch: SweepBatch
) -> None:
    torch.manual_seed(0)
    network = build(name)
    objective = make_objective(network, part, LossSection(kind=kind))
    objective.train()
    sealed = SealedBatch(batch)
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 5e-5)
    values = []
    for _ in range(4):
        optimiser.zero_grad()
        value, parts = objective(sealed)
        value.backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters()
                   if p.grad is not None)
        optimiser.step()
        values.append(float(value.detach()))
    assert min(values[1:]) < values[0]
    assert {"log_depth", "mae_px", "gradient"} <= set(parts), "columns of the curve"
    assert ("silog" in parts) == (kind == "silog")


def test_sigma_learns_beside_the_papers_loss_only_where_it_has_a_weight(batch: SweepBatch) -> None:
    torch.manual_seed(0)
    network = build("sweep_depth")
    assert isinstance(network, SweepDepth)
    sealed = SealedBatch(batch)

    def gradients(likelihood: float) -> list[torch.Tensor]:
        """Of the last head's channels: share, correction, log sigma."""
        objective = make_objective(network, "fusion", LossSection(
            kind="silog", likelihood=likelihood))
        network.zero_grad()
        value, parts = objective(sealed)
        value.backward()
        assert ("likelihood" in parts) == (likelihood > 0)
        gradient = network.fusion.heads[-1].weight.grad  # type: ignore[union-attr, index]
        assert gradient is not None
        return [channel.clone() for channel in gradient]

    without, beside = gradients(0.0), gradients(0.3)
    assert not without[2].any() and beside[2].any()
    for channel in (0, 1):
        assert torch.allclose(beside[channel], without[channel], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["metric", "silog"])
def test_pixels_without_truth_teach_nothing_whatever_stands_there(
    kind: Any, batch: SweepBatch
) -> None:
    torch.manual_seed(0)
    network = build("sweep_depth")
    objective = make_objective(network, "volume", LossSection(kind=kind))
    valid = batch.valid.clone()
    valid[..., :32] = False
    gradients = []
    for stand_in in (1.0, 0.0):  # 0 dioptres: infinitely far
        inverse = batch.inverse_depth_diopters.clone()
        inverse[..., :32] = stand_in
        network.zero_grad()
        objective.eval()
        value, _ = objective(SealedBatch(SweepBatch(
            *batch.inputs, inverse, valid)))
        value.backward()
        gradient = network.volume.stem[0].weight.grad  # type: ignore[union-attr]
        assert gradient is not None and torch.isfinite(gradient).all()
        gradients.append(gradient.clone())
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
