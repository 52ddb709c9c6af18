"""How a depth node is doing: the diagnostics tasks, fed by reports and counters."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

from depth_fusion_ros.estimation.estimate import ScaleState
from depth_fusion_ros.msg import FrameReport
from depth_fusion_ros.ros.accounting import Window
from depth_fusion_ros.ros.diagnostics import ERROR, OK, WARN, Diagnostics, Status
from depth_fusion_ros.ros.engine import Engine
from depth_fusion_ros.ros.input_task import InputTask
from depth_fusion_ros.ros.overload import WORDS, OverloadLadder
from depth_fusion_ros.ros.transport_task import TransportTask


class Health:
    """Collects what diagnostics show. Written by the worker and the executor thread.

    A subclass of DepthNode sets `inputs.details`.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self.active = False
        self.configure_error = ""
        self.model_id = ""
        self.licence = ""
        self.backend_name = ""
        self.device_name = ""
        self.cpu_fallback = False
        self.overload = OverloadLadder()
        self.lens_reason = ""
        self.lens_values: dict[str, Any] = {}
        self.scale_state = ScaleState.UNKNOWN
        self.anchor_facts: Callable[[], dict[str, Any]] = dict
        """Further KeyValues of the task `model`: known distances and what they correct."""
        self.cloud_facts: dict[str, Any] = {}
        """Further KeyValues of the task `depth quality`: what the newest clouds hold."""
        self.inputs = InputTask(node)
        self.transport = TransportTask(node)
        self.reset()
        self.diagnostics = Diagnostics(
            node,
            {"inputs": self._inputs, "inference": self._inference,
             "depth quality": self._quality, "lens": self._lens, "model": self._model,
             "device": self._device, "transport": self.transport.status},
            node.values["diagnostics.period_s"],
        )

    def reset(self) -> None:
        """Forget frames, times and rates."""
        self.inference_ms, self.latency_ms, self.live_latency_ms = Window(), Window(), Window()
        self._report: FrameReport | None = None
        self.inputs.reset()

    def engine(self, engine: Engine, cpu_fallback: bool) -> None:
        """Take what runs the network."""
        card = getattr(engine, "card", None)
        self.cpu_fallback = cpu_fallback
        self.model_id, self.licence = engine.model_id, card.licence if card else ""
        self.backend_name, self.device_name = engine.backend_name, engine.device_name
        self.diagnostics.hardware_id = f"{engine.model_id} on {engine.device_name}"

    def no_engine(self) -> None:
        """Forget it: nothing is loaded."""
        self.model_id = self.licence = self.backend_name = self.device_name = ""

    def frame(self, report: FrameReport, live_latency_ms: float) -> None:
        """Take the report of a published frame; live latency is NaN under bag time."""
        stages = dict(zip(report.stage_names, report.stage_ms))
        if "inference" in stages:
            self.inference_ms.add(stages["inference"])
        self.latency_ms.add(report.latency_ms)
        if math.isfinite(live_latency_ms):
            self.live_latency_ms.add(live_latency_ms)
        self.model_id = report.model_id
        self._report = report

    def lens(self, scale_state: ScaleState, reason: str, values: dict[str, Any]) -> None:
        """Take what was found out about the lens of a frame."""
        self.scale_state, self.lens_reason, self.lens_values = scale_state, reason, values

    def gpu_memory_mb(self) -> float:
        """Memory held on the accelerator, MiB; NaN without one."""
        torch = sys.modules.get("torch")
        if torch is None or not self.device_name or self.device_name.startswith("cpu"):
            return math.nan
        return float(torch.cuda.memory_allocated() / 2**20)

    # -- tasks ------------------------------------------------------------------------------------

    def _inputs(self) -> Status:
        return self.inputs.status(self.active)

    def _inference(self) -> Status:
        steps = self.overload.in_force
        values: dict[str, Any] = {
            "budget_ms": self._node.values["budget.latency_ms"],
            "degrade_level": int(max(steps, default=0)),
            "degraded": "; ".join(WORDS[step] for step in steps) or "no"}
        for name, window in (("inference", self.inference_ms), ("latency", self.latency_ms),
                             ("live_latency", self.live_latency_ms)):
            found = window.percentiles()
            for place, label in enumerate(("p50", "p95", "p99")):
                values[f"{name}_{label}_ms"] = found[place] if found else None
        if self._report is not None:
            for name, stage_ms in zip(self._report.stage_names, self._report.stage_ms):
                values[f"stage.{name}_ms"] = stage_ms
        p95, budget = values["latency_p95_ms"], values["budget_ms"]
        if steps:
            return Status(WARN, f"overloaded: {values['degraded']} (budget.latency_ms = "
                          f"{budget:g}); use a faster backend or smaller images", values)
        if p95 is not None and 0.0 < budget < p95:
            return Status(WARN, f"latency p95 {p95:.0f} ms is above budget.latency_ms "
                          f"{budget:g}: use a faster backend or smaller images", values)
        return Status(OK, "no frame yet" if p95 is None else f"latency p95 {p95:.0f} ms", values)

    def _quality(self) -> Status:
        report = self._report
        if report is None:
            return Status(OK, "no frame yet")
        shares = {"prior_only": report.prior_only_ratio, "saturated": report.saturated_ratio,
                  "textureless": report.textureless_ratio}
        values: dict[str, Any] = {"valid_percent": 100.0 * report.valid_ratio}
        values.update({f"{name}_percent": 100.0 * share for name, share in shares.items()})
        values["median_sigma_ratio"] = report.median_sigma_ratio
        values.update({f"clouds.{name}": value for name, value in self.cloud_facts.items()})
        if report.scale_state == FrameReport.SCALE_RELATIVE:
            return Status(WARN, "no metric depth: see the task lens", values)
        if report.valid_ratio < 0.05:
            worst = max(shares, key=lambda name: shares[name])
            cause = worst if shares[worst] > 0.2 else "uncertain or out of range"
            return Status(WARN, f"{100.0 * report.valid_ratio:.1f} % of the pixels have depth, "
                          f"mostly {cause}", values)
        return Status(OK, f"{100.0 * report.valid_ratio:.0f} % of the pixels have depth", values)

    def _lens(self) -> Status:
        values = {"scale_state": self.scale_state.name, **self.lens_values}
        if self.scale_state == ScaleState.RELATIVE:
            return Status(WARN, f"no metric depth: {self.lens_reason}", values)
        return Status(OK, self.lens_reason or "no frame yet", values)

    def _model(self) -> Status:
        values = {"model_id": self.model_id, "licence": self.licence or None,
                  "backend": self.backend_name,
                  "scale_state": self.scale_state.name, **self.anchor_facts()}
        if self.configure_error:
            return Status(ERROR, f"not configured: {self.configure_error}", values)
        if not self.model_id:
            return Status(OK, "no model loaded: the node is not configured", values)
        if self.scale_state == ScaleState.RELATIVE:
            return Status(WARN, "scale is RELATIVE: only relative/inverse_depth is published",
                          values)
        return Status(OK, self.model_id, values)

    def _device(self) -> Status:
        memory_mb = self.gpu_memory_mb()
        values = {"device": self.device_name,
                  "gpu_mem_mb": None if math.isnan(memory_mb) else memory_mb}
        if self.cpu_fallback:
            return Status(WARN, "running on the CPU: the device asked for is not usable", values)
        return Status(OK, self.device_name or "no model loaded", values)
