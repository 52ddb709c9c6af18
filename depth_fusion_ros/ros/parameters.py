"""Parameters as data: one table per node gives declaration, validation and documentation.

    table = ParameterTable("dual_pixel_depth", [Parameter("depth.max_m", 8.0, ...)], checks)
    values = table.declare(node)        # descriptors with ranges; read-only where static
    table.follow(node, apply=callback)  # validate whole sets, then apply

Validation and application are two steps (as in nav2_collision_monitor): a *set* of parameters is
judged as a whole, cross-checks included, and nothing changes unless all of it is good. Every
refusal is one sentence with name, value, rule and remedy.

``python -m depth_fusion_ros.ros.parameters --write`` regenerates docs/parameters.md.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Value = bool | int | float | str
CrossCheck = Callable[[Mapping[str, Value]], str]
"""Gets all values of the node as they would be; returns '' or one sentence."""


class ParameterError(ValueError):
    """A parameter of the command line or a YAML file is refused; the text says what to do."""


@dataclass(frozen=True)
class Parameter:
    """One row of the table.

    Attributes:
        name: dotted name with the unit as suffix (``_m``, ``_s``, ``_ms``, ``_px``).
        default: also fixes the type (bool, int, float or str).
        doc: what it does, one or two sentences.
        unit: for people; '' where the value has none.
        minimum, maximum: inclusive range of a number; None where there is none.
        choices: all legal strings, or () where any string goes.
        pattern: regular expression that a string must match in full; '' = any.
        dynamic: True = may change while the node runs, False = read at configure (read-only).
    """

    name: str
    default: Value
    doc: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    dynamic: bool = False

    @property
    def type_name(self) -> str:
        """Type as ROS tools print it: bool, integer, double or string."""
        return {bool: "bool", int: "integer", float: "double", str: "string"}[type(self.default)]

    @property
    def rule(self) -> str:
        """What a legal value is, for descriptors, docs and error sentences."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.minimum is not None or self.maximum is not None:
            return f"{self.minimum:g} to {self.maximum:g}"
        return f"must match {self.pattern}" if self.pattern else ""

    def problem(self, value: Any) -> str:
        """Return '' if ``value`` is legal, else one sentence with name, value, rule, remedy."""
        said = f"{self.name} = {value!r}"
        if type(value) is not type(self.default):
            remedy = f"write {self.default!r}, for example"
            if self.type_name == "double" and type(value) is int:
                remedy = f"write {value}.0"
            return f"{said}: must be of type {self.type_name}; {remedy}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{said}: must be finite; the default is {self.default!r}"
        if self.choices and value not in self.choices:
            return f"{said}: must be {self.rule}; the default is {self.default!r}"
        if self.minimum is not None and float(value) < self.minimum:
            return f"{said}: must be {self._range}; raise it to {self.minimum:g} or more"
        if self.maximum is not None and float(value) > self.maximum:
            return f"{said}: must be {self._range}; lower it to {self.maximum:g} or less"
        if self.pattern and not re.fullmatch(self.pattern, str(value)):
            return f"{said}: {self.rule}; the default is {self.default!r}"
        return ""

    @property
    def _range(self) -> str:
        return f"in {self.minimum:g} to {self.maximum:g} {self.unit}".rstrip()


class ParameterTable:
    """All parameters of one node, in the order in which they are documented."""

    def __init__(
        self, node_name: str, rows: Iterable[Parameter], checks: Iterable[CrossCheck] = ()
    ) -> None:
        """Keep rows and cross-checks.

        Raises:
            ValueError: a name occurs twice or a default breaks its own rule.
        """
        self.node_name = node_name
        self.rows = {row.name: row for row in rows}
        self.checks = tuple(checks)
        problems = self.problems(self.defaults())
        if problems:
            raise ValueError(f"defaults of {node_name}: " + "; ".join(problems))

    def defaults(self) -> dict[str, Value]:
        """Return name -> default."""
        return {name: row.default for name, row in self.rows.items()}

    def problems(self, new: Mapping[str, Any], current: Mapping[str, Value] | None = None
                 ) -> list[str]:
        """Judge a set of values together with those that stay as they are.

        Args:
            new: values to be set; names that are not of this table are not ours to judge.
            current: values of all parameters now; defaults where not given.

        Returns:
            One sentence per broken rule; empty = the whole set is good.
        """
        ours = {name: value for name, value in new.items() if name in self.rows}
        found = [text for name, value in ours.items() if (text := self.rows[name].problem(value))]
        if found:
            return found  # cross-checks assume values that are legal by themselves
        merged = {**self.defaults(), **(current or {}), **ours}
        return [text for check in self.checks if (text := check(merged))]

    # -- the ROS side -------------------------------------------------------------------------

    def declare(self, node: Any) -> dict[str, Any]:
        """Declare every row on an rclpy node and return the values in force.

        Raises:
            ParameterError: a value given at start breaks a rule; the text has all sentences.
        """
        from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException

        problems = []
        for row in self.rows.values():
            try:
                node.declare_parameter(row.name, row.default, _descriptor(row))
            except (InvalidParameterTypeException, InvalidParameterValueException):
                override = node._parameter_overrides.get(row.name)
                problems.append(row.problem(override.value if override else None))
        if not problems:
            problems = self.problems(self.values(node))
        if problems:
            raise ParameterError("; ".join(problems))
        return self.values(node)

    def values(self, node: Any) -> dict[str, Any]:
        """Return name -> value now, of the rows declared on ``node``."""
        return {name: node.get_parameter(name).value for name in self.rows}

    def follow(self, node: Any, apply: Callable[[dict[str, Any]], None]) -> None:
        """Refuse bad sets as a whole; after a good one call ``apply`` with all values."""
        from rcl_interfaces.msg import SetParametersResult

        def validate(parameters: list[Any]) -> SetParametersResult:
            new = {parameter.name: parameter.value for parameter in parameters}
            problems = self.problems(new, self.values(node))
            return SetParametersResult(successful=not problems, reason="; ".join(problems))

        def changed(parameters: list[Any]) -> None:
            if any(parameter.name in self.rows for parameter in parameters):
                apply(self.values(node))

        node.add_on_set_parameters_callback(validate)
        node.add_post_set_parameters_callback(changed)

    def markdown(self) -> str:
        """Return the documentation of the table as a markdown section."""
        lines = [
            f"## `{self.node_name}`",
            "",
            "| name | type | default | unit | rule | changes | what it does |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in self.rows.values():
            default = str(row.default).lower() if isinstance(row.default, bool) else row.default
            cells = (
                f"`{row.name}`", row.type_name, f"`{default}`" if default != "" else "`''`",
                row.unit, row.rule, "at run time" if row.dynamic else "at start", row.doc,
            )
            lines.append("| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |")
        return "\n".join(lines) + "\n"


def _descriptor(row: Parameter) -> Any:
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    descriptor = ParameterDescriptor(
        name=row.name,
        description=f"{row.doc} [{row.unit}]" if row.unit else row.doc,
        additional_constraints=row.rule if row.choices or row.pattern else "",
        read_only=not row.dynamic,
    )
    if row.minimum is not None and row.maximum is not None:
        if row.type_name == "double":
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(row.minimum), to_value=float(row.maximum))
            ]
        elif row.type_name == "integer":
            descriptor.integer_range = [
                IntegerRange(from_value=int(row.minimum), to_value=int(row.maximum))
            ]
    return descriptor


def documentation() -> str:
    """Return the whole text of docs/parameters.md."""
    from depth_fusion_ros.ros.parameter_tables import TABLES

    head = (
        "# Parameters\n\n"
        "Generated from `depth_fusion_ros/ros/parameter_tables.py` by\n"
        "`python -m depth_fusion_ros.ros.parameters --write`; do not edit by hand.\n\n"
        "*at start* = read once, read-only afterwards; *at run time* = `ros2 param set` works "
        "while the node runs.\nA set of parameters is accepted or refused as a whole "
        "(`set_parameters_atomically`), with one sentence per\nbroken rule. Doubles need a "
        "decimal point in YAML (`8.0`, not `8`).\n\n"
        "Publishers also take `qos_overrides.<topic>.publisher.{reliability,history,depth}`.\n\n"
    )
    return head + "\n".join(table.markdown() for table in TABLES)


def main(arguments: list[str]) -> int:
    """Print the documentation, or write it with ``--write [PATH]``."""
    if arguments[:1] == ["--write"]:
        path = Path(arguments[1] if len(arguments) > 1 else "docs/parameters.md")
        path.write_text(documentation(), encoding="utf-8")
        return 0
    print(documentation(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
