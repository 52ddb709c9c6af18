"""The lens state bridge over real DDS: one state per image, and never an invented focus."""

from __future__ import annotations

import math

import pytest

from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from ros_helpers import FRAME_ID, NAMESPACE, Bench
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header, Int32

from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.lens_parameter_tables import LENS_STATE_BRIDGE, parse_numbers
from depth_fusion_ros.ros.lens_reports import FocusTable, report_from_diagnostics
from depth_fusion_ros.ros.messages import InputError
from depth_fusion_ros.ros.outputs import ns_to_stamp
from depth_fusion_ros.ros.stamp_join import StampJoin

pytestmark = pytest.mark.ros
INFO, LENS = "sweep/camera_info", "lens_state"
QUICK = ("diagnostics.period_s:=0.1", "report_timeout_s:=0.5")
FRAME_NS = 50_000_000


class Driver:
    """Publishes images' camera_info and what a driver says of the lens."""

    def __init__(self, bench: Bench, *, actuator: bool = False, source: bool = True) -> None:
        self.bench = bench
        self.infos = bench.ros.create_publisher(CameraInfo, INFO, 50)
        self.words = (bench.ros.create_publisher(Int32, "actuator", 50) if actuator else
                      bench.ros.create_publisher(DiagnosticArray, "/diagnostics", 50))
        bench.ros.create_subscription(LensState, LENS, bench.listen(LENS), 50)
        listeners = source + (not actuator)  # the bench listens to diagnostics too
        bench.wait(lambda: self.infos.get_subscription_count()
                   and bench.ros.count_publishers(LENS)
                   and self.words.get_subscription_count() >= listeners, "the bridge")
        bench.meet()
        self.stamp_ns = 1_700_000_000_000_000_000

    def image(self) -> int:
        self.stamp_ns += FRAME_NS
        self.infos.publish(CameraInfo(header=self.header(self.stamp_ns)))
        return self.stamp_ns

    def says(self, stamp_ns: int, focus: str, **more: str) -> None:
        """Fill /diagnostics as camera_ros does: no name, the image's header."""
        values = {"FocusFoM": "604", "LensPosition": focus, **more}
        status = DiagnosticStatus(hardware_id="/base/i2c/imx708@1a", values=[
            KeyValue(key=key, value=value) for key, value in values.items()])
        self.words.publish(DiagnosticArray(header=self.header(stamp_ns), status=[status]))

    @staticmethod
    def header(stamp_ns: int) -> Header:
        return Header(stamp=ns_to_stamp(stamp_ns), frame_id=FRAME_ID)


def bridge(bench: Bench, *parameters: str):
    return bench.node(*QUICK, *parameters, module="lens_state_bridge", wait_active=False)


def counters(bench: Bench) -> dict[str, str]:
    seen = bench.diagnostics_count
    bench.wait(lambda: bench.diagnostics_count >= seen + 2 and "lens state" in bench.diagnostics,
               "diagnostics")
    return bench.diagnostics["lens state"][2]


def test_each_image_gets_the_focus_that_the_camera_driver_published_for_it():
    with Bench(outputs=()) as bench, bridge(
            bench, "lens.focal_length_m:=0.00474", "lens.f_number:=1.8",
            "lens.pixel_pitch_m:=0.0000042", "diagnostics.status_name:=imx708",
            "focus_stddev_diopters:=0.1") as process:
        driver = Driver(bench)
        before = driver.image()
        driver.says(before, "1.250000", ExposureTime="29984", AnalogueGain="2.0",
                    DigitalGain="1.5")
        after = driver.stamp_ns + FRAME_NS
        driver.says(after, "2.5")  # the report may come first
        assert driver.image() == after
        first, second = (bench.wait_for(LENS, stamp) for stamp in (before, after))
        broken = [driver.image() for _ in range(4)]
        for stamp, focus in zip(broken, ("sharp", "nan", "-1.0")):
            driver.says(stamp, focus)
        # Nothing at all is said of the last one: it waits for its report in vain.
        unknown = [bench.wait_for(LENS, stamp) for stamp in broken]
        found = counters(bench)
    assert (first.focus_diopters, second.focus_diopters) == (1.25, 2.5)
    assert first.focus_origin == LensState.ORIGIN_COMMANDED
    assert first.focus_calibration == LensState.CALIBRATION_APPROXIMATE
    assert first.lens_motion == LensState.MOTION_UNKNOWN and math.isnan(first.focus_diopters_start)
    assert first.header.frame_id == FRAME_ID and first.sweep_id == 0
    assert first.focal_length_m == pytest.approx(0.00474) and first.f_number == pytest.approx(1.8)
    assert first.pixel_pitch_x_m == first.pixel_pitch_y_m == pytest.approx(4.2e-6)
    assert first.exposure_time_s == pytest.approx(0.029984) and first.gain == pytest.approx(3.0)
    assert second.exposure_time_s == 0.0 and second.gain == 0.0
    assert first.focus_diopters_stddev == pytest.approx(0.1)
    for state in unknown:
        assert math.isnan(state.focus_diopters) and math.isnan(state.focus_diopters_stddev)
        assert state.focus_origin == LensState.ORIGIN_UNKNOWN
        assert state.focus_calibration == LensState.CALIBRATION_UNKNOWN
    assert [m.header.stamp for m in bench.received[LENS]] == [
        ns_to_stamp(s) for s in (before, after, *broken)], "in the order of the images"
    assert (found["images"], found["known"]) == ("6", "2")
    assert found["bad_reports.focus_not_a_number"] == "1"
    assert found["bad_reports.focus_impossible"] == "2"
    assert found["unknown.focus_not_a_number"] == "1"
    assert found["unknown.focus_impossible"] == "2" and found["unknown.no_report"] == "1"
    assert any("LensPosition = 'sharp' of /base/i2c/imx708@1a" in line for line in process.log)


def test_a_report_belongs_to_the_image_so_many_frames_later_as_the_latency_says():
    with Bench(outputs=()) as bench, bridge(bench, "lens.latency_frames:=2"):
        driver = Driver(bench)
        stamps = []
        for index in range(5):
            stamps.append(driver.image())
            driver.says(stamps[-1], str(1.0 + index))
        states = [bench.wait_for(LENS, stamp) for stamp in stamps]
        found = counters(bench)
    assert [s.focus_diopters for s in states[2:]] == [1.0, 2.0, 3.0]
    assert all(math.isnan(s.focus_diopters) for s in states[:2])
    assert found["unknown.first_images"] == "2"


def test_a_status_of_another_device_is_not_ours():
    with Bench(outputs=()) as bench, bridge(bench, "diagnostics.status_name:=imx219"):
        driver = Driver(bench)
        stamp = driver.image()
        driver.says(stamp, "1.0")
        assert math.isnan(bench.wait_for(LENS, stamp).focus_diopters)
        assert counters(bench)["reports"] == "0"


def test_driver_steps_become_dioptres_by_the_table_and_outside_it_nothing():
    with Bench(outputs=()) as bench, bridge(
            bench, "source:=table", "table.steps:='[445, 925]'", "table.diopters:='[0, 15]'",
            "focus_origin:=encoder", "focus_calibration:=calibrated") as process:
        driver = Driver(bench, actuator=True)
        states = [bench.wait_for(LENS, driver.image())]
        for count, steps in enumerate((477, 925, 1000), 1):
            driver.words.publish(Int32(data=steps))
            bench.wait(lambda n=count: counters(bench)["reports"] == str(n), "the steps")
            states.append(bench.wait_for(LENS, driver.image()))
        found = counters(bench)
    assert [s.focus_diopters for s in states[1:3]] == pytest.approx([1.0, 15.0])
    assert [s.actuator_position for s in states] == [0, 477, 925, 1000]
    assert states[1].focus_origin == LensState.ORIGIN_ENCODER
    assert states[1].focus_calibration == LensState.CALIBRATION_CALIBRATED
    assert math.isnan(states[0].focus_diopters), "no position yet"
    assert math.isnan(states[3].focus_diopters)
    assert (found["unknown.no_position_yet"], found["bad_reports.outside_table"]) == ("1", "1")
    assert any("position = 1000 steps: must be in 445 to 925" in line for line in process.log)


def test_a_constant_focus_can_be_changed_while_the_node_runs():
    with Bench(outputs=()) as bench, bridge(
            bench, "source:=constant", "focus_diopters:=0.8", "lens.latency_frames:=3"):
        driver = Driver(bench, source=False)
        assert bench.wait_for(LENS, driver.image()).focus_diopters == pytest.approx(0.8)
        request = SetParameters.Request(
            parameters=[Parameter("focus_diopters", value=1.6).to_parameter_msg()])
        bench.call(SetParameters, f"{NAMESPACE}/lens_state_bridge/set_parameters", request)
        assert bench.wait_for(LENS, driver.image()).focus_diopters == pytest.approx(1.6)


# -- parts ----------------------------------------------------------------------------------------


def test_a_table_is_linear_between_its_points_and_may_fall():
    table = FocusTable((0.0, 100.0, 200.0), (4.0, 1.0, 0.0))
    assert [table.report(s).focus_diopters for s in (0, 50, 150, 200)] == [4.0, 2.5, 0.5, 0.0]
    with pytest.raises(InputError, match="extend table"):
        table.report(-1)


@pytest.mark.parametrize(
    ("steps", "diopters", "words"),
    [("[1, 2]", "[1]", "2 and 1 numbers"), ("", "", "at least 2"),
     ("[2, 1]", "[0, 1]", "steps must rise"), ("[1, 2, 3]", "[0, 2, 1]", "rise or fall"),
     ("[1, 2]", "[-1, 1]", ">= 0"), ("[1, x]", "[0, 1]", "table.steps = '[1, x]'"),
     ("{a: 1}", "[0, 1]", "list of finite numbers"), ("[1, .nan]", "[0, 1]", "finite")])
def test_a_table_that_is_none_is_refused_when_it_is_needed(steps, diopters, words):
    new = {"source": "table", "table.steps": steps, "table.diopters": diopters}
    problems = LENS_STATE_BRIDGE.problems(new)
    assert len(problems) == 1 and words in problems[0]
    assert LENS_STATE_BRIDGE.problems({**new, "source": "diagnostics"}) == []
    assert parse_numbers("[1, 2.5]") == (1.0, 2.5)


def test_other_peoples_diagnostics_are_passed_over():
    array = DiagnosticArray(status=[DiagnosticStatus(name="battery", values=[
        KeyValue(key="voltage", value="12")])])
    assert report_from_diagnostics(array, key="LensPosition", status_name="") is None


def test_a_join_keeps_the_order_gives_up_lost_reports_and_survives_a_bag_loop():
    join: StampJoin[str] = StampJoin(timeout_s=1.0)
    for stamp in (1, 2, 3):
        join.image(stamp, "f", now_s=0.0)
    join.report(2, "two")
    assert [(i.stamp_ns, i.report) for i in join.due(0.1, wait=True)] == [(1, None), (2, "two")]
    assert join.due(0.9, wait=True) == []
    assert [i.report for i in join.due(1.1, wait=True)] == [None]
    join.image(3, "f", 2.0)
    assert join.duplicates == 1 and join.due(9.0, wait=True) == []
    late = 10_000_000_000
    join.image(late, "f", 3.0)
    join.report(late, "late")
    join.due(3.0, wait=True)
    join.report(5, "again")
    join.image(5, "f", 4.0)
    assert [i.report for i in join.due(4.0, wait=True)] == ["again"] and join.restarts == 1
    join.image(6, "f", 5.0)
    assert [i.report for i in join.due(5.0, wait=False)] == [None], "nobody sends reports"
