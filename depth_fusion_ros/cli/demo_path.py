"""What the two paths of the demo share: bag → node over DDS → scores, a picture, a report.

    demo = DualPixelDemo(recording, model="closed_form", process_all=False)
    report = demo.run(demo.prepared_bag(bags), folder, rate=1.0)
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.cli.bag import make_with_progress
from depth_fusion_ros.cli.console import EXIT_UNUSABLE, console, fail, progress_bars
from depth_fusion_ros.cli.simulated_recording import SimulatedRecording

if TYPE_CHECKING:
    from depth_fusion_ros.evaluation.contact_sheet import ContactRow
    from depth_fusion_ros.evaluation.report import ReplayReport
    from depth_fusion_ros.ros.collector import OutputCollector
    from depth_fusion_ros.ros.replay_session import ReplayOutcome, ReplaySettings

SCORED_MIN_M, SCORED_MAX_M = 0.15, 8.0  # the nodes' depth range: truth outside is not scored
SHEET_ROWS = 4
CLOSED_FORM = "closed_form"  # the estimators without weights


@dataclass(frozen=True)
class RecordedTruth:
    """What a bag knows of one set.

    Attributes:
        stamp_ns: of the set. truth_m: (H, W) metres.
        row: makes a row of the contact sheet of depth and sigma (metres) and a note.
    """

    stamp_ns: int
    truth_m: NDArray[np.float32]
    row: Callable[[NDArray[np.float32], NDArray[np.float32], str], ContactRow]


class PathDemo(ABC):
    """One path of the demo.

    Attributes:
        path_name: see ros/replay_paths.py; also the name of the folder. unit: what a set is called.
        model_option: name of the command's option for the model.
        recording: what is played. model: shipped name, model card, or closed_form.
        process_all: whether the node takes every set, or the latest only.
    """

    path_name: ClassVar[str]
    unit: ClassVar[str]
    model_option: ClassVar[str]

    def __init__(self, recording: SimulatedRecording, *, model: str, process_all: bool) -> None:
        self.recording, self.model, self.process_all = recording, model, process_all

    @abstractmethod
    def extra_parameters(self, bag_path: Path) -> dict[str, Any]:
        """Return parameters that only this path's node has."""

    @abstractmethod
    def truths(self, bag: BagReader, collector: OutputCollector) -> Iterator[RecordedTruth]:
        """Yield the sets of an open bag that have a truth."""

    def check_model(self) -> None:
        """End with a sentence if the model's card is missing or broken."""
        if self.model == CLOSED_FORM:
            return
        from depth_fusion_ros.estimation.model_card import ModelError, find_card, load_card

        try:
            load_card(find_card(self.model))
        except ModelError as error:
            fail(f"{error}\nWithout weights: {self.model_option} {CLOSED_FORM}", EXIT_UNUSABLE)

    def prepared_bag(self, folder: Path) -> Path:
        """Return the bag of these parameters, rendered unless it is there already."""
        path = folder / self.recording.name
        if self.recording.is_at(path):
            console.print(f"bag from before: {path}")
            return path
        try:
            make_with_progress(self.recording, path)
        except ValueError as error:
            fail(str(error), EXIT_UNUSABLE)
        return path

    def run(self, bag_path: Path, folder: Path, *, rate: float) -> ReplayReport:
        """Replay the bag, score what came out, write picture and report to `folder`.

        Raises:
            NodeFailure, BagError, RuntimeError: as `ros.replay_session.replay_through_node`.
        """
        outcome, settings = self.replay(bag_path, folder, rate=rate)
        return self._evaluate(bag_path, outcome, settings, folder)

    def replay(
        self, bag_path: Path, folder: Path, *, rate: float,
        more_topics: Mapping[str, str] | None = None,
    ) -> tuple[ReplayOutcome, ReplaySettings]:
        """Replay the bag through the node, and say how; errors as of `run`.

        Args:
            folder: gets the node's log. more_topics: see `ReplaySettings`.
        """
        from depth_fusion_ros.ros.replay_paths import replay_path
        from depth_fusion_ros.ros.replay_session import ReplaySettings

        parameters = {
            "model.path": self.model,
            "model.warmup_width_px": self.recording.width_px,
            "model.warmup_height_px": self.recording.height_px,
            "depth.min_m": SCORED_MIN_M,
            "depth.max_m": SCORED_MAX_M,
            "replay.process_all": self.process_all,
            "budget.allow_degrade": False,  # what is scored is the network, whole
            "transport.self_test": False,
            **self.extra_parameters(bag_path),
        }
        settings = ReplaySettings(
            path=replay_path(self.path_name), parameters=parameters, rate=rate,
            more_topics=more_topics or {})
        return _replay(bag_path, settings, folder / "node.log"), settings

    def _evaluate(
        self, bag_path: Path, outcome: ReplayOutcome, settings: ReplaySettings, folder: Path
    ) -> ReplayReport:
        """Score every estimate against the bag's truth and write picture, JSON and Rerun file."""
        from depth_fusion_ros.evaluation.metrics import average_metrics, percentiles_ms
        from depth_fusion_ros.evaluation.report import ReplayReport, median_stages
        from depth_fusion_ros.ros.collector import FRAME_REPORT

        collector, recording = outcome.collector, self.recording
        with BagReader(bag_path) as bag:
            scores, shown = self._scored(bag, collector)
        reports = collector.reports()
        model_id = str(reports[-1].model_id) if reports else self.model
        accuracy = average_metrics(scores)
        files = {"bag": str(bag_path), "node log": str(folder / "node.log")}
        if shown:
            title = (
                f"{model_id} on simulated {recording.camera}: AbsRel {accuracy['abs_rel']:.3f}, "
                f"δ<1.25 {accuracy['delta_1']:.3f}, {len(scores)} of {len(collector.sets_sent)} "
                f"{self.unit}s"
            )
            files.update(_draw(shown, title, folder))
        files["report"] = str(folder / "report.json")
        counts_slices = collector.path.counts_slices
        report = ReplayReport(
            model_id=model_id,
            data=f"simulated data, {recording.camera}, seed {recording.seed}, truth "
            f"{SCORED_MIN_M}–{SCORED_MAX_M:g} m (+Inf counts as {SCORED_MAX_M:g} m)",
            sets_sent=len(collector.sets_sent),
            sets_estimated=len(collector.stamps(FRAME_REPORT)),
            sets_dropped=collector.drops(),
            accuracy=accuracy,
            latency_ms=percentiles_ms(collector.latencies_ms()),
            stages_ms=median_stages(collector.stages_ms()),
            files=files,
            settings={
                **recording.parameters(),
                "path": self.path_name,
                "play_rate": settings.rate,
                "parameters": dict(settings.parameters),
                "node_start_s": outcome.start_s,
                "player_largest_delay_s": outcome.played.largest_delay_s,
                "diagnostics": {k: v[1] for k, v in collector.diagnostic_messages().items()},
            },
            unit=self.unit,
            slices_sent=collector.images_sent if counts_slices else 0,
            slices=collector.slices() if counts_slices else {},
        )
        report.write_json(folder / "report.json")
        return report

    def _scored(
        self, bag: BagReader, collector: OutputCollector
    ) -> tuple[list[dict[str, float]], list[tuple[int, ContactRow]]]:
        """Return the metrics of every estimate, and (stamp, row) of those that are shown."""
        from depth_fusion_ros.evaluation.metrics import depth_metrics
        from depth_fusion_ros.ros.collector import DEPTH, SIGMA

        chosen = set(_spread(collector.stamps(DEPTH), SHEET_ROWS))
        scores: list[dict[str, float]] = []
        shown: list[tuple[int, ContactRow]] = []
        for recorded in self.truths(bag, collector):
            depth = collector.image(DEPTH, recorded.stamp_ns)
            if depth is None:
                continue
            sigma = collector.image(SIGMA, recorded.stamp_ns)
            sigma_m = sigma.array if sigma else np.full_like(depth.array, np.nan)
            score = depth_metrics(depth.array, recorded.truth_m, sigma_m=sigma_m,
                                  min_m=SCORED_MIN_M, max_m=SCORED_MAX_M)
            scores.append(score)
            if recorded.stamp_ns in chosen:
                note = f"AbsRel {score['abs_rel']:.3f}"
                shown.append((recorded.stamp_ns, recorded.row(depth.array, sigma_m, note)))
        return scores, shown


def problem_of(report: ReplayReport, log_path: Path) -> str:
    """Return why a replay is no success: sets unaccounted for, or nothing to show; "" if it is."""
    if report.sets_estimated == 0:
        return f"nothing was estimated; the node's log is {log_path}"
    missing = [
        f"{count} of {sent} {what}s are unaccounted for"
        for count, sent, what in (
            (report.sets_missing, report.sets_sent, report.unit),
            (report.slices_missing, report.slices_sent, "slice"),
        )
        if count
    ]
    if missing:
        return (f"{' and '.join(missing)}: neither used nor dropped with a cause; the node's log "
                f"is {log_path}")
    return ""


def _replay(bag_path: Path, settings: ReplaySettings, log_path: Path) -> ReplayOutcome:
    """Replay under two progress bars: node start, images played."""
    from depth_fusion_ros.ros.replay_session import replay_through_node

    started = time.monotonic()
    with progress_bars() as bars:
        tasks = {
            "starting the node": bars.add_task("starting the node", total=1, note=""),
            "playing the bag": bars.add_task("playing the bag", total=None,
                                             note=settings.path.image_topic),
        }

        def on_progress(what: str, done: int, total: int) -> None:
            bars.update(tasks[what], completed=done, total=total)

        outcome = replay_through_node(
            bag_path, settings, log_path=log_path, on_progress=on_progress)
    console.print(
        f"node active after {outcome.start_s:.1f} s, replay took "
        f"{time.monotonic() - started:.1f} s in all"
    )
    return outcome


def _draw(shown: list[tuple[int, ContactRow]], title: str, folder: Path) -> dict[str, str]:
    """Write the contact sheet, and a Rerun file where that is installed; return what -> path."""
    from depth_fusion_ros.evaluation.contact_sheet import write_contact_sheet
    from depth_fusion_ros.evaluation.rerun_file import write_rerun

    sheet = write_contact_sheet(
        folder / "contact_sheet.png", [row for _, row in shown], title=title)
    files = {"picture": str(sheet)}
    if rerun_file := write_rerun(folder / "demo.rrd", [(s, _pictures(row)) for s, row in shown]):
        files["rerun"] = str(rerun_file)
    return files


def _pictures(row: ContactRow) -> dict[str, NDArray[Any]]:
    """Return what the Rerun file shows of a row: colour, and images in metres."""
    colour = {title.lower().replace(" ", "_"): picture
              for title, picture in row.seen().items() if picture.ndim == 3}
    return {**colour, "truth": row.truth_m, "depth": row.depth_m, "sigma": row.sigma_m}


def _spread(stamps: list[int], count: int) -> list[int]:
    """Return up to `count` of the stamps, evenly spread."""
    if not stamps:
        return []
    places = np.linspace(0, len(stamps) - 1, min(count, len(stamps)))
    return [stamps[round(place)] for place in places]
