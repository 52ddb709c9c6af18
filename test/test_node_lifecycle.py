"""Life of dual_pixel_depth: configure, errors, shutdown, interrupts."""

from __future__ import annotations

import signal
import threading
import weakref

import pytest

from depth_fusion_ros.ros.environment import free_domain_id, ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

import rclpy
from lifecycle_msgs.msg import Transition
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from ros_helpers import DEPTH, Bench

pytestmark = pytest.mark.ros


def test_shutdown_from_active_finalizes_and_sigint_ends_the_process_cleanly():
    with Bench() as bench, bench.node() as process:
        assert bench.change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
        assert bench.state() == "finalized"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert not any("Traceback" in line for line in process.log), process.log


def test_without_autostart_the_node_waits_and_sigint_while_working_is_clean():
    with Bench() as bench, bench.node("autostart:=false", wait_active=False) as process:
        assert bench.state() == "unconfigured"
        assert bench.change(Transition.TRANSITION_CONFIGURE)
        assert bench.state() == "inactive"
        assert bench.change(Transition.TRANSITION_ACTIVATE)
        camera = bench.camera()
        bench.wait_for(DEPTH, camera.send())
        for _ in range(3):
            camera.send()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert not any("Traceback" in line for line in process.log), process.log


def test_a_model_that_cannot_be_loaded_fails_configure_and_the_node_lives(tmp_path):
    path = tmp_path / "corrupt.json"
    path.write_bytes(b"{ not a card \x00")
    with Bench() as bench, bench.node("autostart:=false", wait_active=False,
                                      model=str(path)) as process:
        assert not bench.change(Transition.TRANSITION_CONFIGURE)
        assert bench.state() == "unconfigured"
        bench.counters()
        level, message, _ = bench.diagnostics["model"]
        assert level == b"\x02"
        assert "corrupt.json" in message
        assert any("corrupt.json" in line for line in process.log)
        assert not bench.change(Transition.TRANSITION_CONFIGURE), "and can be asked again"


def test_a_parameter_out_of_range_ends_the_process_with_a_sentence():
    with Bench() as bench, bench.node("depth.max_m:=8", wait_active=False) as process:
        assert process.wait(20) == 2
    assert any("depth.max_m = 8" in line and "write 8.0" in line for line in process.log)
    assert not any("Traceback" in line for line in process.log), process.log


@pytest.fixture
def node_here():
    """The node in this process, not spinning, for what only its inside can show."""
    from depth_fusion_ros.nodes.dual_pixel_depth import DualPixelDepth

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=free_domain_id())
    made = []

    def make(kind=DualPixelDepth, **parameters):
        values = {"autostart": False, "model.path": "closed_form", **parameters}
        node = kind(context=context, parameter_overrides=[
            Parameter(name, value=value) for name, value in values.items()])
        made.append(node)
        return node

    make.base = DualPixelDepth
    yield make
    for node in made:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_cleanup_lets_go_of_the_estimator(node_here):
    node = node_here()
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    alive = weakref.ref(node.estimator)
    node.trigger_activate()
    node.trigger_deactivate()
    assert alive() is not None, "deactivate keeps the model"
    node.trigger_cleanup()
    assert alive() is None


def test_an_error_while_activating_frees_everything_and_the_node_can_start_again(node_here):
    class Broken(node_here.base):
        broken = True

        def start_inputs(self, deliver):
            if self.broken:
                raise RuntimeError("no such topic")
            super().start_inputs(deliver)

    node = node_here(Broken)
    node.trigger_configure()
    assert node.trigger_activate() == TransitionCallbackReturn.ERROR
    assert node._state_machine.current_state[1] == "unconfigured"
    assert node.estimator is None and node.outputs is None
    assert not any(thread.name == "depth" for thread in threading.enumerate())
    node.broken = False
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS


@pytest.mark.parametrize(("model", "words"), [
    ("", ["model.path = ''", "difuse_net_s", "closed_form"]),
    ("no_such_model", ["no_such_model"]),
    ("no/such/card.json", ["no/such/card.json"]),
])
def test_a_missing_model_fails_configure_with_a_sentence(node_here, model, words):
    node = node_here(**{"model.path": model})
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert node._state_machine.current_state[1] == "unconfigured"
    for word in words:
        assert word in node.health.configure_error


def test_a_gpu_that_is_not_there_falls_back_to_the_cpu_only_where_allowed(node_here):
    import torch

    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    node = node_here(device="cuda:0")
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.health.cpu_fallback and node.health.device_name.startswith("cpu")
    node = node_here(device="cuda:0", allow_cpu_fallback=False)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "cuda" in node.health.configure_error
