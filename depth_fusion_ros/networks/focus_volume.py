"""Depth from a focus sweep: a differential focus volume with any number of slices, in dioptres.

A 2-D encoder sees every slice by itself; differences between neighbouring slices say where focus
is gained or lost; a decoder mixes over space and over slices at 1/16, 1/8, 1/4 and 1/2; a softmax
over the slices gives the expected inverse depth and its standard deviation. The idea is that of
DFV (Yang, Huang and Zhou, CVPR 2022), whose layers are ResNet-18 and dense 3-D convolutions,
19.5 M parameters; here a mixing step is one 1×1 convolution over a slice and its two neighbours,
and the distances to them in dioptres are inputs, so spacing may be anything.

Closed-form evidence enters with the slices, and again after the softmax: a peak between slices is
finer than any softmax over them. `focus_evidence.py` knows no lens; `defocus_evidence.py` knows how
wide it blurs. `focus_choice.py` joins all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth_fusion_ros.networks.blocks import ConvNormAct, HeadConv, InvertedResidual, enlarge
from depth_fusion_ros.networks.defocus_evidence import DefocusEvidence, defocus_evidence
from depth_fusion_ros.networks.evidence import box
from depth_fusion_ros.networks.focus_choice import FocusChoice
from depth_fusion_ros.networks.focus_evidence import FocusEvidence, focus_evidence, ring_energy

LUMINANCE = (0.299, 0.587, 0.114)
MIN_SLICES = 2
SIGMA_FLOOR_DIOPTERS = 1e-3
GUESS_SHARE = 12**-0.5
"""σ of a depth drawn from anywhere in the sweep's range, as a share of it."""


@dataclass(frozen=True)
class FocusVolumeConfig:
    """Sizes of the network.

    Attributes:
        widths: encoder channels at 1/2, 1/4, 1/8 and 1/16. decoder: channels of the volume at
            1/16, 1/8, 1/4 and 1/2.
        differential: False gives the volume no differences between slices (ablation).
        evidence: False hides the closed-form focus measure and the peaks found by it: the answer
            is the softmax over the slices.
        defocus: False hides what the lens's blur says (ablation, and weights before 0.2.0).
    """

    widths: tuple[int, int, int, int] = (12, 20, 32, 48)
    decoder: tuple[int, int, int, int] = (32, 24, 16, 8)
    differential: bool = True
    evidence: bool = True
    defocus: bool = True

    def __post_init__(self) -> None:
        if self.defocus and not self.evidence:
            raise ValueError("defocus = True with evidence = False: the last step that uses both "
                             "is then missing; set defocus = False")

    @property
    def stride(self) -> int:
        """Height and width must be multiples of it."""
        return 16


@dataclass(frozen=True)
class FocusVolumeOutput:
    """What the volume says, (B, 1, H, W) dioptres each.

    Attributes:
        diopters: inverse depth, inside the sweep's range or close to it. sigma_diopters: its
            standard deviation (> 0): wide where no slice stands out.
        intermediate: what the softmax says at 1/16, 1/8, 1/4 and 1/2, in their own resolution;
            there sigma is the deviation over the slices.
        probability: (B, N, H, W) of the slices.
        measured: what closed-form evidence alone says, NaN where it says nothing.
    """

    diopters: Tensor
    sigma_diopters: Tensor
    intermediate: list[tuple[Tensor, Tensor]]
    probability: Tensor
    measured: Tensor


def ring_difference(grey: Tensor) -> Tensor:
    """Focus measure (N, 1, H, W) ≥ 0 of square-root luminance (N, 1, H, W), 0..1.

    `focus_evidence.ring_energy` averaged over 5×5.
    """
    return box(ring_energy(grey), 5)


class SliceMix(nn.Module):
    """3×3 over space in every slice, then 1×1 over a slice and its two neighbours; residual.

    At the ends of the sweep the missing neighbour is the slice itself.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.space = ConvNormAct(channels, channels, 3, activation="prelu")
        self.slices = ConvNormAct(3 * channels, channels, 1, activation="none")

    def forward(self, x: Tensor, count: int) -> Tensor:
        """(B·N, C, H, W) with N = `count` slices in a row to the same shape."""
        y = self.space(x)
        before, after = neighbours(y, count)
        mixed: Tensor = self.slices(torch.cat([before, y, after], 1))
        return F.leaky_relu(x + mixed, 0.1)


def neighbours(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The slices before and after each of (B·N, C, H, W), themselves at the ends."""
    v = x.unflatten(0, (-1, count))
    before = torch.cat([v[:, :1], v[:, :-1]], 1)
    after = torch.cat([v[:, 1:], v[:, -1:]], 1)
    return before.flatten(0, 1), after.flatten(0, 1)


class FocusVolume(nn.Module):
    """See the module docstring."""

    def __init__(self, config: FocusVolumeConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FocusVolumeConfig()
        widths = config.widths
        self.stem = ConvNormAct(4, widths[0], 3, 2)
        self.choice = (FocusChoice(2 * config.decoder[-1], defocus=config.defocus)
                       if config.evidence else None)
        self.encoder = nn.ModuleList(
            nn.Sequential(InvertedResidual(a, b, 2, 4, fused=True),
                          InvertedResidual(b, b, 1, 3, fused=True))
            for a, b in pairwise(widths))
        self.enter = nn.ModuleList()
        self.mix = nn.ModuleList()
        self.heads = nn.ModuleList()
        above = 0
        for width, channels in zip(reversed(widths), config.decoder, strict=True):
            gathered = width * (3 if config.differential else 1) + 3 + above
            gathered += int(config.evidence) + int(config.defocus)
            self.enter.append(ConvNormAct(gathered, channels, 1, activation="prelu"))
            self.mix.append(nn.ModuleList(SliceMix(channels) for _ in range(
                1 if channels == config.decoder[-1] else 2)))
            head = HeadConv(channels, 1, 3, padding=1)
            nn.init.normal_(head.weight, std=1e-2)
            self.heads.append(head)
            above = channels

    def forward(self, stack: Tensor, focus_diopters: Tensor,
                blur_gain_px_m: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Expected inverse depth and its σ; arguments as of `forward_full`."""
        output = self.forward_full(stack, focus_diopters, blur_gain_px_m)
        return output.diopters, output.sigma_diopters

    def forward_full(self, stack: Tensor, focus_diopters: Tensor,
                     blur_gain_px_m: Tensor | None = None) -> FocusVolumeOutput:
        """Run the network.

        Args:
            stack: (B, N, 3, H, W) sRGB-encoded slices, 0..1, aligned to one another, in rising
                order of focus; H and W multiples of 16.
            focus_diopters: (B, N) their focus, rising.
            blur_gain_px_m: (B,) aperture diameter · focal length in px: how wide a dioptre out of
                focus blurs. None, ≤ 0 or NaN = the lens is not known.

        Raises:
            ValueError: fewer than two slices, or as many positions as slices are not given.
        """
        batch, count = stack.shape[:2]
        if count < MIN_SLICES or focus_diopters.shape != (batch, count):
            raise ValueError(f"stack of {count} slices with focus of shape "
                             f"{tuple(focus_diopters.shape)}: at least {MIN_SLICES} slices and "
                             "one position for each are needed")
        slices = stack.flatten(0, 1)
        weights = torch.tensor(LUMINANCE, device=stack.device, dtype=stack.dtype)
        grey = (slices * weights[:, None, None]).sum(1, keepdim=True)
        evidence, of_lens, sharpness = None, None, torch.zeros_like(grey)
        if self.choice is not None:
            with torch.no_grad(), torch.autocast(stack.device.type, enabled=False):
                evidence = focus_evidence(grey.float().unflatten(0, (batch, count)).squeeze(2),
                                          focus_diopters.float())
                if self.config.defocus:
                    of_lens = _evidence_of_lens(stack.float(), focus_diopters.float(),
                                                blur_gain_px_m)
            sharpness = torch.log10(evidence.energy + 1e-6) / 3 + 1
        x = self.stem(torch.cat([slices * 4 - 2, sharpness], 1))
        features = [x]
        for block in self.encoder:
            x = block(x)
            features.append(x)
        facts = _positions(focus_diopters)
        pairs: list[tuple[Tensor, Tensor]] = []
        cost: Tensor | None = None
        above: Tensor | None = None
        for feature, enter, mix, head in zip(reversed(features), self.enter, self.mix, self.heads,
                                             strict=True):
            gathered = [feature, facts[:, :, None, None].expand(-1, -1, *feature.shape[2:])]
            if self.config.differential:
                before, after = neighbours(feature, count)
                gathered += [feature - before, feature - after]
            if above is not None:
                gathered.append(enlarge(above))
            if evidence is not None:
                shrink = evidence.relative.shape[-1] // feature.shape[-1]
                gathered.append(F.avg_pool2d(evidence.relative, shrink) / 2 + 0.5)
            if of_lens is not None:
                unlikely = torch.log1p(-of_lens.relative) / 2
                gathered.append(F.avg_pool2d(unlikely, shrink) - 1)
            x = enter(torch.cat(gathered, 1))
            assert isinstance(mix, nn.ModuleList)
            for layer in mix:
                x = layer(x, count)
            above = x
            own = head(x).unflatten(0, (batch, count)).squeeze(2)
            cost = own if cost is None else own + enlarge(cost)
            pairs.append(_moments(torch.softmax(cost, 1), focus_diopters))
        assert cost is not None
        probability = torch.softmax(enlarge(cost), 1)
        if self.choice is None or evidence is None:
            moments = _moments(probability, focus_diopters)
            return FocusVolumeOutput(*moments, pairs, probability, moments[0].detach())
        views = x.unflatten(0, (batch, count))
        diopters, sigma = self.choice(torch.cat([views.mean(1), views.amax(1)], 1), stack,
                                      focus_diopters, evidence, of_lens, *pairs[-1])
        range_ = focus_diopters[:, -1] - focus_diopters[:, 0]
        return FocusVolumeOutput(diopters, sigma, pairs, probability,
                                 measured(evidence, of_lens, range_))


def measured(evidence: FocusEvidence, of_lens: DefocusEvidence | None, range_diopters: Tensor
             ) -> Tensor:
    """The surest peak of each pixel, (B, 1, H, W) dioptres; NaN where none stands out.

    One whose σ, with what its neighbours scatter, is `GUESS_SHARE` of the sweep's range (B,) or
    more is no measurement: noise says another depth a few pixels on.
    """
    peaks: list[FocusEvidence | DefocusEvidence] = [evidence]
    if of_lens is not None:
        peaks.append(of_lens)
    known = torch.cat([e.known for e in peaks], 1)
    sigmas = torch.cat([e.sigma_diopters for e in peaks], 1).masked_fill(~known, torch.inf)
    surest, index = sigmas.min(1, keepdim=True)
    unsure = surest >= GUESS_SHARE * range_diopters[:, None, None, None]
    found = torch.cat([e.diopters for e in peaks], 1).gather(1, index)
    return F.interpolate(found.masked_fill(unsure, torch.nan), scale_factor=2.0)


def _evidence_of_lens(stack: Tensor, focus: Tensor, blur_gain_px_m: Tensor | None
                      ) -> DefocusEvidence:
    gain = focus.new_zeros(len(focus)) if blur_gain_px_m is None else blur_gain_px_m.float()
    return defocus_evidence(linear_luminance(stack), focus, gain)


def linear_luminance(stack: Tensor) -> Tensor:
    """Light (B, N, H, W), 0..1, of sRGB-encoded slices (B, N, 3, H, W), 0..1."""
    light = torch.where(stack <= 0.04045, stack / 12.92,
                        ((stack.clamp_min(0) + 0.055) / 1.055) ** 2.4)
    weights = torch.tensor(LUMINANCE, device=stack.device)
    return (light * weights[:, None, None]).sum(2)


def _positions(focus: Tensor) -> Tensor:
    """Facts of each slice (B·N, 3): dioptres, and the distance to either neighbour (0 at ends)."""
    gap = focus[:, 1:] - focus[:, :-1]
    zero = torch.zeros_like(focus[:, :1])
    facts = torch.stack([focus / 2 - 1, torch.cat([zero, gap], 1), torch.cat([gap, zero], 1)], -1)
    return facts.flatten(0, 1)


def _moments(probability: Tensor, focus: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over slices: (B, N, h, w), (B, N) to (B, 1, h, w) each."""
    f = focus[:, :, None, None]
    mean = (probability * f).sum(1, keepdim=True)
    variance = (probability * (f - mean) ** 2).sum(1, keepdim=True)
    return mean, torch.sqrt(variance + SIGMA_FLOOR_DIOPTERS**2)
