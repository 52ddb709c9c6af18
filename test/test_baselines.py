"""Learned baselines beside DiFuse-Net: size, inputs, outputs, gradients, tracing."""

from __future__ import annotations

import pytest
import torch
from network_inputs import inputs, loud, skeleton

from depth_fusion_ros.networks.blocks import parameter_count
from depth_fusion_ros.networks.registry import build

SMALL = ("dpnet", "deeper_s", "stereo_correlation_s", "monocular_s")


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
