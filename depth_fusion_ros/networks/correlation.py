"""Correlation volume along the parallax axis: the stereo baseline's matcher.

Takes the place of WBiPAM at each of the two scales, with the same projections, the same merging
convolutions and thus nearly the same size: features of one view are compared with those of the
other at every displacement within ±radius, ⟨q(x), k(x + δ)⟩ / √C, and the 2·radius + 1 values
join the features. Unlike attention it carries no features across, and unlike strips it has no
seams. Source: the one-dimensional correlation of RAFT-Stereo (Lipson et al., 3DV 2021), of which
DiFuse-Net's "stereo baseline" keeps the volume; without its recurrent refinement.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth_fusion_ros.networks.blocks import ConvNormAct
from depth_fusion_ros.networks.parallax_attention import OUTSIDE_SCORE, ParallaxAttentionConfig


def correlation_volume(left: Tensor, right: Tensor, radius_px: int) -> Tensor:
    """⟨left(x), right(x + δ)⟩ / √C for δ = −radius … +radius along the last axis.

    Args:
        left, right: (B, C, H, W) features.
        radius_px: largest displacement, feature pixels.

    Returns:
        (B, 2·radius + 1, H, W); 0 where x + δ lies outside the image.
    """
    width = left.shape[3]
    padded = F.pad(right, (radius_px, radius_px, 0, 0))
    volume = [(left * padded[..., start:start + width]).sum(1, keepdim=True)
              for start in range(2 * radius_px + 1)]
    scale: float = left.shape[1] ** -0.5
    return torch.cat(volume, 1) * scale


class CorrelationMatcher(nn.Module):
    """Correlation volumes of both views, each merged into its features.

    Takes `radius_px`, `bidirectional` and `axis` from the configuration.
    """

    def __init__(self, channels: int, config: ParallaxAttentionConfig) -> None:
        super().__init__()
        self.config = config
        candidates = 2 * config.radius_px + 1
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.key = nn.Conv2d(channels, channels, 1, bias=False)
        self.merge_left = ConvNormAct(channels + candidates, channels, 3, activation="prelu")
        self.merge_right = (
            ConvNormAct(channels + candidates, channels, 3, activation="prelu")
            if config.bidirectional else None
        )

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compare the views; arguments and results as of `WindowParallaxAttention.forward`.

        The offset is the mean displacement under a softmax of the left view's volume, over the
        candidates inside the image.
        """
        if self.config.axis == "y":
            left, right = left.transpose(2, 3), right.transpose(2, 3)
        radius = self.config.radius_px
        query, key = self.query(left), self.key(right)
        volume = correlation_volume(query, key, radius)
        new_left = self.merge_left(torch.cat([left, volume], 1))
        new_right = right
        if self.merge_right is not None:
            back = correlation_volume(key, query, radius)
            new_right = self.merge_right(torch.cat([right, back], 1))
        row = torch.ones_like(left[:1, :1, :1])
        outside = (correlation_volume(row, row, radius) == 0) * OUTSIDE_SCORE
        step = torch.arange(-radius, radius + 1, dtype=left.dtype, device=left.device)
        share = torch.softmax(volume + outside, 1)
        offset = (share * step[None, :, None, None]).sum(1, keepdim=True)
        if self.config.axis == "y":
            return tuple(t.transpose(2, 3) for t in (new_left, new_right, offset))  # type: ignore
        return new_left, new_right, offset
