"""Matchers between the views and the fusion: WBiPAM and its switches, correlation, three maps."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from depth_fusion_ros.networks.blocks import parameter_count
from depth_fusion_ros.networks.correlation import CorrelationMatcher, correlation_volume
from depth_fusion_ros.networks.fusion import MODES, ThreeMapFusion
from depth_fusion_ros.networks.matchers import parallax_matcher
from depth_fusion_ros.networks.parallax_attention import (
    ParallaxAttentionConfig,
    WindowParallaxAttention,
)


def positions(width: int) -> torch.Tensor:
    """Features that name their column: (1, width, 1, width) one-hot."""
    return torch.eye(width)[None, :, None, :]


def transparent(attention: WindowParallaxAttention) -> WindowParallaxAttention:
    """Its results become [own features, attended features] as they enter the merge."""
    attention.merge_left, attention.merge_right = nn.Identity(), nn.Identity()
    return attention.eval()


# WBiPAM and its switches


@pytest.mark.parametrize("center", [False, True])
def test_whole_line_equals_windows_as_wide_as_the_row(center: bool) -> None:
    torch.manual_seed(0)
    line = WindowParallaxAttention(
        5, ParallaxAttentionConfig(kind="line", center_scores=center)).eval()
    window = WindowParallaxAttention(
        5, ParallaxAttentionConfig(strip_px=24, center_scores=center)).eval()
    window.load_state_dict(line.state_dict())
    left, right = torch.randn(2, 5, 4, 24), torch.randn(2, 5, 4, 24)
    for a, b in zip(line(left, right), window(left, right), strict=True):
        assert torch.equal(a, b)


def test_whole_line_sees_the_far_end_of_the_row_and_windows_do_not() -> None:
    left, right = torch.rand(1, 4, 2, 32), torch.rand(1, 4, 2, 32)
    changed = right.clone()
    changed[..., 31] += 3
    for kind, sees in (("line", True), ("window", False)):
        attention = WindowParallaxAttention(4, ParallaxAttentionConfig(kind=kind)).eval()
        before, after = attention(left, right)[2], attention(left, changed)[2]
        assert (not torch.equal(before[..., 0], after[..., 0])) == sees


@pytest.mark.parametrize("shift", [-3, 2, 4])
def test_overlapping_strips_find_every_match_within_half_a_strip(shift: int) -> None:
    """Column x of the left view matches x + shift: 7 → 9 crosses the seam at 8 of plain strips."""
    left, right = positions(32), positions(32).roll(-shift, 1)
    found = {}
    for overlap in (False, True):
        attention = WindowParallaxAttention(32, ParallaxAttentionConfig(overlap=overlap)).eval()
        attention.query.weight.data = 40 * torch.eye(32)[:, :, None, None]
        attention.key.weight.data = torch.eye(32)[:, :, None, None]
        found[overlap] = attention(left, right)[2][0, 0, 0]
    has_match = slice(max(0, -shift), 32 - max(0, shift))
    assert found[True][has_match].tolist() == pytest.approx([shift] * (32 - abs(shift)), abs=0.01)
    lost = (found[False][has_match] - shift).abs() > 0.5
    assert int(lost.sum()) >= 3 * abs(shift), "plain strips must lose the matches at their seams"


@pytest.mark.parametrize("width", [20, 24])
@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("reverse_map", ["transpose", "softmax"])
def test_maps_are_distributions_over_the_image_and_reverse_as_switched(
    width: int, overlap: bool, reverse_map: str
) -> None:
    """One-hot values turn the attended features into the map itself, borders and padding seen."""
    torch.manual_seed(0)
    attention = transparent(WindowParallaxAttention(width, ParallaxAttentionConfig(
        overlap=overlap, reverse_map=reverse_map)))
    new_left, new_right, offset = attention(positions(width), positions(width))
    forward_map = new_left[0, width:, 0].T  # [i, j]: weight of column j for column i
    backward_map = new_right[0, width:, 0].T
    assert torch.allclose(forward_map.sum(1), torch.ones(width), atol=1e-5)
    is_transpose = torch.allclose(backward_map, forward_map.T, atol=1e-6)
    assert is_transpose == (reverse_map == "transpose")
    if reverse_map == "softmax":
        assert torch.allclose(backward_map.sum(1), torch.ones(width), atol=1e-5)
    columns = torch.arange(width, dtype=torch.float32)
    assert torch.allclose(offset[0, 0, 0], forward_map @ columns - columns, atol=1e-4)


@pytest.mark.parametrize("overlap", [False, True])
def test_centered_scores_do_not_see_a_constant_added_to_all_features(overlap: bool) -> None:
    torch.manual_seed(0)
    left, right = torch.randn(1, 6, 2, 20), torch.randn(1, 6, 2, 20)
    for center in (False, True):
        attention = WindowParallaxAttention(6, ParallaxAttentionConfig(
            center_scores=center, overlap=overlap)).eval()
        moved = attention(left + 2, right + 2)[2] - attention(left, right)[2]
        assert (float(moved.detach().abs().max()) < 1e-4) == center


def test_cost_grows_linearly_with_width_for_strips_and_quadratically_for_the_line() -> None:
    def matching_flops(width: int, config: ParallaxAttentionConfig) -> int:
        views = torch.rand(2, 1, 4, 8, width).unbind()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            WindowParallaxAttention(4, config).eval()(*views)
        return int(counter.get_flop_counts()["Global"][torch.ops.aten.bmm])

    for config, factor in ((ParallaxAttentionConfig(), 2), (ParallaxAttentionConfig(
            kind="line"), 4)):
        assert matching_flops(64, config) == factor * matching_flops(32, config)
    overlap = ParallaxAttentionConfig(overlap=True)
    # The shifted grid has one strip more than the plain one: 8 + 9 strips against 4 + 5.
    assert matching_flops(64, overlap) * 9 == matching_flops(32, overlap) * 17


@pytest.mark.parametrize("kind", ["window", "line", "correlation"])
def test_one_direction_leaves_the_right_features_alone(kind: str) -> None:
    left, right = torch.rand(1, 3, 4, 16), torch.rand(1, 3, 4, 16)
    for bidirectional in (False, True):
        config = ParallaxAttentionConfig(kind=kind, bidirectional=bidirectional)
        new_left, new_right, _ = parallax_matcher(3, config).eval()(left, right)
        assert torch.equal(new_right, right) != bidirectional
        assert not torch.equal(new_left, left)


def test_without_a_matcher_both_views_pass_unchanged() -> None:
    left, right = torch.rand(1, 3, 4, 16), torch.rand(1, 3, 4, 16)
    matcher = parallax_matcher(3, ParallaxAttentionConfig(kind="none"))
    new_left, new_right, offset = matcher(left, right)
    assert torch.equal(new_left, left) and torch.equal(new_right, right)
    assert offset.shape == (1, 1, 4, 16) and not offset.any()
    assert parameter_count(matcher) == 0


@pytest.mark.parametrize(("values", "named"), [
    ({"kind": "global"}, "kind = 'global'"),
    ({"overlap": True, "kind": "line"}, "overlap = True with kind = 'line'"),
    ({"overlap": True, "strip_px": 7}, "strip_px = 7"),
    ({"radius_px": 0}, "radius_px = 0"),
])
def test_contradictory_attention_is_refused_by_name_and_value(
    values: dict[str, object], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        ParallaxAttentionConfig(**values)  # type: ignore[arg-type]


def test_attention_module_refuses_a_kind_that_it_is_not() -> None:
    with pytest.raises(ValueError, match="parallax_matcher"):
        WindowParallaxAttention(3, ParallaxAttentionConfig(kind="correlation"))


def test_reach_is_what_each_kind_can_match() -> None:
    reach = {kind: ParallaxAttentionConfig(kind=kind, strip_px=6, radius_px=9).reach_px
             for kind in ("window", "line", "none", "correlation")}
    assert reach == {"window": 3, "line": float("inf"), "none": 0, "correlation": 9}


# Correlation volume


def test_correlation_volume_of_a_row_worked_by_hand() -> None:
    left, right = torch.tensor([[[[1.0, 2, 3]]]]), torch.tensor([[[[4.0, 5, 6]]]])
    expected = [[0, 8, 15], [4, 10, 18], [5, 12, 0]]
    assert correlation_volume(left, right, 1)[0, :, 0].tolist() == expected


def test_correlation_volume_is_scaled_by_the_root_of_the_channels() -> None:
    ones = torch.ones(1, 16, 1, 3)
    assert correlation_volume(ones, ones, 1)[0, :, 0, 1].tolist() == [4, 4, 4]


@pytest.mark.parametrize("shift", [-5, 0, 3])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_correlation_finds_a_known_shift(shift: int, axis: str) -> None:
    """right(x + shift) = left(x), so x_right − x_left = shift."""
    torch.manual_seed(0)
    left = torch.randn(1, 64, 8, 40)
    right = left.roll(shift, 3)
    best = correlation_volume(left, right, 6)[..., 6:-6].argmax(1) - 6
    assert (best == shift).all()
    matcher = CorrelationMatcher(64, ParallaxAttentionConfig(
        kind="correlation", radius_px=6, axis=axis)).eval()
    for projection in (matcher.query, matcher.key):
        projection.weight.data = 2 * torch.eye(64)[:, :, None, None]
    if axis == "y":
        offset = matcher(left.transpose(2, 3), right.transpose(2, 3))[2].transpose(2, 3)
    else:
        offset = matcher(left, right)[2]
    assert float((offset[..., 6:-6] - shift).detach().abs().max()) < 0.05


def test_correlation_offset_does_not_average_over_candidates_outside_the_image() -> None:
    """Blank features: the mean of the displacements that stay inside, radius 2, 5 columns."""
    matcher = CorrelationMatcher(3, ParallaxAttentionConfig(
        kind="correlation", radius_px=2)).eval()
    offset = matcher(torch.zeros(1, 3, 1, 5), torch.zeros(1, 3, 1, 5))[2]
    assert offset.flatten().tolist() == pytest.approx([1, 0.5, 0, -0.5, -1], abs=1e-6)


# Fusion


def fusion_alone(mode: str, weights: str = "softmax") -> ThreeMapFusion:
    """A fusion whose result is the weighed sum itself."""
    torch.manual_seed(0)
    fusion = ThreeMapFusion(4, 0, weights, mode).eval()
    fusion.mix = nn.Identity()  # type: ignore[assignment]
    return fusion


@pytest.mark.parametrize("mode", MODES)
def test_silent_fusion_weights_are_one_in_every_mode(mode: str) -> None:
    fusion = fusion_alone(mode)
    for parameter in fusion.attend[1].parameters():
        nn.init.zeros_(parameter)
    views = list(torch.rand(3, 2, 4, 6, 5))
    assert torch.allclose(fusion(*views, []), sum(views), atol=1e-6)


@pytest.mark.parametrize("weights", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize(("mode", "by_pixel", "by_channel"), [
    ("feature", True, False), ("pixel", True, False), ("channel", False, True)])
def test_fusion_weights_vary_only_with_what_the_mode_names(
    weights: str, mode: str, by_pixel: bool, by_channel: bool
) -> None:
    left = torch.rand(1, 4, 6, 5) + 0.5
    nothing = torch.zeros_like(left)
    weight = fusion_alone(mode, weights)(left, nothing, nothing, []) / left
    assert (float(weight.std((2, 3)).detach().max()) > 1e-4) == by_pixel
    assert (float(weight.std(1).detach().max()) > 1e-4) == by_channel


@pytest.mark.parametrize(("mode", "chooses"), [
    ("feature", True), ("pixel", False), ("channel", True)])
def test_only_pixel_wise_fusion_cannot_choose_a_modality(mode: str, chooses: bool) -> None:
    fusion = fusion_alone(mode)
    nn.init.zeros_(fusion.attend[1].weight)
    bias = fusion.attend[1].bias
    bias.data = torch.where(torch.arange(len(bias)) < len(bias) / 3, 20.0, 0.0)
    views = list(torch.rand(3, 1, 4, 6, 5))
    assert torch.allclose(fusion(*views, []), 3 * views[0], atol=1e-3) == chooses


def test_unknown_fusion_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="'concat'"):
        ThreeMapFusion(4, 0, "softmax", "concat")
