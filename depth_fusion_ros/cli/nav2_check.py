"""`depth-fusion nav2-check`: simulated scenes → node over DDS → how a Nav2 costmap behaves."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from depth_fusion_ros.bags.clouds import cloud_array
from depth_fusion_ros.bags.reader import BagReader, DualPixelRecord
from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.cli.console import (
    EXIT_UNUSABLE,
    chosen,
    console,
    fail,
    parse_size,
    stop_in_order_on_termination,
)
from depth_fusion_ros.cli.costmap_file import COSTMAP_YAML, costmap_parameters
from depth_fusion_ros.cli.demo_dual_pixel import DualPixelDemo
from depth_fusion_ros.cli.simulated_navigation_bag import SimulatedNavigationBag
from depth_fusion_ros.ros.environment import (
    ensure_ros_environment,
    free_domain_id,
    ros_problem,
)

if TYPE_CHECKING:
    from depth_fusion_ros.evaluation.costmap_behaviour import (
        CostmapBehaviour,
        ReceivedFrame,
        SceneOutcome,
    )
    from depth_fusion_ros.evaluation.costmap_report import BehaviourRow, ShownUpdate
    from depth_fusion_ros.ros.collector import OutputCollector
    from depth_fusion_ros.ros.replay_session import ReplayOutcome

OBSTACLES, CLEARING, POINTS = "points/obstacles", "points/clearing", "points"
PROVENANCE = "depth_registered/provenance"
TOPICS = {
    **dict.fromkeys((OBSTACLES, CLEARING, POINTS), "sensor_msgs/msg/PointCloud2"),
    PROVENANCE: "sensor_msgs/msg/Image",
}
FIELDS = {OBSTACLES: ("x", "y", "z", "sigma"), CLEARING: ("x", "y", "z"),
          POINTS: ("x", "y", "z", "sigma")}


def nav2_check_command(
    out: Annotated[
        Path, typer.Option(help="Folder for nav2_check.json, pictures, node log and bag.")
    ] = Path("nav2_check"),
    model: Annotated[
        str,
        typer.Option(help="Dual-pixel network: shipped name, model card (.json), or closed_form."),
    ] = "difuse_net_s",
    scenes: Annotated[
        str, typer.Option(help="Comma-separated: box, blank_wall, thin_pole, missing, corridor, "
                               "noise; empty = all.")
    ] = "",
    frames: Annotated[int, typer.Option(min=5, help="Sets of each scene.")] = 10,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of all images, px.")] = "320x240",
    backend: Annotated[
        str, typer.Option(help="Of the network: auto, torch or onnxruntime.")
    ] = "auto",
    rate: Annotated[float, typer.Option(min=0.01, help="Playing speed; 1 = as recorded.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of textures, light and noise.")] = 0,
) -> None:
    """Drive a model of Nav2's voxel layer with what the node publishes on simulated scenes.

    Beside it a naive costmap takes every pixel of the organised cloud to mark and to clear. Exit
    status: 0 every target is met; 1 one is missed, a set is unaccounted for, or the node failed;
    2 the environment or an argument is unusable.
    """
    from depth_fusion_ros.simulation.navigation_scenes import NAVIGATION_SCENES

    names = tuple(dict.fromkeys(chosen("--scenes", scenes, NAVIGATION_SCENES))
                  if scenes else NAVIGATION_SCENES)
    recording = SimulatedNavigationBag(names, frames, *parse_size(size), seed)
    demo = _OnTheRobot(recording, model=model, process_all=True, backend=backend)
    demo.check_model()
    if problem := ros_problem():
        fail(problem, EXIT_UNUSABLE)
    ensure_ros_environment(
        domain_id=None if os.environ.get("ROS_DOMAIN_ID") else free_domain_id())
    stop_in_order_on_termination()
    started = time.perf_counter()
    bag_path = demo.prepared_bag(out / "bags")
    replayed = _replayed(demo, bag_path, out, rate)
    collector = replayed.collector
    outcomes: dict[str, SceneOutcome] = {}
    with BagReader(bag_path) as bag:
        records = list(bag.frames())
    for number, name in enumerate(names):
        part = records[number * frames:(number + 1) * frames]
        outcomes[name] = _scene(name, part, collector, out, _model_of(collector, model))
    rows = _rows(outcomes)
    console.print(_table(rows, _model_of(collector, model)))
    options = {"out": out.name, "model": Path(model).name, "scenes": scenes, "frames": frames,
               "size": size, "backend": backend, "rate": rate, "seed": seed}
    _write_json(out / "nav2_check.json", outcomes, rows, replayed, options,
                time.perf_counter() - started)
    _conclude(rows, collector, out)


class _OnTheRobot(DualPixelDemo):
    """A camera whose height above the floor the node is told, as on any robot."""

    def extra_parameters(self, bag_path: Path) -> dict[str, Any]:
        """Return what the demo gives, and the height."""
        from depth_fusion_ros.simulation.navigation_scenes import CAMERA_HEIGHT_M

        return super().extra_parameters(bag_path) | {"floor.camera_height_m": CAMERA_HEIGHT_M}


def _replayed(demo: DualPixelDemo, bag_path: Path, out: Path, rate: float) -> ReplayOutcome:
    from depth_fusion_ros.ros.node_process import NodeFailure

    try:
        return demo.replay(bag_path, out, rate=rate, more_topics=TOPICS)[0]
    except (NodeFailure, BagError, RuntimeError) as error:
        fail(str(error))


def _model_of(collector: OutputCollector, asked: str) -> str:
    reports = collector.reports()
    return str(reports[-1].model_id) if reports else asked


def _scene(name: str, records: list[DualPixelRecord], collector: OutputCollector, out: Path,
           model_id: str) -> SceneOutcome:
    """Measure one scene and draw it."""
    from depth_fusion_ros.evaluation.costmap_behaviour import scene_outcome
    from depth_fusion_ros.evaluation.costmap_report import write_scene_picture
    from depth_fusion_ros.evaluation.costmap_truth import camera_pose
    from depth_fusion_ros.optics.intrinsics import Intrinsics
    from depth_fusion_ros.simulation.navigation_scenes import (
        CAMERA_HEIGHT_M,
        NAVIGATION_SCENES,
        camera_points,
    )

    scene, info = NAVIGATION_SCENES[name], records[0].rgb_camera_info
    assert info is not None
    fx, _, cx, _, fy, cy, *_ = map(float, info.k)
    intrinsics = Intrinsics(fx, fy, cx, cy, int(info.width), int(info.height))
    subject = scene.subject
    pose = camera_pose(CAMERA_HEIGHT_M)
    received = [_received(record, collector) for record in records]
    outcome = scene_outcome(
        received, intrinsics,
        (lambda depth_m: subject.holds(camera_points(depth_m, intrinsics))) if subject else None,
        costmap_parameters(), pose)
    last_seen = [i for i, view in enumerate(outcome.updates) if view.has_subject]
    indices = sorted({last_seen[-1] if last_seen else len(records) - 1, len(records) - 1})
    shown = [_shown(index, records[index], received[index], collector, pose) for index in indices]
    write_scene_picture(out / f"{name}.png", outcome, shown,
                        title=f"{name} (simulated): {scene.asks}; {model_id}")
    return outcome


def _received(record: DualPixelRecord, collector: OutputCollector) -> ReceivedFrame:
    from depth_fusion_ros.evaluation.costmap_behaviour import ReceivedFrame

    assert record.truth is not None
    clouds = {topic: collector.message(topic, record.stamp_ns) for topic in FIELDS}
    obstacles, clearing, points = (
        None if clouds[topic] is None else cloud_array(clouds[topic], FIELDS[topic])
        for topic in (OBSTACLES, CLEARING, POINTS))
    return ReceivedFrame(record.stamp_ns / 1e9, record.truth.array, obstacles, clearing, points)


def _shown(index: int, record: DualPixelRecord, received: ReceivedFrame,
           collector: OutputCollector, pose: np.ndarray[Any, Any]) -> ShownUpdate:
    from depth_fusion_ros.evaluation.costmap_report import ShownUpdate

    assert record.rgb is not None
    labels = collector.image(PROVENANCE, record.stamp_ns)

    def in_global(points: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any]:
        if points is None:
            return np.zeros((0, 3))
        return np.asarray(points[:, :3] @ pose[:3, :3].T + pose[:3, 3])

    return ShownUpdate(
        f"update {index + 1}", index, record.rgb.array, None if labels is None else labels.array,
        in_global(received.obstacles), in_global(received.clearing))


def _rows(outcomes: dict[str, SceneOutcome]) -> list[BehaviourRow]:
    from depth_fusion_ros.evaluation.costmap_report import behaviour_rows

    return behaviour_rows(outcomes)


def _table(rows: list[BehaviourRow], model_id: str) -> Table:
    table = Table(title=f"{model_id}, voxel layer of {COSTMAP_YAML}; all scenes are simulated",
                  title_justify="left", title_style="bold")
    for name in ("scene", "measure", "target", "ours", "naive"):
        table.add_column(name, justify="right" if name in ("ours", "naive") else "left")
    scene = ""
    for row in rows:
        if scene not in ("", row.scene):
            table.add_section()
        ours = row.text(row.ours)
        table.add_row("" if row.scene == scene else row.scene, escape(row.words), row.target,
                      ours if row.met else f"[bold red]{ours} missed[/bold red]",
                      row.text(row.naive))
        scene = row.scene
    return table


def _write_json(path: Path, outcomes: dict[str, SceneOutcome], rows: list[BehaviourRow],
                replayed: ReplayOutcome, options: dict[str, Any], wall_s: float) -> None:
    from depth_fusion_ros.evaluation.costmap_report import behaviour_values
    from depth_fusion_ros.evaluation.run_record import run_record
    from depth_fusion_ros.ros.collector import FRAME_REPORT

    def values(behaviour: CostmapBehaviour) -> dict[str, Any]:
        return behaviour_values(behaviour)

    collector = replayed.collector
    found = {
        "data": "simulated scenes; the costmap is a model of Nav2's, not Nav2",
        "model_id": _model_of(collector, str(options["model"])),
        "scenes": {name: {"ours": values(o.ours), "naive": values(o.naive)}
                   for name, o in outcomes.items()},
        "targets": [{"scene": r.scene, "measure": r.measure, "target": r.target, "met": r.met}
                    for r in rows if r.target],
        "sets": {"sent": len(collector.sets_sent), "estimated": len(collector.stamps(FRAME_REPORT)),
                 "dropped": collector.drops()},
        "record": run_record("depth-fusion nav2-check", options,
                             seeds={"scenes and noise": int(options["seed"])},
                             wall_time_s=wall_s),
    }
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _conclude(rows: list[BehaviourRow], collector: OutputCollector, out: Path) -> None:
    """Say where everything is, and end with a failure where something is not as it should be."""
    from depth_fusion_ros.ros.collector import FRAME_REPORT

    console.print(f"pictures and nav2_check.json: {out}", soft_wrap=True)
    sent, estimated = len(collector.sets_sent), len(collector.stamps(FRAME_REPORT))
    if estimated < sent:
        fail(f"{sent - estimated} of {sent} sets were not estimated (dropped: "
             f"{collector.drops() or 'none'}); the node's log is {out / 'node.log'}")
    if missed := [f"{row.scene}: {row.words}" for row in rows if not row.met]:
        fail(f"{len(missed)} targets are missed: {'; '.join(missed)}")
