"""Names of networks: bases, ablation switches, and what survives being written down."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
import torch
from network_inputs import inputs, loud, skeleton

from depth_fusion_ros.networks.baselines import DPNetConfig
from depth_fusion_ros.networks.difuse_net import DiFuseNet, difuse_net_config
from depth_fusion_ros.networks.registry import (
    BASES,
    SWITCHES,
    Network,
    architecture,
    build,
    build_from_dict,
    configuration,
)

SAME_WEIGHTS = ("line", "strip_4", "strip_16", "own_view", "transpose", "overlap", "centered")
SWEEP_SWITCHES = ("crossdepth_code", "crossdepth_paper", "hybrid", "volume_alone")


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
    base = {"evidence": "stereo_correlation_s", "fixed_slopes": "difuse_net_s_paper",
            **dict.fromkeys(SWEEP_SWITCHES, "sweep_depth")}.get(switch, "difuse_net_s")
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
    for name in sorted(set(BASES) - {"sweep_depth"}):
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
