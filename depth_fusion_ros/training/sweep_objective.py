"""Losses of the focus-sweep network by part: volume, prior, then the fusion on both, frozen.

Volume and fusion learn by the loss that the configuration names: "metric", the one of the
dual-pixel network, or "silog", the attention-fusion paper's (`silog_losses.py`). The paper's
networks give no uncertainty; for sigma to be trained at all, "silog" adds the Laplace likelihood
of the error that is there (weight `likelihood`, ours, 0 leaves it out), without a gradient for the
estimate. The prior's loss is the affine one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from depth_fusion_ros.networks.convention import DiFuseNetOutput
from depth_fusion_ros.networks.sweep_depth import PARTS, SweepDepth, all_in_focus
from depth_fusion_ros.training.affine_losses import affine_errors, affine_loss, pool_valid
from depth_fusion_ros.training.config import LossSection
from depth_fusion_ros.training.config_sections import STAGE_LOSSES
from depth_fusion_ros.training.losses import LossWeights, disparity_loss, scale_weights
from depth_fusion_ros.training.silog_losses import (
    laplace_of_known_error,
    log_ratio,
    multi_scale_gradient_loss,
    silog_loss,
)
from depth_fusion_ros.training.stand_in_priors import with_stand_ins
from depth_fusion_ros.training.sweep_exposure import SweepBatch

Pairs = list[tuple[Tensor, Tensor]]
LOG_LAPLACE_SIGMA = math.log(2) / 2
"""Of a Laplace distribution's standard deviation, in units of its scale."""


class SweepObjective(nn.Module):
    """Network and loss of one part; the others are frozen and run as in deployment.

    Args:
        network: whole path. part: one of `PARTS`. loss: kind and weights; of "silog" `gradient` is
            the weight of its gradient term and `likelihood` that of sigma's, see the module.

    Raises:
        ValueError: no such part, or the part does not learn by that loss.
    """

    def __init__(self, network: SweepDepth, part: str, loss: LossSection) -> None:
        super().__init__()
        if part not in PARTS:
            raise ValueError(f"part = {part!r}: use one of {PARTS}")
        if part != "prior" and loss.kind not in STAGE_LOSSES[part]:
            raise ValueError(f"loss kind = {loss.kind!r} of part {part!r}: use one of "
                             f"{STAGE_LOSSES[part]}")
        self.network, self.part, self.loss = network, part, loss
        self._weights = LossWeights(**{
            f.name: getattr(loss, f.name) for f in fields(LossWeights) if hasattr(loss, f.name)})
        for name in PARTS:
            getattr(network, name).requires_grad_(name == part)

    def train(self, mode: bool = True) -> SweepObjective:
        """Training mode for the part that is trained: frozen statistics stay as they are."""
        super().train(mode)
        for name in PARTS:
            getattr(self.network, name).train(mode and name == self.part)
        return self

    def forward(self, sealed: Any) -> tuple[Tensor, dict[str, float]]:
        """Loss of a `SealedBatch` of a `SweepBatch`, and its parts as numbers."""
        batch: SweepBatch = sealed.batch
        if self.part == "prior":
            output = self.network.prior.forward_full(all_in_focus(batch.stack))
            with torch.autocast(batch.stack.device.type, enabled=False):
                return affine_loss(
                    _float(output), batch.inverse_depth_diopters, batch.valid,
                    estimates_inverse_depth=True, alignment=self.loss.alignment,
                    gradient_weight=self.loss.affine_gradient)
        pairs = self._pairs(batch)
        with torch.autocast(batch.stack.device.type, enabled=False):
            truth = batch.inverse_depth_diopters
            if self.loss.kind == "silog":
                return _silog([(d.float(), s.float()) for d, s in pairs], truth, batch.valid,
                              self.loss)
            # Inverse depth is a disparity of gain −1 px·m at infinity focus: one loss for both.
            signed = [(-d.float(), s.float()) for d, s in pairs]
            output = DiFuseNetOutput(*signed[-1], signed[:-1], [])
            return disparity_loss(output, -truth, truth, 0.0, self._weights, batch.valid)

    def _pairs(self, batch: SweepBatch) -> Pairs:
        """(dioptres, log scale), coarse first."""
        if self.part == "volume":
            volume = self.network.volume.forward_full(*batch.inputs)
            every = [*volume.intermediate, (volume.diopters, volume.sigma_diopters)]
            return [(d, torch.log(s) - LOG_LAPLACE_SIGMA) for d, s in every]
        with torch.no_grad():
            volume = self.network.volume.forward_full(*batch.inputs)
            image = all_in_focus(batch.stack)
            prior = self.network.prior(image)
            if batch.stand_in is not None:
                prior = with_stand_ins(prior.float(), batch.stand_in)
        fused = self.network.fuse(volume, image, prior)
        return [*fused.intermediate, (fused.diopters, fused.log_sigma)]


def _silog(pairs: Pairs, truth: Tensor, valid: Tensor, loss: LossSection
           ) -> tuple[Tensor, dict[str, float]]:
    """The paper's loss of every output, coarse first, and sigma's; parts are those of the last."""
    total = truth.new_zeros(())
    parts: dict[str, float] = {}
    # Where there is no truth its inverse may be 0: no number may become infinite, not even unused.
    truth = torch.where(valid, truth, torch.ones_like(truth))
    for weight, (estimate, log_scale) in zip(scale_weights(len(pairs) - 1), pairs, strict=True):
        target, mask = pool_valid(truth, valid, truth.shape[-1] // estimate.shape[-1])
        target = torch.where(mask, target, torch.ones_like(target))
        g = log_ratio(estimate, target)
        silog, gradient = silog_loss(g, mask), multi_scale_gradient_loss(g, mask)
        value = silog + loss.gradient * gradient
        parts = {"silog": float(silog.detach()), "gradient": float(gradient.detach()),
                 "log_depth": _mean(g.detach().abs(), mask),
                 "mae_px": _mean((estimate.detach() - target).abs(), mask)}
        if loss.likelihood:
            sigma = laplace_of_known_error(estimate - target, log_scale, mask)
            value = value + loss.likelihood * sigma
            parts["likelihood"] = float(sigma.detach())
        total = total + weight * value
    return total, parts


def held_out_sweep_errors(network: SweepDepth, part: str, batches: Iterator[SweepBatch]
                          ) -> dict[str, float]:
    """Errors of a network in evaluation mode on held-out sweeps.

    Returns:
        of the prior val_affine_mae; of the others val_mae_px (here dioptres), val_abs_log_depth
        and val_within_1_sigma.
    """
    rows: list[dict[str, float]] = []
    for batch in batches:
        truth, valid = batch.inverse_depth_diopters, batch.valid
        if part == "prior":
            mae, _ = affine_errors(network.prior(all_in_focus(batch.stack)), truth, valid,
                                   "least_squares")
            rows.append({"val_affine_mae": float(mae)})
            continue
        if part == "volume":
            d, sigma = network.volume(*batch.inputs)
        else:
            d, log_scale, *_ = network(*batch.inputs)
            sigma = 2**0.5 * log_scale.exp()
        error = (d - truth)[valid]
        ratio = (d[valid] / truth[valid]).clamp_min(0.02)
        rows.append({"val_mae_px": float(error.abs().mean()),
                     "val_abs_log_depth": float(ratio.log().abs().mean()),
                     "val_within_1_sigma": float((error.abs() < sigma[valid]).float().mean())})
    return {key: sum(row[key] for row in rows) / len(rows) for key in (rows[0] if rows else {})}


def _float(output: DiFuseNetOutput) -> DiFuseNetOutput:
    return DiFuseNetOutput(output.disparity_px.float(), output.log_sigma.float(),
                           [(d.float(), s.float()) for d, s in output.intermediate], [])


def _mean(values: Tensor, mask: Tensor) -> float:
    return float((values * mask).sum() / mask.sum().clamp_min(1))
