"""`depth-fusion export`: a training run becomes a model that can be shipped."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

console = Console()

_KEPT = ("abs_rel", "textured_abs_rel", "delta_1", "rmse_m", "within_1_sigma", "within_2_sigma")
_VIEWS = ("closed form", "benchmark --methods closed_form")
_BASELINES = {"simulated": _VIEWS, "raytraced": _VIEWS, "real": _VIEWS,
              "sweeps": ("closed form, focus and defocus",
                         "benchmark-sweeps --methods closed_form")}
"""Kind of captures → the method without learning beside a network's, and how to score it."""
_TITLES = {"sweeps": "ray-traced sweeps"}


def export_command(
    run: Annotated[Path, typer.Argument(help="Folder of a finished training run.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.safetensors, .onnx and .json.")],
    name: Annotated[str, typer.Option(help="Name of the model. Default: the network's.")] = "",
    version: Annotated[str, typer.Option(help="Version of the weights.")] = "0.1.0",
    command: Annotated[str, typer.Option(
        help="Command that reproduces the training. Default: with the configuration in "
             "config/train/ that is called like the network.")] = "",
    accuracy: Annotated[Path | None, typer.Option(
        help="benchmark.json of `depth-fusion benchmark` on these weights, for the card.",
    )] = None,
    cache: Annotated[Path, typer.Option(help="Folder for rendered scenes.")] = Path("runs/cache"),
    curve: Annotated[Path | None, typer.Option(help="Where to draw the curve (PNG).")] = None,
    compact: Annotated[bool, typer.Option(
        help="Weights in half precision and no ONNX graph: a quarter of the files.")] = False,
) -> None:
    """Calibrate sigma on held-out simulated scenes and write weights, ONNX graph and card.

    Focus-sweep networks get no ONNX graph; they run in torch.
    """
    from safetensors.torch import load_file

    from depth_fusion_ros.estimation.export import write_model
    from depth_fusion_ros.networks.registry import build_from_dict
    from depth_fusion_ros.networks.sweep_depth import PARTS
    from depth_fusion_ros.training.calibration import calibrate_sigma, draw_curve
    from depth_fusion_ros.training.config import TrainingConfig
    from depth_fusion_ros.training.stage_networks import STAGE_NETWORKS

    facts_path = run / "run.json"
    if not facts_path.is_file():
        console.print(f"[red]{run}: holds no run.json; finish the training first "
                      "(depth-fusion train resumes)[/red]")
        raise typer.Exit(2)
    facts = json.loads(facts_path.read_text())
    if facts["network"] in (*PARTS, *STAGE_NETWORKS):
        console.print(f"[red]{run}: is the stage {facts['network']!r} of a run, whose last stage "
                      f"is the model; export {run.parent}[/red]", highlight=False)
        raise typer.Exit(2)
    name = name or facts["network"]
    command = command or f"depth-fusion train --config config/train/{facts['network']}.yaml"
    network = build_from_dict(facts["architecture"])
    network.load_state_dict(load_file(run / f"{facts['network']}.safetensors"))
    try:
        sigma = calibrate_sigma(network, TrainingConfig(**facts["training"]), cache)
    except ValueError as error:
        console.print(f"[red]{run}: {error}[/red]", highlight=False)
        raise typer.Exit(2) from error
    console.print(f"sigma: {100 * sigma.within_1_sigma:.1f} % of held-out simulated errors within "
                  f"1 sigma by construction, {100 * sigma.within_2_sigma:.1f} % within 2 sigma "
                  f"(Gaussian 95.4), 95.4 % within {sigma.factor_95:.2f} sigma")
    card = write_model(
        run, out, name=name, version=version, command=command, sigma=sigma,
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        accuracy=accuracy_lines(accuracy, name), compact=compact)
    if curve is not None:
        draw_curve(run, curve)
    graph = "" if card.onnx else "; no ONNX graph, it runs in torch"
    console.print(f"{card.model_id}: {card.parameters} parameters, in {out}{graph}")


def accuracy_lines(path: Path | None, name: str) -> list[dict[str, Any]]:
    """Lines for the card: mean metrics per set, beside those of matching without learning.

    Args:
        path: benchmark.json of `depth-fusion benchmark`, or sweeps.json of `benchmark-sweeps`.
        name: of the model in it.
    """
    if path is None:
        return []
    results = json.loads(path.read_text())
    lines = []
    for kind, (baseline, methods) in _BASELINES.items():
        for data, groups in results.get(kind, {}).items():
            if data == "calibration":
                continue
            means = {method: row["mean"] for method, row in groups["all"].items()}
            for method in (name, baseline):
                if method not in means:
                    raise typer.BadParameter(
                        f"{path}: has no results of {method!r} on {kind} {data!r}; score it with "
                        f"depth-fusion {methods},{name}")
            lines.append({
                "measured_on": data if data == kind else f"{_TITLES.get(kind, kind)}: {data}",
                **{key: means[name][key] and round(means[name][key], 4) for key in _KEPT},
                "closed_form_abs_rel": round(means[baseline]["abs_rel"], 4)})
    return lines
