"""Carry matching evidence along surfaces and stop it at their edges, with learned affinities.

Disparity over a region is a ratio of sums: Σ c·(g²d) / Σ c·g² over its pixels (weighted least
squares, `evidence.py`). A box window sums across depth edges and ends before the middle of a blank
wall. Here the sums run along rows and then along columns as recursive filters,
F_i = x_i + a_i·F_{i−1}, whose affinities a in 0..1 the network predicts: near 1 inside a surface,
near 0 at its border; c is its trust in each pixel's own match. What is learned is where surfaces
end; the disparity itself stays measured. Both directions of a sweep are summed (`sweep.py`).
Related: domain transform (Gastal and Oliveira 2011), spatial propagation (Liu et al. 2017); written
from the recursion above.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from depth_fusion_ros.networks.blocks import HeadConv
from depth_fusion_ros.networks.sweep import sweep

GROUPS = 3
START_LENGTHS = (3.0, 10.0, 30.0)
"""Cells after which an untrained group's weight has fallen to 1/e."""
FLOOR = 1e-6
LIMIT_PX = 16.0


class EdgeAwareAggregation(nn.Module):
    """Predict affinities from features and gather matching moments with them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.predict = HeadConv(channels, 4 * GROUPS + 1, 3, padding=1)
        nn.init.normal_(self.predict.weight, std=1e-2)
        assert self.predict.bias is not None
        nn.init.zeros_(self.predict.bias)
        for group, length in enumerate(START_LENGTHS):
            start = math.exp(-1 / length)
            self.predict.bias.data[2 * group:2 * group + 2] = math.log(start / (1 - start))

    def forward(self, features: Tensor, moments: Tensor, prior_px: Tensor
                ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gather.

        Args:
            features: (B, channels, H, W).
            moments: (B, 2, H, W) mean g² and g²·d of each cell (`Evidence.moments`).
            prior_px: (B, 1, H, W) disparity where nothing at all was matched.

        Returns:
            votes (B, GROUPS, H, W) px; log10 energies, same shape, about −1..1; their weighted
            mean (B, 1, H, W) px; its raw log scale (B, 1, H, W).
        """
        raw = self.predict(features)
        batch, _, height, width = raw.shape
        gates = torch.sigmoid(raw[:, :3 * GROUPS])
        along_x, along_y = (
            gates[:, i:2 * GROUPS:2].reshape(batch * GROUPS, 1, height, width) for i in (0, 1))
        trust = gates[:, 2 * GROUPS:].unsqueeze(2)
        weighted = torch.cat([moments, torch.ones_like(prior_px)], 1).float()
        gathered = (trust * weighted.unsqueeze(1)).reshape(batch * GROUPS, 3, height, width)
        gathered = sweep(gathered, along_x)
        gathered = sweep(gathered.transpose(2, 3), along_y.transpose(2, 3)).transpose(2, 3)
        energy, mixed, weight = gathered.reshape(batch, GROUPS, 3, height, width).unbind(2)
        votes = ((mixed + FLOOR * prior_px) / (energy + FLOOR)).clamp(-LIMIT_PX, LIMIT_PX)
        mean_energy = torch.log10(energy / (weight + 1e-3) + 1e-6) / 3 + 1
        share = torch.softmax(raw[:, 3 * GROUPS:4 * GROUPS], 1)
        return votes, mean_energy, (share * votes).sum(1, keepdim=True), raw[:, 4 * GROUPS:]
