"""What compares the two dual-pixel views at one scale, chosen by `ParallaxAttentionConfig.kind`.

Every matcher maps (left, right) features (B, C, H, W) to (left', right', offset): features of the
same shape and the expected disparity x_right − x_left of each left token (B, 1, H, W) in feature
pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from depth_fusion_ros.networks.correlation import CorrelationMatcher
from depth_fusion_ros.networks.parallax_attention import (
    ParallaxAttentionConfig,
    WindowParallaxAttention,
)


class NoMatcher(nn.Module):
    """The ablation without WBiPAM: features pass unchanged, the offset is 0 and means nothing."""

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return left, right and zeros (B, 1, H, W)."""
        return left, right, torch.zeros_like(left[:, :1])


def parallax_matcher(channels: int, config: ParallaxAttentionConfig) -> nn.Module:
    """Build the matcher that `config.kind` names, for features of `channels` channels."""
    if config.kind == "none":
        return NoMatcher()
    if config.kind == "correlation":
        return CorrelationMatcher(channels, config)
    return WindowParallaxAttention(channels, config)
