"""Run one node in this process until it is interrupted."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from depth_fusion_ros.ros.environment import set_dds_profile
from depth_fusion_ros.ros.parameters import ParameterError


def run_node(make: Callable[[], Any], arguments: list[str] | None) -> int:
    """Run a node until it is interrupted (SIGINT or SIGTERM).

    On Fast DDS it uses the shipped profile, see `set_dds_profile`.

    A callback that is running is let finish. Python's own answer to SIGINT, a KeyboardInterrupt at
    whatever line the main thread has reached, is switched off for the rest of the process: in the
    middle of converting a message the middleware's bindings turn it into a RuntimeError, and the
    node would end as if it had crashed.

    Returns:
        0 after a clean stop, 2 where a parameter given at start is refused.
    """
    set_dds_profile(os.environ)
    # Before rclpy's handler, which ends the spin and then calls this one.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    rclpy.init(args=arguments)
    node: Any = None
    executor = SingleThreadedExecutor()
    try:
        node = make()
        executor.add_node(node)
        executor.spin()
    except ParameterError as error:
        rclpy.logging.get_logger("depth_fusion_ros").fatal(f"refused: {error}")
        return 2
    except ExternalShutdownException:
        pass
    except Exception:
        if rclpy.ok():
            raise
        # The interrupt shut the context down under a call, which then failed.
    finally:
        if node is not None:
            node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()
    return 0
