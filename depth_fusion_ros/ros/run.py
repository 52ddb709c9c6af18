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

    Returns:
        0 after a clean stop, 2 where a parameter given at start is refused.
    """
    set_dds_profile(os.environ)
    rclpy.init(args=arguments)
    try:
        node = make()
    except ParameterError as error:
        rclpy.logging.get_logger("depth_fusion_ros").fatal(f"refused: {error}")
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        try:
            executor.spin()
        finally:
            # One interrupt arrives twice: rclpy ends the spin, then Python raises. The second one
            # must not break the tidying up.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():
            raise
        # The interrupt shut the context down under a callback, whose next call then failed.
    finally:
        node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()
    return 0
