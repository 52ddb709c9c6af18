"""Learned baselines, ablation switches of DiFuse-Net and the registry that names them."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from depth_fusion_ros.networks.baselines import DPNetConfig
from depth_fusion_ros.networks.blocks import parameter_count
from depth_fusion_ros.networks.correlation import CorrelationMatcher, correlation_volume
from depth_fusion_ros.networks.difuse_net import DiFuseNet, difuse_net_config, lens_condition
from depth_fusion_ros.networks.fusion import MODES, ThreeMapFusion
from depth_fusion_ros.networks.matchers import parallax_matcher
from depth_fusion_ros.networks.parallax_attention import (
    ParallaxAttentionConfig,
    WindowParallaxAttention,
)
from depth_fusion_ros.networks.registry import (
    BASES,
    SWITCHES,
    Network,
    architecture,
    build,
    build_from_dict,
    configuration,
)

SMALL = ("dpnet", "deeper_s", "stereo_correlation_s", "monocular_s")
SAME_WEIGHTS = ("line", "strip_4", "strip_16", "own_view", "transpose", "overlap", "centered")


def inputs(height: int = 64, width: int = 64, batch: int = 1) -> list[torch.Tensor]:
    """Left, right, RGB and the condition of a lens with k = 10 px·m focused at 0.5 m."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(batch, c, height, width, generator=generator) for c in (1, 1, 3)]
    ones = torch.ones(batch)
    return [*images, lens_condition(0.4 * ones, 10 * ones, 2 * ones)]


def skeleton(name: str) -> Network:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return build(name)


def loud(network: Network) -> Network:
    """Fresh heads are nearly silent; make what they see audible."""
    torch.manual_seed(1)
    for name, parameter in network.named_parameters():
        if "head" in name and parameter.ndim == 4:
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


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


# Networks


def test_dpnet_is_small_and_the_deeper_baseline_has_the_published_size() -> None:
    assert parameter_count(skeleton("dpnet")) == pytest.approx(1.8e6, rel=0.05)
    assert parameter_count(skeleton("deeper")) == pytest.approx(9.9e6, rel=0.03)


@pytest.mark.parametrize(("name", "rival", "least", "most"), [
    ("deeper", "difuse_net", 0.9, 1.1), ("deeper_s", "difuse_net_s", 0.9, 1.1),
    ("monocular", "difuse_net", 0.85, 1), ("monocular_s", "difuse_net_s", 0.8, 1)])
def test_baselines_are_as_large_as_the_difuse_net_they_stand_beside(
    name: str, rival: str, least: float, most: float
) -> None:
    share = parameter_count(skeleton(name)) / parameter_count(skeleton(rival))
    assert least <= share <= most


@pytest.mark.parametrize("size", ["", "_s"])
def test_stereo_correlation_differs_from_difuse_net_in_the_matcher_only(size: str) -> None:
    own = parameter_count(skeleton(f"difuse_net{size}-no_evidence"))
    assert parameter_count(skeleton(f"stereo_correlation{size}")) == pytest.approx(own, rel=0.02)


@pytest.mark.parametrize("name", SMALL)
def test_baseline_outputs_have_the_shapes_of_difuse_net(name: str) -> None:
    network = build(name).eval()
    with torch.inference_mode():
        output = network.forward_full(*inputs(64, 96))
        plain = network(*inputs(64, 96))
    assert output.disparity_px.shape == output.log_sigma.shape == (1, 1, 64, 96)
    assert torch.equal(plain[0], output.disparity_px) and torch.equal(plain[1], output.log_sigma)
    widths = [d.shape[-1] for d, _ in output.intermediate]
    assert widths == sorted(widths) and widths[-1] == 48
    assert all(d.shape == s.shape for d, s in output.intermediate)
    assert len(output.offsets_px) == (2 if name.startswith("stereo") else 0)


@pytest.mark.parametrize("name", [*SMALL, "difuse_net_s-overlap-centered",
                                  "difuse_net_s-no_evidence-line", "difuse_net_s-no_wbipam",
                                  "difuse_net_s-pixel_fusion", "difuse_net_s-channel_fusion",
                                  "difuse_net_s_paper-one_direction", "monocular_s-affine"])
def test_gradient_reaches_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    network = build(name).train()
    output = network.forward_full(*inputs(64, 64, batch=2))
    pairs = [*output.intermediate, (output.disparity_px, output.log_sigma)]
    parts = [part for pair in pairs for part in pair] + output.offsets_px
    sum((part * torch.randn_like(part)).mean() for part in parts).backward()
    silent = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize(("name", "views", "rgb"), [
    ("monocular_s", False, True), ("dpnet", True, False), ("deeper_s", True, True),
    ("stereo_correlation_s", True, True)])
def test_each_baseline_sees_its_inputs_and_no_others(name: str, views: bool, rgb: bool) -> None:
    network = loud(build(name))
    left, right, image, condition = inputs()
    with torch.inference_mode():
        before = network(left, right, image, condition)[0]
        for other in (network(1 - left, right, image, condition)[0],
                      network(left, 1 - right, image, condition)[0]):
            assert torch.equal(before, other) != views
        assert torch.equal(before, network(left, right, 1 - image, condition)[0]) != rgb


@pytest.mark.parametrize("name", SMALL)
def test_fresh_baseline_stands_at_one_dioptre_in_the_frame_of_the_lens(name: str) -> None:
    """k = 10 px·m, focus at 2 dioptres: d = k(1/g − 1/Z) = 10·(2 − 1) = 10 px."""
    with torch.inference_mode():
        d, _ = build(name).eval()(*inputs())
    assert float(d.mean()) == pytest.approx(10, abs=0.5)


@pytest.mark.parametrize("name", SMALL)
def test_affine_output_stays_between_0_and_1_and_does_not_know_the_lens(name: str) -> None:
    network = loud(build(f"{name}-affine"))
    left, right, image, condition = inputs()
    with torch.inference_mode():
        output = network.forward_full(left, right, image, condition)
        other, _ = network(left, right, image, condition + 1)
    assert all(0 <= float(d.min()) <= float(d.max()) <= 1
               for d in [output.disparity_px, *(d for d, _ in output.intermediate)])
    assert torch.equal(output.disparity_px, other)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
@pytest.mark.parametrize("name", ["dpnet", "monocular_s", "stereo_correlation_s"])
def test_traced_baseline_agrees_at_another_size(name: str) -> None:
    network = loud(build(name))
    with torch.inference_mode():
        traced = torch.jit.trace(network, tuple(inputs(64, 64)), check_trace=False)
        expected, got = network(*inputs(64, 96))[0], traced(*inputs(64, 96))[0]
    assert torch.allclose(expected, got, atol=1e-4)


# Registry


@pytest.mark.parametrize("switch", SAME_WEIGHTS)
def test_switches_that_keep_the_weights_change_the_computation(switch: str) -> None:
    torch.manual_seed(0)
    base = loud(build("difuse_net_s"))
    assert isinstance(base, DiFuseNet)
    variant = build(f"difuse_net_s-{switch}").eval()
    variant.load_state_dict(base.state_dict())
    with torch.inference_mode():
        assert not torch.equal(base(*inputs())[0], variant(*inputs())[0])


@pytest.mark.parametrize("switch", sorted(SWITCHES))
def test_every_switch_has_a_base_that_it_changes_and_that_survives_json(switch: str) -> None:
    base = {"evidence": "stereo_correlation_s", "fixed_slopes": "difuse_net_s_paper"}.get(
        switch, "difuse_net_s")
    network = skeleton(f"{base}-{switch}")
    assert network.config != configuration(base)[1]
    assert rebuilt(network).config == network.config


@pytest.mark.parametrize("name", sorted(BASES))
def test_every_base_survives_json(name: str) -> None:
    network = skeleton(name)
    twin = rebuilt(network)
    assert type(twin) is type(network) and twin.config == network.config
    assert {k: v.shape for k, v in twin.state_dict().items()} == {
        k: v.shape for k, v in network.state_dict().items()}


def rebuilt(network: Network) -> Network:
    """The network after a journey through JSON."""
    with torch.device("meta"):
        return build_from_dict(json.loads(json.dumps(architecture(network))))


def test_architecture_without_a_family_is_a_difuse_net() -> None:
    values = architecture(skeleton("difuse_net_s"))
    del values["family"]
    with torch.device("meta"):
        assert isinstance(build_from_dict(values), DiFuseNet)


def test_published_network_is_the_paper_switch_of_the_configuration() -> None:
    assert configuration("difuse_net_paper") == ("difuse_net", difuse_net_config(paper=True))
    small = skeleton("difuse_net_s_paper").config
    assert small.stride == skeleton("difuse_net_s").config.stride
    assert small.output == "inverse_depth"


def test_baseline_configurations_offer_what_the_trainer_asks_for() -> None:
    for name in BASES:
        _, config = configuration(name)
        assert config.stride in (32, 64)
        assert config.attention.strip_px >= 2
        matches = name.startswith(("difuse_net", "stereo"))
        assert (config.attention.reach_px > 0) == matches


@pytest.mark.parametrize(("name", "named"), [
    ("difusenet", "no base 'difusenet'"), ("difuse_net_s-nowindow", "no switch 'nowindow'"),
    ("dpnet-line", "DPNetConfig does not have"), ("monocular_s-evidence", "no views to match"),
    ("difuse_net_s-line-overlap", "overlap = True"),
])
def test_impossible_names_are_refused_with_the_reason(name: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        skeleton(name)


def test_unknown_family_and_uneven_decoder_are_refused() -> None:
    with pytest.raises(ValueError, match="dpnet"):
        build_from_dict({"family": "resnet"})
    with pytest.raises(ValueError, match="needs 5 widths"):
        DPNetConfig(decoder=(8, 8))
    assert {f.name for f in fields(DPNetConfig)} >= {"output", "condition"}
