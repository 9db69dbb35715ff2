"""The command `keras-vanish`."""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import sys
from collections.abc import Sequence

from keras_vanish.events import read, runs, verdict_of
from keras_vanish.journal import read_journal
from keras_vanish.table import render


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: Its arguments; those of the process by default.

    Returns:
        The exit status: 0, or 2 after an error.
    """
    arguments = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that lacks a character shows a question mark, not a traceback.
        sys.stdout.reconfigure(errors="replace")
    try:
        status: int = arguments.command(arguments)
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
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version("keras-vanish")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _report(arguments: argparse.Namespace) -> int:
    status = 0
    for name, directory in runs(arguments.log_dir).items():
        try:
            history, done = read(directory), read_journal(directory)
        except (OSError, ValueError) as error:
            # The other runs can still be shown.
            status = _failed(error)
            continue
        verdict = verdict_of(history)
        color = sys.stdout.isatty()
        print(render(history, verdict, title=name, color=color, interventions=done))
    return status


def _failed(error: Exception) -> int:
    # Paths may hold anything: no line end and no control character gets through.
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(error))
    print(f"keras-vanish: {line}", file=sys.stderr)
    return 2
