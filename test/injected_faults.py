"""Faults as they happen to robots, injected over DDS, and what diagnostics make of them.

    python test/injected_faults.py --write      # runs them all and renews docs/diagnostics.md
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from depth_fusion_ros.ros.environment import (
    ensure_ros_environment,
    share_file,
)

ensure_ros_environment()

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from ros_camera import Camera  # noqa: E402
from ros_helpers import (  # noqa: E402
    DEPTH,
    DP_INFO,
    LEFT,
    LENS_STATE,
    REPORT,
    RGB,
    RIGHT,
    Bench,
)
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402

from depth_fusion_ros.ros.messages import array_to_image  # noqa: E402
from depth_fusion_ros.ros.outputs import ns_to_stamp  # noqa: E402

PAGE = Path(__file__).parents[1] / "docs" / "diagnostics.md"
LEVELS = {b"\x00": "OK", b"\x01": "WARN", b"\x02": "ERROR"}
SHORT = ("diagnostics.period_s:=0.3",)
Finding = tuple[bytes, str, dict[str, str]]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        name: what happens, for people.
        task: where diagnostics tell it. level: as which level. words: what the message must say.
        happen: called again and again until diagnostics say so; gets the bench and the camera,
            which is None where there is none.
        parameters: of the node. camera: arguments of the camera, None = there is none.
        environment: what the node's process gets beside; called with a folder for its files.
    """

    name: str
    task: str
    level: bytes
    words: tuple[str, ...]
    happen: Callable[[Bench, Any], Any] = lambda bench, camera: None
    parameters: tuple[str, ...] = ()
    camera: dict[str, Any] | None = field(default_factory=dict)
    environment: Callable[[Path], dict[str, str]] = lambda folder: {}


def run(fault: Fault, folder: Path) -> Finding:
    """Inject a fault into a running node; what its diagnostics say.

    Raises:
        AssertionError: they do not name it within the bench's patience; the text holds them all.
    """
    with Bench() as bench, node(bench, fault, folder):
        camera = None if fault.camera is None else bench.camera(**fault.camera)

        def named() -> Finding | None:
            fault.happen(bench, camera)
            time.sleep(0.05)
            found = bench.diagnostics.get(fault.task)
            if found and found[0] == fault.level and all(w in found[1] for w in fault.words):
                return found
            return None

        return bench.wait(named, f"{fault.task} to say {fault.words}")


def node(bench: Bench, fault: Fault, folder: Path) -> AbstractContextManager[Any]:
    """The node of a fault, with its surroundings."""
    return bench.node(*SHORT, *(p.format(folder=folder) for p in fault.parameters),
                      environment=fault.environment(folder), wait_active=fault.task != "model")


def send(bench: Bench, camera: Camera) -> None:
    """A good set."""
    camera.send()


def once() -> Callable[[Bench, Camera], None]:
    """Sets until depth has come, then none."""

    def happen(bench: Bench, camera: Camera) -> None:
        if not bench.received[REPORT]:
            camera.send()

    return happen


def damaged(change: Callable[[dict[str, Any]], Any]) -> Callable[[Bench, Camera], None]:
    """Sets with something wrong in each."""
    return lambda bench, camera: camera.send(damage=change)


def uncalibrated(messages: dict[str, Any]) -> None:
    """What drivers send that nobody has calibrated: K and P all zero."""
    old = messages[DP_INFO]
    messages[DP_INFO] = CameraInfo(header=old.header, width=old.width, height=old.height)


def late_rgb(messages: dict[str, Any]) -> None:
    """The rgb camera runs on its own: its stamps are 15 ms away."""
    header = messages[RGB].header
    stamp_ns = header.stamp.sec * 10**9 + header.stamp.nanosec + 15_000_000
    messages[RGB].header = type(header)(stamp=ns_to_stamp(stamp_ns), frame_id=header.frame_id)


_CHANCE = itertools.count()


def views(make: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
          ) -> Callable[[dict[str, Any]], None]:
    """Both views replaced."""

    def change(messages: dict[str, Any]) -> None:
        for topic in (LEFT, RIGHT):
            old = messages[topic]
            made = make(np.random.default_rng(next(_CHANCE)), (old.height, old.width))
            messages[topic] = array_to_image(made.astype(np.uint16), "mono16", old.header)

    return change


def best_effort_camera() -> Callable[[Bench, Any], None]:
    """Somebody publishes the left view best effort only."""
    made: list[Any] = []

    def happen(bench: Bench, _: Any) -> None:
        if not made:
            made.append(bench.ros.create_publisher(Image, LEFT, QoSProfile(
                depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)))

    return happen


def latched_listener() -> Callable[[Bench, Any], None]:
    """Somebody wants the depth image latched, which no sensor topic is."""
    made: list[Any] = []

    def happen(bench: Bench, _: Any) -> None:
        if not made:
            made.append(bench.ros.create_subscription(
                Image, DEPTH, lambda message: None,
                QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)))

    return happen


def damaged_weights(folder: Path) -> dict[str, str]:
    """A card beside weights of which the last byte differs."""
    card = share_or_package("difuse_net_s.json")
    weights = bytearray(card.with_suffix(".safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "difuse_net_s.json").write_bytes(card.read_bytes())
    (folder / "difuse_net_s.safetensors").write_bytes(weights)
    return {}


def share_or_package(name: str) -> Path:
    """A file among the shipped weights."""
    import depth_fusion_ros

    return Path(depth_fusion_ros.__file__).parent / "weights" / name


def small_shared_memory(folder: Path) -> dict[str, str]:
    """A middleware whose shared memory holds no large image: as with stock settings."""
    profile = share_file("config/dds/fastdds_large_data.xml").read_text()
    small = folder / "small.xml"
    small.write_text(profile.replace("67108864", "524288").replace(
        "<maxMessageSize>16777216", "<maxMessageSize>65500"))
    return {"FASTDDS_DEFAULT_PROFILES_FILE": str(small)}


FAULTS = (
    Fault("no camera is running", "inputs", b"\x02",
          ("no input sets", "nothing ever came on", LEFT, "check names and namespace"),
          camera=None),
    Fault("the camera stops", "inputs", b"\x02", ("no input sets", "the source has stopped"),
          once()),
    Fault("the camera publishes best effort, the node insists on reliable", "inputs", b"\x01",
          (f"not heard: {LEFT} of /camera/bench", "input.reliability"),
          best_effort_camera(), ("input.reliability:=reliable",), camera=None),
    Fault("the camera is not calibrated", "inputs", b"\x01",
          ("dropped, mostly camera_info_zero",), damaged(uncalibrated)),
    Fault("rgb has stamps of its own", "inputs", b"\x01", ("dropped, mostly missing_rgb",),
          damaged(late_rgb), ("input.sync_timeout_s:=0.2",)),
    Fault("the camera's clock is a minute behind", "inputs", b"\x01", ("dropped, mostly stale",),
          lambda bench, camera: camera.send(time.time_ns() - 60 * 10**9),
          ("input.max_age_s:=0.5",)),
    Fault("nobody tells the lens's focus", "lens", b"\x01",
          ("no metric depth", LENS_STATE, "lens.focus_source"), send, camera={"lens": False}),
    Fault("the camera looks at a blank wall", "depth quality", b"\x01",
          ("% of the pixels have depth, mostly textureless",),
          damaged(views(lambda chance, size: 20000 + chance.normal(0, 30, size))),
          ("depth.max_sigma_ratio:=0.05",)),
    Fault("the picture is overexposed", "depth quality", b"\x01",
          ("% of the pixels have depth, mostly saturated",),
          damaged(views(lambda chance, size: 65535 - (chance.random(size) < 0.002) * 9000)),
          ("depth.max_sigma_ratio:=0.05",)),
    Fault("the computer is too slow", "inference", b"\x01",
          ("overloaded", "half resolution", "budget.latency_ms = 1"), send,
          ("budget.allow_degrade:=true", "budget.latency_ms:=1.0")),
    Fault("the weights are damaged", "model", b"\x02", ("not configured", "sha256"),
          parameters=("model.path:={folder}/difuse_net_s.json",), camera=None,
          environment=damaged_weights),
    Fault("the middleware loses large messages", "transport", b"\x01",
          ("best-effort subscribers lose images of", "4 MB", "FASTDDS_DEFAULT_PROFILES_FILE"),
          parameters=("transport.self_test:=true",), camera=None,
          environment=small_shared_memory),
    Fault("a listener asks for latched depth", "transport", b"\x01",
          ("not heard by /camera/bench (", DEPTH, "qos_overrides"), latched_listener(),
          camera=None),
)

HEAD = """# What diagnostics say when something is wrong

`/diagnostics` names the cause and what to do about it; numbers are separate values. Each fault
below is injected into a running node over DDS by `pytest test/test_node_faults.py`; this page is
what the node said, written by `python test/injected_faults.py --write` (numbers are of that run).

"""


def page(findings: dict[str, Finding], tasks: dict[str, str]) -> str:
    """The transcript as Markdown."""
    parts = [HEAD]
    for name, (level, message, values) in findings.items():
        shown = {key: value for key, value in values.items()
                 if value not in ("n/a", "0", "") and len(value) < 160}
        parts.append(f"## {name[0].upper()}{name[1:]}\n\n```\n{LEVELS[level]} dual_pixel_depth: "
                     f"{tasks[name]}: {message}\n"
                     + "".join(f"    {key} = {value}\n" for key, value in shown.items())
                     + "```\n\n")
    return "".join(parts).rstrip() + "\n"


def main() -> None:
    """Run all faults and print or write the page."""
    findings, tasks = {}, {}
    for fault in FAULTS:
        with tempfile.TemporaryDirectory(prefix="fault_") as folder:
            level, message, values = run(fault, Path(folder))
            clean = message.replace(folder, "/path/to")
            findings[fault.name] = level, clean, values
            tasks[fault.name] = fault.task
            print(f"{LEVELS[level]} {fault.task}: {clean}", flush=True)
    if "--write" in sys.argv:
        PAGE.write_text(page(findings, tasks), encoding="utf-8")


__all__ = ["FAULTS", "PAGE", "Fault", "run"]

if __name__ == "__main__":
    main()
