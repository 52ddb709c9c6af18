"""`depth-fusion calibrate-lens --live`: record a running camera, and say what is still missing."""

from __future__ import annotations

import os
import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from depth_fusion_ros.bags import topics as names
from depth_fusion_ros.bags.recording import BagWriter, remove_bag
from depth_fusion_ros.bags.typestore import BagError, bag_typestore
from depth_fusion_ros.cli.console import EXIT_UNUSABLE, console, fail
from depth_fusion_ros.optics.calibration_file import CalibrationError
from depth_fusion_ros.ros.environment import ensure_ros_environment, ros_problem

if TYPE_CHECKING:
    from depth_fusion_ros.evaluation.lens_bag import ViewLevels
    from depth_fusion_ros.optics.calibration_board import CalibrationBoard
    from depth_fusion_ros.ros.live_recorder import LiveRecorder

SWEEP = (names.LENS_STATE, names.SWEEP_CAMERA_INFO, names.SWEEP_IMAGE)
PAIRS = (names.LENS_STATE, names.DP_CAMERA_INFO, names.LEFT_IMAGE, names.RIGHT_IMAGE)
GLANCE_S = 0.1
INTERRUPTED = 130  # as shells say of Ctrl-C


def record_live(board: CalibrationBoard, levels: ViewLevels, namespace: str, folder: Path,
                name: str, *, storage: str, wait_s: float, idle_s: float) -> Path:
    """Record until Enter, or until nothing came for `idle_s`; return the bag.

    A recording that is there is never replaced: the next one is NAME_2, and so on.

    Raises:
        CalibrationError: topics are missing after `wait_s`, or the bag cannot be written.
    """
    if problem := ros_problem():
        fail(problem, EXIT_UNUSABLE)
    # The camera may be on another computer; other commands speak with their own processes only.
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    ensure_ros_environment()
    from depth_fusion_ros.ros.live_recorder import recording

    types = {names.resolve(namespace, topic): (names.SWEEP_INPUT_TOPICS | names.INPUT_TOPICS)[topic]
             for topic in (*SWEEP, *PAIRS)}
    try:
        path = _free(folder, name)
    except OSError as error:
        raise CalibrationError(f"folder {folder}: cannot be made ({error.strerror}); choose "
                               "another --out") from None
    interrupted = False
    try:
        with BagWriter(path, namespace=namespace, storage=storage) as bag, (
                recording(bag, types)) as recorder:
            session = _Session(recorder, board, levels, namespace)
            try:
                missing = _follow(session, wait_s, idle_s, path)
            except KeyboardInterrupt:
                interrupted, missing = True, ""
    except OSError as error:
        raise BagError(f"bag {path}: cannot be written ({error}); choose another --out") from None
    if recorder.failure is not None:
        raise CalibrationError(f"bag {path}: writing failed ({recorder.failure}); what came before "
                               "is in it; free the disk and record again")
    if missing or not recorder.received:
        remove_bag(path)
        if missing:
            raise CalibrationError(missing)
        fail("interrupted before anything came: nothing was recorded", INTERRUPTED)
    console.print(f"recorded: {path}, {sum(recorder.received.values())} messages, "
                  f"{_losses(recorder)}", soft_wrap=True)
    if interrupted:
        console.print(f"interrupted: the recording is kept; calibrate from it with 'depth-fusion "
                      f"calibrate-lens {path} --name {name}'", soft_wrap=True)
        raise typer.Exit(INTERRUPTED)
    return path


class _Session:
    """Looks at what comes, whenever there is time."""

    def __init__(self, recorder: LiveRecorder, board: CalibrationBoard, levels: ViewLevels,
                 namespace: str) -> None:
        from depth_fusion_ros.evaluation.lens_coach import LensCoach

        self.recorder, self.coach, self.levels = recorder, LensCoach(board), levels
        self.topic = {topic: names.resolve(namespace, topic) for topic in (*SWEEP, *PAIRS)}
        self._state: Any = None
        self._infos: dict[str, Any] = {}
        self._started_s = time.monotonic()

    def look(self) -> None:
        """Take the newest messages to the coach."""
        from depth_fusion_ros.evaluation.lens_bag import live_image

        self._state = self._message(names.LENS_STATE, "depth_fusion_ros/msg/LensState"
                                    ) or self._state
        if self._state is not None:
            self.coach.report(float(self._state.focus_diopters))
        for info, image in ((names.SWEEP_CAMERA_INFO, names.SWEEP_IMAGE),
                            (names.DP_CAMERA_INFO, names.LEFT_IMAGE)):
            told = self._message(info, "sensor_msgs/msg/CameraInfo")
            self._infos[info] = told or self._infos.get(info)
            if self._state is None or self._infos[info] is None:
                continue
            message = self._message(image, "sensor_msgs/msg/Image")
            if message is not None:
                self.coach.look(live_image(message, self._state, self._infos[info], self.levels,
                                           is_view=image == names.LEFT_IMAGE))

    def _message(self, topic: str, type_name: str) -> Any:
        data = self.recorder.newest(self.topic[topic])
        return None if data is None else bag_typestore().deserialize_cdr(data, type_name)

    def missing(self, topics: tuple[str, ...]) -> list[str]:
        """Absolute names of those on which nothing came yet."""
        return [self.topic[t] for t in topics if not self.recorder.received[self.topic[t]]]

    def silence(self, waited_s: float) -> str:
        """One sentence on what did not come."""
        lacking = min((self.missing(SWEEP), self.missing(PAIRS)), key=len)
        if len(lacking) >= len(SWEEP):
            lacking = [*self.missing(SWEEP), *self.missing(PAIRS[1:])]
        told = ", ".join(
            f"{topic} ({'silent' if self.recorder.publishers(topic) else 'nobody publishes it'})"
            for topic in lacking)
        return (f"nothing came within {waited_s:g} s on {told}: needs lens_state with sweep/ or "
                "with dp/ images and their camera_info; start the camera and what reports its "
                "focus, or set --namespace, ROS_DOMAIN_ID or --wait-s")

    def picture(self) -> Group:
        """What is there, and what to do next."""
        table = Table()
        for head in ("distance", "board seen", "steps near / far", "pairs", ""):
            table.add_column(head)
        for place in self.coach.places:
            table.add_row(f"{place.distance_m:.2f} m", str(place.seen),
                          f"{place.up} / {place.down}", str(place.pairs),
                          "[green]done[/green]" if place.is_done else "")
        count = sum(self.recorder.received.values())
        view = "board in view" if self.coach.sees_board else "no board in view"
        return Group(table, Text(f"{time.monotonic() - self._started_s:.0f} s, {count} messages, "
                                 f"{_losses(self.recorder)}; {view}"),
                     Text(f"next: {self.coach.advice()}", style="bold"),
                     Text("Enter ends the recording and calibrates; Ctrl-C only keeps it"))


def _follow(session: _Session, wait_s: float, idle_s: float, path: Path) -> str:
    """Show what comes until the end; return what is missing, in a sentence, or ''."""
    recorder = session.recorder
    console.print(f"recording to {path}", soft_wrap=True)
    deadline = time.monotonic() + wait_s
    with Live(session.picture(), console=console, refresh_per_second=4) as live:
        while recorder.failure is None:
            recorder.follow()
            session.look()
            live.update(session.picture())
            now_s = time.monotonic()
            if session.missing(SWEEP) and session.missing(PAIRS):
                if now_s > deadline:
                    return session.silence(wait_s)
            elif now_s - recorder.newest_at_s > idle_s or _entered():
                break
            time.sleep(GLANCE_S)
    return ""


def _entered() -> bool:
    """Whether somebody pressed Enter at a terminal."""
    if not sys.stdin.isatty() or not select.select([sys.stdin], [], [], 0)[0]:
        return False
    sys.stdin.readline()
    return True


def _losses(recorder: LiveRecorder) -> str:
    lost = recorder.lost
    if not lost:
        return "none lost"
    return "LOST on the way: " + ", ".join(
        f"{count} of {escape(topic)}" for topic, count in sorted(lost.items()))


def _free(folder: Path, name: str) -> Path:
    """The first path of NAME, NAME_2, … that is not taken."""
    number, path = 1, folder / name
    while path.exists():
        number += 1
        path = folder / f"{name}_{number}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


__all__ = ["record_live"]
