"""The last step of the focus volume: choose between a learned softmax and closed-form peaks.

The softmax over slices knows the context but not fractions of a gap; the peaks
(`focus_evidence.py`, and through a known lens `defocus_evidence.py`) are exact where there is
texture and absent where there is none. Their evidence is also gathered along surfaces with learned
affinities (`aggregation.py`), which carries it from a surface's texture into its blank parts and
not across its border. Every pixel's answer is a mean of these candidates with learned weights that
start at the precision each claims, plus a small correction; its σ starts at their spread. From half
to full resolution every pixel is a learned convex mean of nine cells (as in RAFT, Teed and Deng,
ECCV 2020), so that edges of depth stay where the picture has them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth_fusion_ros.networks.aggregation import GROUPS, EdgeAwareAggregation
from depth_fusion_ros.networks.blocks import ConvNormAct, HeadConv, InvertedResidual, enlarge
from depth_fusion_ros.networks.defocus_evidence import WINDOWS_CELLS as DEFOCUS_WINDOWS_CELLS
from depth_fusion_ros.networks.defocus_evidence import DefocusEvidence
from depth_fusion_ros.networks.focus_evidence import WINDOWS_CELLS, FocusEvidence

CHANNELS = (24, 32, 48)
"""At 1/2, 1/4 and 1/8."""
SHARPNESS = 1.5
LEAST_SHARE = 0.01
"""Of the sweep's range: what σ of a candidate is not believed below."""
VOTE_SHARE = 0.1
"""σ of a gathered candidate at the start, as a share of the sweep's range."""
LOG_SIGMA_RANGE = (-7.0, 3.0)


class FocusChoice(nn.Module):
    """See the module docstring.

    Args:
        features: channels of the volume's features at half resolution that it is given.
        defocus: whether it is given evidence through the lens, and enlarges its answer by itself.
    """

    def __init__(self, features: int, *, defocus: bool = True) -> None:
        super().__init__()
        fine, middle, coarse = CHANNELS
        candidates = 1 + len(WINDOWS_CELLS) + defocus * len(DEFOCUS_WINDOWS_CELLS)
        self.enter = ConvNormAct(features + 3 + 2 * candidates + 1, fine, 3, activation="prelu")
        self.fine = InvertedResidual(fine, fine, 1, 2, fused=True)
        self.down = nn.Sequential(InvertedResidual(fine, middle, 2, 3, fused=True),
                                  InvertedResidual(middle, middle, 1, 3, fused=True))
        self.bottom = nn.Sequential(InvertedResidual(middle, coarse, 2, 3, fused=True),
                                    InvertedResidual(coarse, coarse, 1, 3, 5),
                                    InvertedResidual(coarse, coarse, 1, 3, 5))
        self.up_middle = ConvNormAct(coarse + middle, middle, 3, activation="prelu")
        self.up_fine = ConvNormAct(middle + fine, fine, 3, activation="prelu")
        self.gather = EdgeAwareAggregation(fine)
        self.last = ConvNormAct(fine + 2 * GROUPS, fine, 3, activation="prelu")
        self.head = HeadConv(fine, candidates + GROUPS + 2, 3, padding=1)
        nn.init.normal_(self.head.weight, std=1e-3)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)
        self.enlarge = ConvexEnlarge(fine) if defocus else None

    def forward(self, features: Tensor, stack: Tensor, focus_diopters: Tensor,
                evidence: FocusEvidence, of_lens: DefocusEvidence | None, diopters: Tensor,
                sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Choose.

        Args:
            features: (B, C, H/2, W/2). stack: (B, N, 3, H, W) slices. focus_diopters: (B, N).
            evidence, of_lens: of that stack; None = made without it.
            diopters, sigma: (B, 1, H/2, W/2) of the softmax.

        Returns:
            inverse depth and its standard deviation, (B, 1, H, W), dioptres.
        """
        low = focus_diopters[:, :1, None, None]
        whole = (focus_diopters[:, -1:, None, None] - low).clamp_min(1e-3)
        peaks: list[FocusEvidence | DefocusEvidence] = [evidence]
        if of_lens is not None:
            peaks.append(of_lens)
        found = torch.cat([diopters.float(), *(e.diopters for e in peaks)], 1)
        sigmas = torch.cat([sigma.float(), *(e.sigma_diopters for e in peaks)], 1) / whole
        place = (found - low) / whole
        x = self.enter(torch.cat([
            features, _sharp_image(stack, evidence) * 4 - 2, place * 2 - 1,
            torch.log(sigmas + LEAST_SHARE) / 2 + 1, (place[:, :1] - place[:, 2:3]) * 4], 1))
        fine = self.fine(x)
        middle = self.down(fine)
        x = self.up_middle(torch.cat([enlarge(self.bottom(middle)), middle], 1))
        x = self.up_fine(torch.cat([enlarge(x), fine], 1))
        moments = evidence.moments
        if of_lens is not None:  # both weigh by their precision; nothing where the lens is unknown
            moments = moments + of_lens.moments
        share, moment = moments.split(1, 1)
        votes, energies, _, _ = self.gather(
            x, torch.cat([share, (moment - low * share) / whole], 1), place[:, :1].detach())
        x = self.last(torch.cat([x, votes.to(x) * 2 - 1, energies.to(x)], 1))
        raw = self.head(x)
        every = torch.cat([place, votes], 1)
        claimed = torch.cat([sigmas, torch.full_like(votes, VOTE_SHARE)], 1) + LEAST_SHARE
        weight = torch.softmax(raw[:, :-2] - torch.log(claimed), 1)
        chosen = (weight * every).sum(1, keepdim=True)
        spread = (weight * (claimed**2 + (every - chosen) ** 2)).sum(1, keepdim=True)
        log_sigma = 0.5 * torch.log(spread) + raw[:, -1:] + torch.log(whole)
        chosen = low + whole * (chosen + 0.1 * raw[:, -2:-1])
        both = torch.cat([chosen, log_sigma], 1)
        both = enlarge(both) if self.enlarge is None else self.enlarge(both, x)
        return both[:, :1], torch.exp(both[:, 1:].clamp(*LOG_SIGMA_RANGE))


class ConvexEnlarge(nn.Module):
    """Twice the size, each pixel a mean of the 3×3 cells about it with learned weights.

    Starts near bilinear interpolation's shape: the own cell weighs most, then those next to it.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.predict = HeadConv(features, 4 * 9, 3, padding=1)
        nn.init.normal_(self.predict.weight, std=1e-2)
        assert self.predict.bias is not None
        weight = torch.full((4, 9), 1e-2)
        for pixel, (dy, dx) in enumerate(((-1, -1), (-1, 1), (1, -1), (1, 1))):
            for y, x, share in ((0, 0, 9), (dy, 0, 3), (0, dx, 3), (dy, dx, 1)):
                weight[pixel, 3 * (y + 1) + x + 1] = share / 16
        self.predict.bias.data[:] = torch.log(weight).flatten()

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """(B, C, h, w) values by (B, features, h, w) to (B, C, 2h, 2w)."""
        batch, channels, height, width = x.shape
        weight = torch.softmax(
            self.predict(features).float().view(batch, 1, 4, 9, height, width), 3)
        cells = F.unfold(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3)
        cells = cells.view(batch, channels, 1, 9, height, width)
        return F.pixel_shuffle((weight * cells).sum(3).flatten(1, 2), 2)


def _sharp_image(stack: Tensor, evidence: FocusEvidence) -> Tensor:
    """The slices at half resolution, (B, 3, H/2, W/2), each pixel mostly from its sharpest."""
    batch, count = stack.shape[:2]
    weight = torch.softmax(2 * SHARPNESS * evidence.relative.unflatten(0, (batch, count)), 1)
    small = F.avg_pool2d(stack.flatten(0, 1), 2).unflatten(0, (batch, count))
    image: Tensor = (weight * small).sum(1)
    return image
