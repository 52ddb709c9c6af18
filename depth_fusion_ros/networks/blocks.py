"""Convolutional building blocks shared by the networks."""

from __future__ import annotations

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


class InvertedResidual(nn.Module):
    """Expand 1×1, depthwise k×k, project 1×1; residual where the shape allows.

    Source: Sandler et al., CVPR 2018; without squeeze-and-excitation and with ReLU6 as in
    EfficientNet-Lite.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, expansion: int = 6,
                 kernel: int = 3) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(ConvNormAct(inputs, hidden, 1))
        layers += [
            ConvNormAct(hidden, hidden, kernel, stride, groups=hidden),
            ConvNormAct(hidden, outputs, 1, activation="none"),
        ]
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        y: Tensor = self.body(x)
        return x + y if self.residual else y


def stage(inputs: int, outputs: int, repeats: int, stride: int, expansion: int,
          kernel: int) -> nn.Sequential:
    """`repeats` inverted residuals, the first one with `stride`."""
    blocks = [InvertedResidual(inputs, outputs, stride, expansion, kernel)]
    blocks += [InvertedResidual(outputs, outputs, 1, expansion, kernel)
               for _ in range(repeats - 1)]
    return nn.Sequential(*blocks)


def parameter_count(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
