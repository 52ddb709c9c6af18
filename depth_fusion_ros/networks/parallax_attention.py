"""WBiPAM: window bi-directional parallax attention between the two dual-pixel views.

Feature rows are cut into non-overlapping strips of k tokens along the parallax axis; inside a
strip every left token attends to every right token and back. The attention's expected offset
Σ_j A_ij·(j − i) is itself a disparity in feature pixels, returned for supervision and as input
to the fusion. Source: DiFuse-Net (IROS 2025), equations 1a–2b; switches below name what the
paper leaves open or prints oddly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth_fusion_ros.networks.blocks import ConvNormAct


@dataclass(frozen=True)
class ParallaxAttentionConfig:
    """Switches of WBiPAM.

    Attributes:
        strip_px: tokens per strip, k (unknown in the paper; its disparities need k ≥ 8 at 1/2).
        value_view: "own" re-weights a view's own features as printed in (1d); "other" takes the
            features of the other view, as the parallax-attention family does.
        reverse_map: "transpose" of the forward map as in (2a), whose rows do not sum to 1; or
            "softmax": a second softmax of the transposed scores (iPASSR).
        scale_scores: divide scores by √C (not shown in the paper).
        center_scores: subtract the strip mean from queries and keys (iPASSR).
        bidirectional: False keeps the right features as they are (the paper's ablation).
        axis: parallax axis, "x" (cameras, simulation) or "y" (most phones).
    """

    strip_px: int = 8
    value_view: str = "own"
    reverse_map: str = "transpose"
    scale_scores: bool = False
    center_scores: bool = False
    bidirectional: bool = True
    axis: str = "x"

    def __post_init__(self) -> None:
        rules = {"value_view": ("own", "other"), "reverse_map": ("transpose", "softmax"),
                 "axis": ("x", "y")}
        for name, allowed in rules.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"parallax attention {name} = {getattr(self, name)!r}: use one of {allowed}")
        if self.strip_px < 2:
            raise ValueError(f"strip_px = {self.strip_px}: a strip needs at least 2 tokens")


class WindowParallaxAttention(nn.Module):
    """WBiPAM on feature maps of one scale; see `ParallaxAttentionConfig`."""

    def __init__(self, channels: int, config: ParallaxAttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.key = nn.Conv2d(channels, channels, 1, bias=False)
        self.merge_left = ConvNormAct(2 * channels, channels, 3, activation="prelu")
        self.merge_right = (
            ConvNormAct(2 * channels, channels, 3, activation="prelu")
            if config.bidirectional else None
        )
        index = torch.arange(config.strip_px, dtype=torch.float32)
        self.register_buffer("offsets", index[None, :] - index[:, None], persistent=False)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attend within strips.

        Args:
            left, right: (B, C, H, W) features of the two views.

        Returns:
            left', right' (B, C, H, W) and offset (B, 1, H, W): the expected disparity
            x_right − x_left of each left token, in feature pixels.
        """
        config = self.config
        if config.axis == "y":
            left, right = left.transpose(2, 3), right.transpose(2, 3)
        height, width = left.shape[2:]
        padding = -width % config.strip_px
        padded_left = F.pad(left, (0, padding, 0, 0), mode="replicate") if padding else left
        padded_right = F.pad(right, (0, padding, 0, 0), mode="replicate") if padding else right
        shape = padded_left.shape
        query = self._strips(self.query(padded_left))
        key = self._strips(self.key(padded_right))
        if config.center_scores:
            query = query - query.mean(1, keepdim=True)
            key = key - key.mean(1, keepdim=True)
        scores = query @ key.transpose(1, 2)
        if config.scale_scores:
            scores = scores * shape[1] ** -0.5
        forward_map = torch.softmax(scores, -1)
        backward_map = (forward_map if config.reverse_map == "transpose"
                        else torch.softmax(scores, 1)).transpose(1, 2)
        own_left, own_right = self._strips(padded_left), self._strips(padded_right)
        value_left, value_right = ((own_left, own_right) if config.value_view == "own"
                                   else (own_right, own_left))
        offsets: Tensor = self.offsets  # type: ignore[assignment]
        offset = self._unstrip((forward_map * offsets).sum(-1, keepdim=True), shape, width)
        attended = self._unstrip(forward_map @ value_left, shape, width)
        new_left = self.merge_left(torch.cat([left, attended], 1))
        new_right = right
        if self.merge_right is not None:
            attended = self._unstrip(backward_map @ value_right, shape, width)
            new_right = self.merge_right(torch.cat([right, attended], 1))
        if config.axis == "y":
            return tuple(t.transpose(2, 3) for t in (new_left, new_right, offset))  # type: ignore
        return new_left, new_right, offset

    def _strips(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B·H·W/k, k, C)."""
        return x.permute(0, 2, 3, 1).reshape(-1, self.config.strip_px, x.shape[1])

    @staticmethod
    def _unstrip(x: Tensor, shape: torch.Size, width: int) -> Tensor:
        """Inverse of `_strips`, cropped to the unpadded width."""
        x = x.reshape(shape[0], shape[2], shape[3], x.shape[-1]).permute(0, 3, 1, 2)
        return x[..., :width]
