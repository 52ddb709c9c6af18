"""Network and loss as one module, and the errors on held-out samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from depth_fusion_ros.networks.convention import DiFuseNetOutput
from depth_fusion_ros.training.affine_losses import affine_errors, affine_loss
from depth_fusion_ros.training.config import LossSection
from depth_fusion_ros.training.datasets import TrainingBatch
from depth_fusion_ros.training.losses import LossWeights, disparity_loss


class SealedBatch:
    """A batch that Fabric hands on as it is.

    In mixed precision it would round every tensor it can find in a container to 8 or 11 bits,
    labels and images too; only what the network computes shall be coarse.
    """

    def __init__(self, batch: Any) -> None:
        self.batch = batch


class Objective(nn.Module):
    """Network and loss in one, the module that processes share.

    The network runs in the precision of the run, the loss always in float32.

    Raises:
        ValueError: the loss is one of focus sweeps.
    """

    def __init__(self, network: nn.Module, loss: LossSection) -> None:
        super().__init__()
        if loss.kind == "silog":
            raise ValueError("loss kind = 'silog': is for focus-sweep networks; use metric or "
                             "affine")
        self.network, self.loss = network, loss
        self._weights = LossWeights(**{
            f.name: getattr(loss, f.name) for f in fields(LossWeights) if hasattr(loss, f.name)})

    def forward(self, sealed: SealedBatch) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch and its parts as numbers, those of the full-resolution output."""
        batch = sealed.batch
        network: Any = self.network
        output = network.forward_full(batch.left, batch.right, batch.rgb, batch.condition)
        with torch.autocast(batch.left.device.type, enabled=False):
            output = _in_float32(output)
            if self.loss.kind == "affine":
                return affine_loss(
                    output, batch.inverse_depth_diopters, batch.valid,
                    estimates_inverse_depth=estimates_inverse_depth(network),
                    alignment=self.loss.alignment, gradient_weight=self.loss.affine_gradient)
            return disparity_loss(output, batch.disparity_px, batch.pixels_per_log,
                                  network.config.attention.reach_px, self._weights, batch.valid)


def estimates_inverse_depth(network: Any) -> bool:
    """Whether `disparity_px` of a network's output is an affine inverse depth."""
    return bool(network.config.output == "inverse_depth")


def held_out_errors(network: nn.Module, batches: Iterator[TrainingBatch], loss: LossSection
                    ) -> dict[str, float]:
    """Mean errors of a network in eval mode over batches, as columns of the curve.

    Returns:
        val_affine_mae for the affine loss; val_mae_px, val_abs_log_depth and val_within_1_sigma
        for the metric one; {} without batches that have truth.
    """
    rows: list[dict[str, float]] = []
    for batch in batches:
        if not batch.valid.any():
            continue
        d, log_sigma = network(batch.left, batch.right, batch.rgb, batch.condition)
        if loss.kind == "affine":
            sign = 1.0 if estimates_inverse_depth(network) else -1.0
            mae, _ = affine_errors(sign * d, batch.inverse_depth_diopters, batch.valid,
                                   "least_squares")
            rows.append({"val_affine_mae": float(mae)})
            continue
        error = (d - batch.disparity_px)[batch.valid]
        ratio = 1 / (1 - error / batch.pixels_per_log[batch.valid]).clamp_min(0.02)
        # One standard deviation of a Laplace distribution of scale b is sqrt(2)·b.
        inside = error.abs() < 2**0.5 * log_sigma.exp()[batch.valid]
        rows.append({"val_mae_px": float(error.abs().mean()),
                     "val_abs_log_depth": float(ratio.log().abs().mean()),
                     "val_within_1_sigma": float(inside.float().mean())})
    return {key: sum(row[key] for row in rows) / len(rows) for key in (rows[0] if rows else {})}


def _in_float32(output: DiFuseNetOutput) -> DiFuseNetOutput:
    return DiFuseNetOutput(
        output.disparity_px.float(), output.log_sigma.float(),
        [(d.float(), s.float()) for d, s in output.intermediate],
        [offset.float() for offset in output.offsets_px])
