"""`depth-fusion`: demo, bag, train, export, benchmark, benchmark-sweeps, stress-sweeps, study,
nav2-check, dataset-to-bag, doctor, evaluate, compare, replay-frame.

Nothing heavy (torch, rclpy) is imported before a command needs it, so --help is quick.
"""

from __future__ import annotations

import typer

from depth_fusion_ros.cli import (
    bag,
    benchmark,
    benchmark_sweeps,
    calibrate_lens,
    compare,
    dataset_to_bag,
    demo,
    doctor,
    evaluate,
    export,
    nav2_check,
    replay_frame,
    stress_sweeps,
    study,
    train,
)

app = typer.Typer(
    name="depth-fusion",
    help="Metric depth with an honest error bar, from dual pixels and from focus sweeps.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command("demo")(demo.demo_command)
app.add_typer(bag.app, name="bag")
app.command("train")(train.train_command)
app.command("export")(export.export_command)
app.command("benchmark")(benchmark.benchmark_command)
app.command("benchmark-sweeps")(benchmark_sweeps.benchmark_sweeps_command)
app.command("stress-sweeps")(stress_sweeps.stress_sweeps_command)
app.command("study")(study.study_command)
app.command("evaluate")(evaluate.evaluate_command)
app.command("compare")(compare.compare_command)
app.command("replay-frame")(replay_frame.replay_frame_command)
app.command("nav2-check")(nav2_check.nav2_check_command)
app.command("dataset-to-bag")(dataset_to_bag.dataset_to_bag_command)
app.command("calibrate-lens")(calibrate_lens.calibrate_lens_command)
app.command("doctor")(doctor.doctor_command)


def main() -> None:
    """Entry point of the `depth-fusion` executable."""
    app()


if __name__ == "__main__":
    main()
