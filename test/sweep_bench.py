"""What the tests of the sweep controller share.

Importing this module needs rclpy and our messages: check `ros_problem()` first.
"""

from __future__ import annotations

from collections import Counter

from ros_helpers import NAMESPACE, PATIENCE_S, Bench
from sensor_msgs.msg import CameraInfo
from std_srvs.srv import Trigger

from depth_fusion_ros.msg import LensState

CONTROLLER = f"{NAMESPACE}/focus_sweep_controller"
INFO, IMAGE, LENS, UNTAGGED = ("sweep/camera_info", "sweep/image_raw", "lens_state",
                               "lens_state_untagged")
TO_UNTAGGED = (f"{LENS}:={UNTAGGED}",)
QUICK = ("diagnostics.period_s:=0.1", "report_timeout_s:=1.0")
SWEEP = ("sweep.far_diopters:=0.5", "sweep.near_diopters:=2.3", "sweep.slices:=4")


def controller(bench: Bench, *parameters: str):
    return bench.node(*QUICK, *SWEEP, *parameters, module="focus_sweep_controller",
                      wait_active=False)


def counters(bench: Bench) -> dict[str, str]:
    """The controller's counters, read after this call."""
    seen = bench.diagnostics_count
    bench.wait(lambda: bench.diagnostics_count >= seen + 2 and "sweep" in bench.diagnostics,
               "diagnostics")
    return bench.diagnostics["sweep"][2]


def wait_for_counter(bench: Bench, key: str, least: int = 1, timeout_s: float = PATIENCE_S
                     ) -> dict[str, str]:
    def there() -> dict[str, str] | None:
        values = bench.diagnostics.get("sweep", (b"", "", {}))[2]
        return values if int(values.get(key, "0")) >= least else None

    return bench.wait(there, f"{key} >= {least}", timeout_s)


def run_sweep(bench: Bench) -> Trigger.Response:
    return bench.call(Trigger, f"{CONTROLLER}/run_sweep", Trigger.Request())


def tagged(states: list[LensState]) -> dict[tuple[int, int], LensState]:
    """The tagged states by sweep and index; each once."""
    found = [s for s in states if s.sweep_id]
    places = Counter((s.sweep_id, s.sweep_index) for s in found)
    assert not [place for place, count in places.items() if count > 1], places
    return {(s.sweep_id, s.sweep_index): s for s in found}


def listen(bench: Bench, **kinds: type) -> None:
    for topic, kind in ((INFO, CameraInfo), (LENS, LensState), *kinds.items()):
        bench.ros.create_subscription(kind, topic, bench.listen(topic), 100)
