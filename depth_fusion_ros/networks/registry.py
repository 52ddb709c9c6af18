"""Every trainable network by name: DiFuse-Net, its ablations and the learned baselines.

    network = build("difuse_net_s")                          # a base
    network = build("difuse_net_s-no_evidence-line")         # a base with switches
    twin = build_from_dict(architecture(network))            # as stored in a model card

A name is a base of `BASES`, then any number of switches of `SWITCHES`, each after a "-" and
applied from left to right. The baselines see no closed-form evidence, as published; what
`stereo_correlation` must be compared with is therefore `difuse_net-no_evidence`, or
`stereo_correlation-evidence` with `difuse_net`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any, TypeAlias

from depth_fusion_ros.networks.baselines import (
    DPNet,
    DPNetConfig,
    MonocularNet,
    deeper_config,
    deeper_s_config,
    dpnet_config,
    monocular_config,
)
from depth_fusion_ros.networks.difuse_net import (
    CONFIGS,
    DiFuseNet,
    DiFuseNetConfig,
    difuse_net_config,
)
from depth_fusion_ros.networks.sweep_depth import SweepDepth, SweepDepthConfig

Config: TypeAlias = DiFuseNetConfig | DPNetConfig | SweepDepthConfig
Network: TypeAlias = DiFuseNet | DPNet | MonocularNet | SweepDepth

FAMILIES: dict[str, tuple[Callable[[dict[str, Any]], Config], Callable[[Any], Network]]] = {
    "difuse_net": (DiFuseNetConfig.from_dict, DiFuseNet),
    "dpnet": (DPNetConfig.from_dict, DPNet),
    "monocular": (DiFuseNetConfig.from_dict, MonocularNet),
    "sweep_depth": (SweepDepthConfig.from_dict, SweepDepth),
}
"""Family to (configuration from a dict, network from a configuration)."""

SWITCHES: dict[str, dict[str, Any]] = {
    # Ablations of the paper (Table II).
    "no_wbipam": {"attention": {"kind": "none"}, "attention_offsets": False},
    "line": {"attention": {"kind": "line"}},
    "one_direction": {"attention": {"bidirectional": False}},
    "pixel_fusion": {"fusion": "pixel"},
    "channel_fusion": {"fusion": "channel"},
    # Ablations of what is ours.
    "no_evidence": {"evidence": False, "aggregation": False},
    "no_aggregation": {"aggregation": False},
    "no_offsets": {"attention_offsets": False},
    "no_lens": {"condition": False},
    "unfused_trunk": {"fused_trunk": False},
    # Forms of WBiPAM that the paper leaves open, and a way over the seams between strips.
    "strip_4": {"attention": {"strip_px": 4}},
    "strip_16": {"attention": {"strip_px": 16}},
    "own_view": {"attention": {"value_view": "own"}},
    "transpose": {"attention": {"reverse_map": "transpose"}},
    "overlap": {"attention": {"overlap": True}},
    "centered": {"attention": {"center_scores": True}},
    # What joins focus and prior in the focus-sweep network (`sweep_depth.FUSIONS`).
    "crossdepth_code": {"method": "crossdepth_code"},
    "crossdepth_paper": {"method": "crossdepth_paper"},
    "hybrid": {"method": "hybrid"},
    "volume_alone": {"method": "none"},
    # For comparisons on equal terms.
    "evidence": {"evidence": True},
    "learned_slopes": {"learned_slopes": True},
    "fixed_slopes": {"learned_slopes": False},
    "affine": {"output": "inverse_depth", "condition": False},
}
"""Switch to the fields of the configuration that it sets."""


def _paper(sizes: DiFuseNetConfig) -> DiFuseNetConfig:
    """The network as published; at full size with its own widths, else with those of `sizes`."""
    if sizes == difuse_net_config():
        return difuse_net_config(paper=True)
    return replace(
        difuse_net_config(paper=True), stem=sizes.stem, encoder=sizes.encoder, taps=sizes.taps,
        context_channels=sizes.context_channels, decoder=sizes.decoder)


def _stereo(config: DiFuseNetConfig) -> DiFuseNetConfig:
    """DiFuse-Net with a correlation volume in place of WBiPAM, and without evidence."""
    return replace(config, evidence=False, aggregation=False,
                   attention=replace(config.attention, kind="correlation"))


def _bases() -> dict[str, tuple[str, Callable[[], Config]]]:
    bases: dict[str, tuple[str, Callable[[], Config]]] = {
        "dpnet": ("dpnet", dpnet_config),
        "deeper": ("dpnet", deeper_config),
        "deeper_s": ("dpnet", deeper_s_config),
        "sweep_depth": ("sweep_depth", SweepDepthConfig),
    }
    for name, config in CONFIGS.items():
        def made(change: Callable[[DiFuseNetConfig], DiFuseNetConfig],
                 config: Callable[[], DiFuseNetConfig] = config) -> Callable[[], Config]:
            return lambda: change(config())

        size = name.removeprefix("difuse_net")
        bases[name] = ("difuse_net", config)
        bases[f"{name}_paper"] = ("difuse_net", made(_paper))
        bases[f"stereo_correlation{size}"] = ("difuse_net", made(_stereo))
        bases[f"monocular{size}"] = ("monocular", made(monocular_config))
    return bases


BASES = _bases()
"""Name to (family, configuration): every DiFuse-Net of `CONFIGS` as shipped and as published,
and the baselines in the same sizes."""


def configuration(name: str) -> tuple[str, Config]:
    """Family and configuration of a network's name, see the module docstring.

    Raises:
        ValueError: unknown base or switch, or a switch that the base has no field for.
    """
    base, *switches = name.split("-")
    if base not in BASES:
        raise ValueError(f"network {name!r}: no base {base!r}; use one of {sorted(BASES)}")
    family, make = BASES[base]
    config = make()
    for switch in switches:
        if switch not in SWITCHES:
            raise ValueError(
                f"network {name!r}: no switch {switch!r}; use one of {sorted(SWITCHES)}")
        config = _switched(config, switch, name)
    return family, config


def build(name: str) -> Network:
    """Build a network with fresh weights.

    Raises:
        ValueError: as `configuration`; or the switches contradict each other.
    """
    family, config = configuration(name)
    return FAMILIES[family][1](config)


def architecture(network: Network) -> dict[str, Any]:
    """Family and configuration of a network as plain values, for JSON."""
    for family, (_, make) in FAMILIES.items():
        if type(network) is make:
            return {"family": family, **asdict(network.config)}
    raise TypeError(f"network of type {type(network).__name__}: not in FAMILIES; add its family")


def build_from_dict(values: dict[str, Any]) -> Network:
    """Rebuild what `architecture` described, with fresh weights.

    Args:
        values: as from `architecture`, lists for tuples allowed; without "family" (model cards
            of before) it is a DiFuse-Net.

    Raises:
        ValueError: unknown family.
    """
    data = dict(values)
    family = data.pop("family", "difuse_net")
    if family not in FAMILIES:
        raise ValueError(
            f"architecture family = {family!r}: unknown; use one of {sorted(FAMILIES)}")
    from_dict, make = FAMILIES[family]
    return make(from_dict(data))


def _switched(config: Config, switch: str, name: str) -> Config:
    """The configuration with one switch applied; every field of it must exist."""
    changes = dict(SWITCHES[switch])
    for field, value in changes.items():
        if field not in {f.name for f in fields(config)}:
            raise ValueError(
                f"network {name!r}: switch {switch!r} sets {field!r}, which "
                f"{type(config).__name__} does not have; leave the switch out")
        if isinstance(value, dict):
            changes[field] = replace(getattr(config, field), **value)
    return replace(config, **changes)
