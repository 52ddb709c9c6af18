"""Output heads of the baselines: the numbers mean what DiFuse-Net's mean, so losses are shared.

Every head gives h and log σ. With output "disparity" the disparity is origin − scale·h in the
frame of the lens (`difuse_net.regression_frame`; without a condition origin 0 and scale 1 px),
with "inverse_depth" it is sigmoid(h), an affine inverse depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth_fusion_ros.networks.blocks import ConvNormAct
from depth_fusion_ros.networks.convention import (
    CONDITION_CHANNELS,
    LOG_SIGMA_RANGE,
    DiFuseNetOutput,
    regression_frame,
)

OUTPUTS = ("disparity", "inverse_depth")


@dataclass(frozen=True)
class OutputFrame:
    """Turns a head's numbers into the network's output.

    Attributes:
        origin_px, scale_px: (B, 1, 1, 1) of d = origin − scale·h; None for "inverse_depth".
    """

    origin_px: Tensor | None
    scale_px: Tensor | None

    @staticmethod
    def of(condition: Tensor, *, output: str, condition_used: bool) -> OutputFrame:
        """Frame of a batch with `condition` (B, 4)."""
        if output == "inverse_depth":
            return OutputFrame(None, None)
        origin, scale = regression_frame(condition if condition_used
                                         else torch.zeros_like(condition))
        return OutputFrame(origin, scale)

    def finish(self, h: Tensor, log_sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, H, W) each to the output and the logarithm of its Laplace scale."""
        if self.origin_px is None or self.scale_px is None:
            return torch.sigmoid(h), log_sigma.clamp(*LOG_SIGMA_RANGE)
        log_sigma = (log_sigma + torch.log(self.scale_px)).clamp(*LOG_SIGMA_RANGE)
        return self.origin_px - self.scale_px * h, log_sigma


def output_head(inputs: int, outputs: int, kernel: int, first: float = 0.0) -> nn.Conv2d:
    """Convolution that starts near 0, with `first` as bias of its first channel (h)."""
    head = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.normal_(head.weight, std=1e-3)
    assert head.bias is not None
    nn.init.zeros_(head.bias)
    head.bias.data[0] = first
    return head


def starting_value(output: str, condition_used: bool) -> float:
    """First h of a fresh network: 1 dioptre where h is in dioptres, else 0."""
    return 1.0 if output == "disparity" and condition_used else 0.0


class PyramidHeads(nn.Module):
    """DiFuse-Net's heads without its vote: one per decoder scale, refined at 1/2 and at 1/1.

    Args:
        widths: channels of the decoder's features from coarse to fine, the last at 1/2.
        output: one of `OUTPUTS`.
        condition: whether the lens condition is used, as frame and as input of the refinement.
    """

    def __init__(self, widths: Sequence[int], *, output: str, condition: bool) -> None:
        super().__init__()
        self.output, self.condition = output, condition
        start = starting_value(output, condition)
        finest = widths[-1]
        self.coarse = nn.ModuleList(output_head(w, 2, 1, start) for w in widths[:-1])
        self.refine = ConvNormAct(finest + (CONDITION_CHANNELS if condition else 0), finest, 3,
                                  activation="prelu")
        self.head_half = output_head(finest, 2, 3, start)
        self.head_full = output_head(finest, 8, 3)

    def forward(self, features: list[Tensor], condition: Tensor) -> DiFuseNetOutput:
        """Decoder features (B, widths[i], ·, ·), coarse first, and the condition (B, 4)."""
        frame = OutputFrame.of(condition, output=self.output, condition_used=self.condition)
        intermediate = [frame.finish(*head(x).split(1, 1))
                        for head, x in zip(self.coarse, features[:-1], strict=True)]
        x = features[-1]
        if self.condition:
            x = torch.cat([x, condition_planes(condition, x)], 1)
        x = self.refine(x)
        h, log_sigma = self.head_half(x).split(1, 1)
        intermediate.append(frame.finish(h, log_sigma))
        coarse = F.interpolate(torch.cat([h, log_sigma], 1), scale_factor=2.0, mode="bilinear",
                               align_corners=False)
        h, log_sigma = (coarse + F.pixel_shuffle(self.head_full(x), 2)).split(1, 1)
        return DiFuseNetOutput(*frame.finish(h, log_sigma), intermediate, [])


def condition_planes(condition: Tensor, like: Tensor) -> Tensor:
    """(B, 4) as constant maps of the size of `like`: (B, 4, H, W)."""
    return condition[:, :, None, None].expand(-1, -1, like.shape[2], like.shape[3])
