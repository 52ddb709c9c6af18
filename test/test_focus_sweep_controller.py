"""The sweep controller over real DDS, with cameras that obey, refuse, fall silent or are away."""

from __future__ import annotations

import math
import signal
import time

import pytest

from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import SetParametersResult
from ros_helpers import FRAME_ID, Bench
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from sweep_bench import (
    INFO,
    LENS,
    TO_UNTAGGED,
    controller,
    counters,
    listen,
    run_sweep,
    tagged,
    wait_for_counter,
)

from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.lens_parameter_tables import FOCUS_SWEEP_CONTROLLER
from depth_fusion_ros.ros.outputs import ns_to_stamp

pytestmark = [pytest.mark.ros, pytest.mark.alone]


class FakeCamera:
    """A camera in this process: bench's own node has the parameter; images when we say so."""

    PARAMETERS = ("camera.node:=bench", "sweep.settle_frames:=1")

    def __init__(self, bench: Bench, *, refuse: bool = False) -> None:
        self.bench = bench
        self.refuse = refuse
        self.commands: list[float] = []
        listen(bench)
        self.infos = bench.ros.create_publisher(CameraInfo, INFO, 50)
        bench.ros.declare_parameter("LensPosition", 0.0)
        bench.ros.add_on_set_parameters_callback(self._set)
        self.stamp_ns = 1_700_000_000_000_000_000
        self.begin()

    def begin(self) -> None:
        """Send images until they are answered: what is sent before all have met is lost."""
        def answered() -> bool:
            self.publish()
            time.sleep(0.05)
            return bool(self.bench.find(LENS, self.stamp_ns))

        self.bench.wait(answered, "the controller")

    def _set(self, parameters) -> SetParametersResult:
        if self.refuse:
            return SetParametersResult(successful=False, reason="the lens is jammed")
        self.commands += [p.value for p in parameters]
        return SetParametersResult(successful=True)

    def image(self) -> LensState:
        """Publish one image's camera_info and return its lens state."""
        self.publish()
        return self.bench.wait_for(LENS, self.stamp_ns)

    def publish(self) -> None:
        self.stamp_ns += 40_000_000
        self.infos.publish(CameraInfo(
            header=Header(stamp=ns_to_stamp(self.stamp_ns), frame_id=FRAME_ID)))

    def images_until(self, condition) -> list[LensState]:
        states, deadline = [], time.monotonic() + 30.0
        while not (states and condition(states[-1])):
            assert time.monotonic() < deadline, self.bench.diagnostics
            states.append(self.image())
            time.sleep(0.01)
        return states


def test_without_reports_a_sweep_on_demand_has_the_commanded_focus_and_a_second_one_must_wait():
    with Bench(outputs=()) as bench, controller(
            bench, *FakeCamera.PARAMETERS, "sweep.trigger:=on_demand", "lens.f_number:=1.8",
            "focus_calibration:=calibrated", "sweep.diopters:='[0.25, 1, 2.5]'"):
        camera = FakeCamera(bench)
        before = camera.image()
        assert camera.commands == [], "nothing moves unasked"
        answer = run_sweep(bench)
        assert (answer.success, answer.message) == (True, "sweep 1")
        refused = run_sweep(bench)
        assert not refused.success and "sweep 1 is being taken (slice 1 of 3)" in refused.message
        states = camera.images_until(lambda s: s.sweep_index == 2)
        after = [camera.image() for _ in range(4)]
        values = counters(bench)
        slices = tagged([before, *states, *after])
        assert run_sweep(bench).message == "sweep 2", "done: it can be asked again"
    assert math.isnan(before.focus_diopters) and before.focus_origin == LensState.ORIGIN_UNKNOWN
    assert camera.commands[:3] == [0.25, 1.0, 2.5]
    assert {place: s.focus_diopters for place, s in slices.items()} == {
        (1, 0): 0.25, (1, 1): 1.0, (1, 2): 2.5}
    state = slices[1, 1]
    assert state.focus_origin == LensState.ORIGIN_COMMANDED
    assert state.focus_calibration == LensState.CALIBRATION_CALIBRATED
    assert state.lens_motion == LensState.MOTION_UNKNOWN
    assert (state.sweep_size, state.header.frame_id) == (3, FRAME_ID)
    assert state.f_number == pytest.approx(1.8)
    assert {s.sweep_id for s in after} == {0}
    assert values["sweeps_finished"] == "1"


def test_images_that_stop_abort_the_sweep_and_it_goes_on_when_they_return():
    with Bench(outputs=()) as bench, controller(
            bench, *FakeCamera.PARAMETERS, "sweep.timeout_s:=0.5") as process:
        camera = FakeCamera(bench)
        camera.images_until(lambda s: s.sweep_id == 1 and s.sweep_index == 1)
        # From here on nothing is sent.
        values = wait_for_counter(bench, "aborted.stalled")
        assert values["sweeps_started"] == "1", "none is begun without images"
        time.sleep(0.7)
        assert counters(bench)["sweeps_started"] == "1"
        states = camera.images_until(lambda s: s.sweep_id == 2 and s.sweep_index == 3)
        assert len(tagged(states)) == 4
    said = [line for line in process.log if "sweep 1 aborted (stalled)" in line]
    assert len(said) == 1 and "sweep.timeout_s = 0.5 s" in said[0]


def test_a_camera_that_refuses_is_named_and_asked_again():
    with Bench(outputs=()) as bench, controller(bench, *FakeCamera.PARAMETERS) as process:
        camera = FakeCamera(bench, refuse=True)
        camera.images_until(lambda _: "aborted.command_failed" in bench.diagnostics.get(
            "sweep", (b"", "", {}))[2])
        assert int(bench.diagnostics["sweep"][2]["command_failures.refused"]) >= 1
        camera.refuse = False
        camera.images_until(lambda s: s.sweep_index == 3)
        assert wait_for_counter(bench, "sweeps_finished")
    assert any("LensPosition = 0.5 of bench was refused: the lens is jammed" in line
               for line in process.log), process.log


def test_a_camera_that_is_not_there_is_counted_and_named_and_the_node_lives_on():
    with Bench(outputs=()) as bench, controller(
            bench, "camera.node:=nobody", "camera.timeout_s:=0.2") as process:
        values = wait_for_counter(bench, "command_failures.no_service", 2)
        assert values["sweeps_started"] == "0"
        answer = run_sweep(bench)
        assert not answer.success
        assert "camera.node = 'nobody'" in answer.message and "start the camera" in answer.message
        assert bench.state() == "active"
        bench.wait(lambda: bench.diagnostics["sweep"][0] == b"\x02", "an error while it is away")
    assert any("/camera/nobody/set_parameters" in line for line in process.log)


def test_a_camera_that_does_not_answer_is_given_up_after_the_timeout():
    with Bench(outputs=()) as bench, bench.node(
            "source:=constant", module="lens_state_bridge", wait_active=False,
            remap=TO_UNTAGGED) as deaf, controller(
            bench, "camera.node:=lens_state_bridge", "camera.parameter:=focus_diopters",
            "camera.timeout_s:=0.3", "sweep.trigger:=on_demand") as process:
        bench.wait(lambda: bench.state() == "active", "active")
        bench.wait(lambda: "lens_state_bridge" in bench.ros.get_node_names(), "the camera")
        deaf.send_signal(signal.SIGSTOP)
        bench.wait(lambda: run_sweep(bench).success, "discovery of its service")
        values = wait_for_counter(bench, "command_failures.timeout")
        assert values["aborted.command_failed"] == "1" and values["sweeps_finished"] == "0"
        assert run_sweep(bench).success, "and can be asked again"
    assert any("was not answered within camera.timeout_s = 0.3 s" in line for line in process.log)


def test_deactivated_it_aborts_says_nothing_and_goes_on_with_a_new_sweep_when_activated():
    with Bench(outputs=()) as bench, controller(bench, *FakeCamera.PARAMETERS):
        camera = FakeCamera(bench)
        camera.images_until(lambda s: s.sweep_id == 1)
        assert bench.change(Transition.TRANSITION_DEACTIVATE)
        assert counters(bench)["aborted.deactivated"] == "1"
        heard = len(bench.received[LENS])
        camera.publish()
        answer = run_sweep(bench)
        assert not answer.success and "not active" in answer.message
        assert len(bench.received[LENS]) == heard
        assert bench.change(Transition.TRANSITION_ACTIVATE)
        camera.begin()
        camera.images_until(lambda s: s.sweep_id == 2 and s.sweep_index == 3)
        assert bench.change(Transition.TRANSITION_ACTIVE_SHUTDOWN)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"sweep.diopters": "[2, 1]"}, "sweep positions = (2.0, 1.0) 1/m"),
     ({"sweep.diopters": "[1]"}, "two or more"),
     ({"sweep.diopters": "1, 2"}, "sweep.diopters = '1, 2': must be a list"),
     ({"sweep.far_diopters": 3.0}, "rising"),
     ({"camera.node": "a b"}, "camera.node = 'a b'"),
     ({"sweep.slices": 1}, "raise it to 2")])
def test_positions_that_are_no_sweep_are_refused_with_a_remedy(changes, words):
    problems = FOCUS_SWEEP_CONTROLLER.problems(changes)
    assert len(problems) == 1 and words in problems[0]
