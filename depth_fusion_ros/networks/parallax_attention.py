"""WBiPAM: window bi-directional parallax attention between the two dual-pixel views.

Feature rows are cut into strips of k tokens along the parallax axis; inside a strip every left
token attends to every right token and back. The attention's expected offset Σ_j A_ij·(j − i) is
itself a disparity in feature pixels, returned for supervision and as input to the fusion.
Source: DiFuse-Net (IROS 2025), equations 1a–2b; switches below name what the paper leaves open or
prints oddly, and its ablations.

Strips do not overlap in the paper, so a token near a strip's end cannot see its match beyond.
With `overlap` a second grid of strips, moved by k/2, covers the seams, and a token's attention is
one softmax over the keys of both of its strips: the grids share the token in proportion to
taper · Σ_j exp(score), where the taper falls linearly towards a strip's ends (the two tapers sum
to 1). Every token then reaches at least k/2 to either side; cost and memory stay linear in the
number of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth_fusion_ros.networks.blocks import ConvNormAct

OUTSIDE_SCORE = -1e4
"""Added to the scores of padding tokens: e^−1e4 is 0, and float16 still holds it."""


@dataclass(frozen=True)
class ParallaxAttentionConfig:
    """How the two views are compared: the switches of WBiPAM, its ablations and its rival.

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
        kind: "window" (WBiPAM); "line": one strip as wide as the image, a W×W map per row (the
            paper's ablation "without window"); "none": the features pass unchanged (the paper's
            ablation); "correlation": a correlation volume in its place (`correlation.py`).
        overlap: add the second grid of strips, see the module docstring ("window" only).
        radius_px: reach of "correlation" to either side, in feature pixels: 8 are 16 px of the
            image at 1/2 and 32 px at 1/4.
    """

    strip_px: int = 8
    value_view: str = "own"
    reverse_map: str = "transpose"
    scale_scores: bool = False
    center_scores: bool = False
    bidirectional: bool = True
    axis: str = "x"
    kind: str = "window"
    overlap: bool = False
    radius_px: int = 8

    def __post_init__(self) -> None:
        rules = {"value_view": ("own", "other"), "reverse_map": ("transpose", "softmax"),
                 "axis": ("x", "y"), "kind": ("window", "line", "none", "correlation")}
        for name, allowed in rules.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"parallax attention {name} = {getattr(self, name)!r}: use one of {allowed}")
        if self.strip_px < 2:
            raise ValueError(f"strip_px = {self.strip_px}: a strip needs at least 2 tokens")
        if self.radius_px < 1:
            raise ValueError(f"radius_px = {self.radius_px}: a search needs at least 1 px")
        if self.overlap and (self.kind != "window" or self.strip_px % 2):
            raise ValueError(
                f"overlap = True with kind = {self.kind!r}, strip_px = {self.strip_px}: strips "
                "overlap by half, so use kind 'window' and an even strip_px, or overlap = False")

    @property
    def reach_px(self) -> float:
        """Largest |offset| worth supervising, in feature pixels.

        Half a strip: where strips do not overlap, tokens near an end reach less on that side.
        """
        return {"window": self.strip_px / 2, "line": float("inf"), "none": 0.0,
                "correlation": float(self.radius_px)}[self.kind]


class WindowParallaxAttention(nn.Module):
    """WBiPAM on feature maps of one scale; see `ParallaxAttentionConfig`."""

    def __init__(self, channels: int, config: ParallaxAttentionConfig) -> None:
        super().__init__()
        if config.kind not in ("window", "line"):
            raise ValueError(f"parallax attention kind = {config.kind!r}: this module attends in "
                             "'window' or 'line'; build others with matchers.parallax_matcher")
        self.config = config
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.key = nn.Conv2d(channels, channels, 1, bias=False)
        self.merge_left = ConvNormAct(2 * channels, channels, 3, activation="prelu")
        self.merge_right = (
            ConvNormAct(2 * channels, channels, 3, activation="prelu")
            if config.bidirectional else None
        )

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
        value_left, value_right = (left, right) if config.value_view == "own" else (right, left)
        attended_left, attended_right, offsets = [], [], []
        for grid, forward_map, backward_map in self._maps(left, right):
            attended_left.append(grid.join(forward_map @ grid.cut(value_left)))
            if self.merge_right is not None:
                attended_right.append(grid.join(backward_map @ grid.cut(value_right)))
            index = torch.arange(grid.strip_px, dtype=left.dtype, device=left.device)
            step = index[None, :] - index[:, None]
            offsets.append(grid.join((forward_map * step).sum(-1, keepdim=True)))
        offset = _total(offsets)
        new_left = self.merge_left(torch.cat([left, _total(attended_left)], 1))
        new_right = (right if self.merge_right is None
                     else self.merge_right(torch.cat([right, _total(attended_right)], 1)))
        if config.axis == "y":
            return tuple(t.transpose(2, 3) for t in (new_left, new_right, offset))  # type: ignore
        return new_left, new_right, offset

    def _maps(self, left: Tensor, right: Tensor) -> list[tuple[_StripGrid, Tensor, Tensor]]:
        """Grids with their (P, k, k) maps, left to right and right to left.

        The maps of all grids together hold every token's weights; of each grid alone only its
        share of them.
        """
        config = self.config
        query, key = self.query(left), self.key(right)
        strip = left.shape[3] if config.kind == "line" else config.strip_px
        padding = 0 if config.kind == "line" else -left.shape[3] % strip
        shifts = (0, strip // 2) if config.overlap else (0,)
        grids = [_StripGrid(left, strip, shift, shift + padding) for shift in shifts]
        scores = [self._scores(grid, query, key) for grid in grids]
        # Padding is never a match: as key on the way to the right view, as query on the way back.
        outward = [s if g.outside is None else s + g.outside.transpose(1, 2)
                   for g, s in zip(grids, scores, strict=True)]
        forward_maps = _shared_softmax(grids, outward)
        if config.reverse_map == "transpose":
            backward_maps = [f.transpose(1, 2) if g.outside is None
                             else (f * (g.outside == 0)).transpose(1, 2)
                             for g, f in zip(grids, forward_maps, strict=True)]
        else:
            backward_maps = _shared_softmax(grids, [
                (s if g.outside is None else s + g.outside).transpose(1, 2)
                for g, s in zip(grids, scores, strict=True)])
        return list(zip(grids, forward_maps, backward_maps, strict=True))

    def _scores(self, grid: _StripGrid, query: Tensor, key: Tensor) -> Tensor:
        """Q·Kᵀ inside every strip of a grid: (P, k, k)."""
        q, k = grid.cut(query), grid.cut(key)
        if self.config.center_scores:
            # Padding is zero in q and k and stays out of the score, so it may move with the mean.
            q = q - q.sum(1, keepdim=True) / grid.tokens
            k = k - k.sum(1, keepdim=True) / grid.tokens
        scores = q @ k.transpose(1, 2)
        return scores * query.shape[1] ** -0.5 if self.config.scale_scores else scores


class _StripGrid:
    """Cuts (B, C, H, W) maps into (P, k, C) strips along x and joins strips again.

    Attributes:
        outside: (P, k, 1): 0 for tokens of the image, `OUTSIDE_SCORE` for zero padding; None
            where nothing is padded.
        tokens: number of image tokens in each strip, (P, 1, 1) or a plain number.
    """

    def __init__(self, like: Tensor, strip_px: int, before: int, after: int) -> None:
        self.strip_px, self.before, self.after = strip_px, before, after
        self.shape = like.shape
        self.outside: Tensor | None = None
        self.tokens: Tensor | float = strip_px
        if before or after:
            inside = self.cut(torch.ones_like(like[:, :1]))
            self.outside = (1 - inside) * OUTSIDE_SCORE
            self.tokens = inside.sum(1, keepdim=True)

    def cut(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (P, k, C)."""
        if self.before or self.after:
            x = F.pad(x, (self.before, self.after, 0, 0))
        return x.permute(0, 2, 3, 1).reshape(-1, self.strip_px, x.shape[1])

    def join(self, x: Tensor) -> Tensor:
        """(P, k, C) to (B, C, H, W), without the padding."""
        batch, _, height, width = self.shape
        x = x.reshape(batch, height, width + self.before + self.after, x.shape[-1])
        return x.permute(0, 3, 1, 2)[..., self.before:self.before + width]


def _total(parts: list[Tensor]) -> Tensor:
    """Sum of one or more tensors of one shape."""
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def _shared_softmax(grids: list[_StripGrid], scores: list[Tensor]) -> list[Tensor]:
    """Softmax over the last axis of (P, k, k) scores, times the grid's share of each token.

    The maps of all grids together sum to 1 for every token.
    """
    maps = [torch.softmax(score, -1) for score in scores]
    if len(grids) == 1:
        return maps
    logits = []
    for grid, score in zip(grids, scores, strict=True):
        place = torch.arange(grid.strip_px, dtype=score.dtype, device=score.device) + 0.5
        taper = torch.minimum(place, grid.strip_px - place) * (2 / grid.strip_px)
        logits.append(grid.join(
            torch.logsumexp(score, -1, keepdim=True) + torch.log(taper)[:, None]))
    shares = torch.softmax(torch.cat(logits, 1), 1).split(1, 1)
    return [m * grid.cut(share) for grid, m, share in zip(grids, maps, shares, strict=True)]
