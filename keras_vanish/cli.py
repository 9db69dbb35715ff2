"""The command `keras-vanish`."""

from __future__ import annotations

import argparse
import codecs
import importlib.metadata
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_vanish.diagnosis import Diagnosis, verdict_of
from keras_vanish.interventions import Intervention
from keras_vanish.logs.events import read
from keras_vanish.logs.interventions_log import read_interventions
from keras_vanish.logs.run_folders import runs
from keras_vanish.report import doctor
from keras_vanish.report.table import render
from keras_vanish.report.terminal import stand_in

#: The exit status that a shell reports for a program whose output nobody reads any more.
_NOBODY_READS = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: The arguments of the command. By default, they are those of the process.

    Returns:
        The exit status: 0 after success, and 2 after an error. `doctor` returns 1 if a run is ill.
        The status is 141 if nobody reads the output to its end, as with `| head`.
    """
    arguments = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # If the terminal lacks a character, another one is shown instead of a traceback.
        codecs.register_error("keras_vanish.stand_in", stand_in)
        sys.stdout.reconfigure(errors="keras_vanish.stand_in")
    try:
        status: int = arguments.command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at exit, which must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOBODY_READS
    except (OSError, ValueError) as error:
        return _failed(error)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-vanish", description="Gradients of Keras models, as GradientMonitor saw them."
    )
    parser.add_argument("--version", action="version", version=f"keras-vanish {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    report = commands.add_parser("report", help="print the runs in a log directory as tables")
    report.add_argument("log_dir", metavar="LOGDIR", help="the log_dir of GradientMonitor")
    report.set_defaults(command=_report)

    examine = commands.add_parser(
        "doctor",
        help="say what ails the runs in a log directory, and what to try",
        description="Says what ails the runs in a log directory, since when, and what to try.",
        epilog="The exit status is 0 where no run is ill (also where a verdict is still unknown), "
        "1 where the verdict on one is vanishing, exploding or nonfinite, 2 where one could not "
        "be read.",
    )
    examine.add_argument("log_dir", metavar="LOGDIR", help="the log_dir of GradientMonitor")
    examine.add_argument("--json", action="store_true", help="print JSON, for scripts")
    examine.set_defaults(command=_doctor)

    demo = commands.add_parser(
        "demo",
        help="train a model whose gradients vanish, and one whose do not",
        description="Trains two networks on scikit-learn's digits, one whose gradients vanish "
        "and one whose do not, in about a minute, and leaves their logs for TensorBoard.",
    )
    demo.add_argument(
        "--log-dir", type=Path, default=Path("logs"), metavar="LOGDIR", help="for the logs"
    )
    demo.set_defaults(command=_demo)
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version("keras-vanish")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


_Found = tuple[list[Diagnosis], list[Intervention]]


def _runs(log_dir: str) -> Iterator[tuple[str, _Found | Exception]]:
    """Yields the name of each run with its history and interventions, or the error of reading it.

    An unreadable run does not hide the other runs.
    """
    for name, directory in runs(log_dir).items():
        try:
            yield name, (read(directory), read_interventions(directory))
        except (OSError, ValueError) as error:
            yield name, error


def _report(arguments: argparse.Namespace) -> int:
    status, color = 0, sys.stdout.isatty()
    for name, found in _runs(arguments.log_dir):
        if isinstance(found, Exception):
            status = _failed(found)
            continue
        history, done = found
        verdict = verdict_of(history)
        print(render(history, verdict, title=name, color=color, interventions=done))
    return status


def _doctor(arguments: argparse.Namespace) -> int:
    status, told = 0, dict[str, Any]()
    for name, found in _runs(arguments.log_dir):
        if isinstance(found, Exception):
            status, told[name] = _failed(found), {"error": str(found)}
            continue
        history, done = found
        told[name] = doctor.findings(history, done)
        status = max(status, int(told[name]["verdict"] in doctor.ILL))
        if not arguments.json:
            print(doctor.render(history, done, title=name, color=sys.stdout.isatty()))
    if arguments.json:
        print(json.dumps({"status": status, "runs": told}, indent=2))
    return status


def _demo(arguments: argparse.Namespace) -> int:
    try:
        # Without TensorFlow, this import fails and says what to install.
        from keras_vanish import GradientMonitor  # noqa: F401
        from keras_vanish.demo import run
    except ImportError as error:
        return _failed(error)
    run(arguments.log_dir)
    return 0


def _failed(error: Exception) -> int:
    # Paths may contain any character. Line ends and control characters are escaped.
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(error))
    print(f"keras-vanish: {line}", file=sys.stderr)
    return 2
