"""Convolutional building blocks shared by the networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm, activation ("relu6", "prelu" or "none")."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1,
                 groups: int = 1, activation: str = "relu6") -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        if activation == "relu6":
            layers.append(nn.ReLU6(inplace=True))
        elif activation == "prelu":
            layers.append(nn.PReLU(outputs, init=0.1))
        elif activation != "none":
            raise ValueError(f"activation = {activation!r}: use 'relu6', 'prelu' or 'none'")
        super().__init__(*layers)


class HeadConv(nn.Conv2d):
    """Convolution that stays in single precision under autocast: a head's numbers are dioptres,
    of which bfloat16 would keep two to three digits."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) of any precision to float32 (B, outputs, H, W)."""
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return super().forward(x.float())
        return super().forward(x)


class InvertedResidual(nn.Module):
    """Expand 1×1, depthwise k×k, project 1×1; residual where the shape allows.

    `fused` expands with one dense k×k convolution instead of 1×1 and depthwise (Tan and Le,
    EfficientNetV2, 2021): more arithmetic but fewer passes over memory, which on the fine scales
    is faster, above all backwards.
    Source: Sandler et al., CVPR 2018; without squeeze-and-excitation and with ReLU6 as in
    EfficientNet-Lite.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, expansion: int = 6,
                 kernel: int = 3, fused: bool = False) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if fused:
            layers.append(ConvNormAct(inputs, hidden, kernel, stride))
        else:
            if expansion != 1:
                layers.append(ConvNormAct(inputs, hidden, 1))
            layers.append(ConvNormAct(hidden, hidden, kernel, stride, groups=hidden))
        layers.append(ConvNormAct(hidden, outputs, 1, activation="none"))
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        y: Tensor = self.body(x)
        return x + y if self.residual else y


def stage(inputs: int, outputs: int, repeats: int, stride: int, expansion: int,
          kernel: int, fused: bool = False) -> nn.Sequential:
    """`repeats` inverted residuals, the first one with `stride`."""
    blocks = [InvertedResidual(inputs, outputs, stride, expansion, kernel, fused)]
    blocks += [InvertedResidual(outputs, outputs, 1, expansion, kernel, fused)
               for _ in range(repeats - 1)]
    return nn.Sequential(*blocks)


def replace_prelu(module: nn.Module, slope: float = 0.1) -> None:
    """Give every PReLU below `module` a fixed slope instead of a learned one, in place.

    The learned slope's gradient is a reduction over the whole map, the slowest single operation
    of a training step on a CPU (20 times a leaky ReLU's).
    """
    for name, child in module.named_children():
        if isinstance(child, nn.PReLU):
            setattr(module, name, nn.LeakyReLU(slope, inplace=True))
        else:
            replace_prelu(child, slope)


def enlarge(x: Tensor, factor: int = 2) -> Tensor:
    """Bilinear (B, C, H, W) to (B, C, factor·H, factor·W); pixels' centres keep their places."""
    if factor == 1:
        return x
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


def parameter_count(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
