"""DiFuse-Net, parallax attention and closed-form evidence."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

from depth_fusion_ros.networks.blocks import parameter_count
from depth_fusion_ros.networks.convention import lens_condition
from depth_fusion_ros.networks.difuse_net import (
    DiFuseNet,
    DiFuseNetConfig,
    build,
    difuse_net_config,
    difuse_net_s_config,
)
from depth_fusion_ros.networks.evidence import dual_pixel_evidence, shift
from depth_fusion_ros.networks.parallax_attention import (
    ParallaxAttentionConfig,
    WindowParallaxAttention,
)


def textured_pair(disparity_px: float, gain: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth random texture moved by ± half the disparity; right brightened by `gain`."""
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(1, 1, 24, 32, generator=generator)
    image = torch.nn.functional.interpolate(coarse, size=(96, 128), mode="bicubic") * 0.5 + 0.3
    offset = torch.full_like(image, disparity_px / 2)
    return shift(image, offset), gain * shift(image, -offset)


def inputs(height: int = 64, width: int = 96, batch: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def noise(channels: int) -> torch.Tensor:
        return torch.rand(batch, channels, height, width, generator=generator)

    return [noise(1), noise(1), noise(3), torch.rand(batch, 4, generator=generator)]


@pytest.mark.parametrize("disparity_px", [-5.0, -1.2, 0.0, 0.4, 3.0])
def test_evidence_finds_a_known_shift_on_texture(disparity_px: float) -> None:
    evidence = dual_pixel_evidence(*textured_pair(disparity_px))
    inner = evidence.disparity_px[0, 1, 10:-10, 10:-10]
    assert float(inner.median()) == pytest.approx(disparity_px, abs=0.06)


def test_evidence_is_unmoved_by_a_gain_between_the_views() -> None:
    plain = dual_pixel_evidence(*textured_pair(1.5)).disparity_px
    brighter = dual_pixel_evidence(*textured_pair(1.5, gain=1.4)).disparity_px
    assert float((plain - brighter)[..., 8:-8, 8:-8].abs().median()) < 0.02


def test_evidence_changes_sign_when_the_views_are_exchanged() -> None:
    left, right = textured_pair(2.0)
    forward = dual_pixel_evidence(left, right).disparity_px[0, 1, 10:-10, 10:-10]
    backward = dual_pixel_evidence(right, left).disparity_px[0, 1, 10:-10, 10:-10]
    assert float((forward + backward).abs().median()) < 0.05


def test_difuse_net_has_the_size_of_the_paper_and_its_sibling_is_small() -> None:
    assert parameter_count(build("difuse_net")) == pytest.approx(9.9e6, rel=0.05)
    assert parameter_count(DiFuseNet(difuse_net_config(paper=True))) == pytest.approx(
        9.9e6, rel=0.05)
    assert parameter_count(build("difuse_net_s")) <= 1.5e6


@pytest.mark.parametrize("name", ["difuse_net", "difuse_net_s"])
def test_outputs_are_full_resolution_disparity_and_log_sigma_at_every_scale(name: str) -> None:
    network = build(name).eval()
    size = 2 * network.config.stride
    with torch.inference_mode():
        output = network.forward_full(*inputs(size, 2 * size))
    assert output.disparity_px.shape == output.log_sigma.shape == (1, 1, size, 2 * size)
    widths = [pair[0].shape[-1] for pair in output.intermediate]
    assert widths == sorted(widths)
    assert widths[-1] == size, "the finest intermediate output is at half resolution"
    assert [o.shape[-1] for o in output.offsets_px] == [size, size // 2]


def test_paper_configuration_has_no_evidence_no_condition_and_a_sigmoid() -> None:
    network = DiFuseNet(difuse_net_config(paper=True)).eval()
    left, right, rgb, condition = inputs(64, 64)
    with torch.inference_mode():
        output, _ = network(left, right, rgb, condition)
        other, _ = network(left, right, rgb, condition + 5)
    assert 0 <= float(output.min()) <= float(output.max()) <= 1
    assert torch.equal(output, other), "the paper's network must not see the lens"


def test_condition_reaches_the_output_of_our_configuration() -> None:
    network = build("difuse_net_s").eval()
    torch.nn.init.normal_(network.head_half.weight, std=0.1)
    left, right, rgb, condition = inputs()
    with torch.inference_mode():
        a, _ = network(left, right, rgb, condition)
        b, _ = network(left, right, rgb, torch.zeros_like(condition))
    assert not torch.equal(a, b)


@pytest.mark.parametrize("value_view", ["own", "other"])
@pytest.mark.parametrize("reverse_map", ["transpose", "softmax"])
def test_every_switch_of_the_attention_runs_and_keeps_shapes(
    value_view: str, reverse_map: str
) -> None:
    for axis in ("x", "y"):
        config = ParallaxAttentionConfig(strip_px=8, value_view=value_view,
                                         reverse_map=reverse_map, center_scores=True, axis=axis)
        attention = WindowParallaxAttention(6, config).eval()
        left, right = torch.rand(2, 6, 16, 20), torch.rand(2, 6, 16, 20)
        new_left, new_right, offset = attention(left, right)
        assert new_left.shape == new_right.shape == left.shape
        assert offset.shape == (2, 1, 16, 20)
        assert float(offset.detach().abs().max()) <= 7


def test_attention_offset_is_the_shift_where_features_match_sharply() -> None:
    """One-hot tokens, identity projections: the expected offset is the true displacement."""
    attention = WindowParallaxAttention(16, ParallaxAttentionConfig(strip_px=8)).eval()
    identity = 40 * torch.eye(16)[:, :, None, None]
    attention.query.weight.data, attention.key.weight.data = identity, torch.eye(16)[
        :, :, None, None]
    left = torch.zeros(1, 16, 1, 16)
    right = torch.zeros(1, 16, 1, 16)
    for x in range(16):
        left[0, x, 0, x] = 1
        right[0, x, 0, min(x + 2, 15)] = 1
    offset = attention(left, right)[2][0, 0, 0]
    assert offset[1].item() == pytest.approx(2, abs=0.05)
    assert offset[9].item() == pytest.approx(2, abs=0.05)


def test_attention_stays_inside_its_strip() -> None:
    attention = WindowParallaxAttention(4, ParallaxAttentionConfig(strip_px=8)).eval()
    left, right = torch.rand(1, 4, 8, 24), torch.rand(1, 4, 8, 24)
    changed = right.clone()
    changed[..., 16:] += 1
    before, after = attention(left, right)[2], attention(left, changed)[2]
    assert torch.equal(before[..., :16], after[..., :16])
    assert not torch.equal(before[..., 16:], after[..., 16:])


def test_transposed_map_is_the_paper_and_its_rows_do_not_sum_to_one() -> None:
    """(2a): the printed transpose differs from a second softmax, so it must stay switchable."""
    torch.manual_seed(0)
    config = ParallaxAttentionConfig(strip_px=4, reverse_map="transpose")
    attention = WindowParallaxAttention(3, config).eval()
    twin = WindowParallaxAttention(3, replace(config, reverse_map="softmax")).eval()
    twin.load_state_dict(attention.state_dict())
    left, right = torch.rand(1, 3, 4, 8), torch.rand(1, 3, 4, 8)
    assert torch.equal(attention(left, right)[0], twin(left, right)[0])
    assert not torch.allclose(attention(left, right)[1], twin(left, right)[1])


def test_unidirectional_switch_leaves_the_right_features_alone() -> None:
    attention = WindowParallaxAttention(3, ParallaxAttentionConfig(bidirectional=False)).eval()
    right = torch.rand(1, 3, 4, 8)
    assert torch.equal(attention(torch.rand(1, 3, 4, 8), right)[1], right)


@pytest.mark.parametrize(("field", "value"), [("value_view", "mine"), ("reverse_map", "none"),
                                              ("axis", "z"), ("strip_px", 1)])
def test_unknown_switch_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        ParallaxAttentionConfig(**{field: value})  # type: ignore[arg-type]


def test_configuration_survives_the_model_card() -> None:
    for config in (difuse_net_s_config(), difuse_net_config(paper=True)):
        assert DiFuseNetConfig.from_dict(asdict(config)) == config


def test_unknown_network_is_refused_with_the_known_names() -> None:
    with pytest.raises(ValueError, match="difuse_net_s"):
        build("difusenet")


def test_lens_condition_is_finite_at_both_ends() -> None:
    values = lens_condition(torch.tensor([0.4, 0.05]), torch.tensor([0.0, 50.0]),
                            torch.tensor([0.0, 10.0]))
    assert torch.isfinite(values).all()
    assert values[:, 0].tolist() == [1, 1]
