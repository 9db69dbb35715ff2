"""The code in README, in the pages and in docstrings runs, and the commands there exist."""

from __future__ import annotations

import argparse
import configparser
import inspect
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import keras_vanish
import keras_vanish.interventions
from keras_vanish.cli import _parser

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]}
COMMANDS = {**PAGES, "CONTRIBUTING.md": ROOT / "CONTRIBUTING.md"}

# What a reader has already: a model with a recurrent layer, and data.
MODEL = """
import keras
import numpy as np

x = np.random.default_rng(0).normal(size=(64, 6, 4)).astype(np.float32)
y = np.arange(64) % 3


def build_model():
    return keras.Sequential(
        [keras.Input((6, 4)), keras.layers.LSTM(8, name="lstm"), keras.layers.Dense(3)]
    )


model = build_model()
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
"""

# And a training loop.
LOOP = """
import tensorflow as tf

optimizer = keras.optimizers.Adam()
batches = [(x[:32], y[:32]), (x[32:], y[32:])]


@tf.function
def train_step(x, y):
    with tf.GradientTape() as tape:
        loss = model.compute_loss(y=y, y_pred=model(x, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
"""

IMPORT = "\nfrom keras_vanish import GradientMonitor\n"

#: What stands in front of a page's blocks, which share their names.
PREAMBLES = {
    "README.md": MODEL + LOOP,
    "index.md": MODEL + LOOP,
    "rescue.md": MODEL + IMPORT,
    "distribution.md": MODEL + IMPORT + "import tensorflow as tf\ny = np.eye(3)[y]\n",
}

#: What a page's blocks only prepare is tried after them.
AFTERWARDS = {
    "README.md": """
        assert [d.step for d in history] == [d.step for d in keras_vanish.read("logs")]
        model.fit(x, y, callbacks=callbacks)
        with open("training.csv") as file:
            assert "vanishing_score" in file.readline()

        monitor = GradientMonitor(None, on_diagnosis=stop)
        model.fit(x, y, callbacks=[monitor])
        assert monitor.verdict in ("unknown", "healthy") or model.stop_training
    """
}

#: In front of the blocks of each docstring.
OF_DOCSTRINGS = MODEL + LOOP + IMPORT


def python_blocks(text: str) -> list[tuple[int, str]]:
    """Each block and the number of lines before it."""
    found = re.finditer(r"^( *)```python\n(.*?)^\1```$", text, re.M | re.S)
    return [(text.count("\n", 0, block.start(2)), textwrap.dedent(block[2])) for block in found]


def docstrings() -> Iterator[tuple[str, str]]:
    """Of all public objects and of their public members."""
    for module in (keras_vanish, keras_vanish.interventions):
        for name in module.__all__:
            value = getattr(module, name)
            yield f"{module.__name__}.{name}", inspect.getdoc(value) or ""
            for member, of_class in vars(value).items() if inspect.isclass(value) else ():
                if not member.startswith("_"):
                    yield f"{module.__name__}.{name}.{member}", inspect.getdoc(of_class) or ""


EXAMPLES = {name: text for name, text in docstrings() if "```" in text}


def run(blocks: list[tuple[int, str]], preamble: str, where: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(preamble, "<preamble>", "exec"), names)
    for before, block in blocks:
        # A traceback shows the line of the page.
        exec(compile("\n" * before + block, where, "exec"), names)
    return names


@pytest.mark.parametrize("page", [name for name in PAGES if "```python" in PAGES[name].read_text()])
def test_the_blocks_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(python_blocks(PAGES[page].read_text()), PREAMBLES[page], str(PAGES[page]))
    exec(compile(textwrap.dedent(AFTERWARDS.get(page, "")), "<afterwards>", "exec"), names)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_a_docstring_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(python_blocks(EXAMPLES[name]), OF_DOCSTRINGS, name)


def test_each_block_is_found() -> None:
    for page, path in PAGES.items():
        assert len(python_blocks(path.read_text())) == path.read_text().count("```python"), page
    sources = [path.read_text() for path in (ROOT / "keras_vanish").rglob("*.py")]
    examples = sum(len(python_blocks(text)) for text in EXAMPLES.values())
    assert examples == sum(text.count("```python") for text in sources) > 0
    # An example is one that is run, and not one in the shape of a session.
    assert not any(re.search(r"^ *>>> ", text, re.M) for text in sources)
    assert set(PREAMBLES) | set(AFTERWARDS) <= set(PAGES)


# Commands: whole lines of the blocks that are not Python, and those within sentences.


def commands(program: str) -> list[tuple[str, list[str]]]:
    """Each page that names a program, and what follows it there."""
    found = []
    for page, path in COMMANDS.items():
        text = path.read_text()
        # Quotes of TF_CONFIG='...' may enclose lines.
        blocks = re.findall(r"^```\n(.*?)^```$", text, re.M | re.S)
        lines = re.findall(rf"^(?:.*' )?{program} .*$", "\n".join(blocks), re.M)
        text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
        inline = re.findall(r"`([^`]+)`", text)
        # Over the end of a line, too.
        inline = [" ".join(code.split()) for code in inline]
        for line in [*lines, *inline]:
            found += [
                (page, shlex.split(rest, comments=True))
                for rest in re.findall(rf"^(?:.*' )?{program} (.+)$", line)
            ]
    assert found
    return found


MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.mark.parametrize(("page", "arguments"), commands("make"))
def test_targets_of_make_exist(page: str, arguments: list[str]) -> None:
    for argument in arguments:
        variable, is_variable, _ = argument.partition("=")
        if is_variable:
            assert re.search(rf"\$\(({variable})\)|^{variable} \?=", MAKEFILE, re.M)
        else:
            assert re.search(rf"^{argument}:.* ## ", MAKEFILE, re.M)


def parsers() -> dict[str, argparse.ArgumentParser]:
    """By subcommand."""
    (subparsers,) = (
        action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    return dict(subparsers.choices)


@pytest.mark.parametrize(("page", "arguments"), commands("keras-vanish"))
def test_subcommands_exist(page: str, arguments: list[str]) -> None:
    name, *rest = arguments
    parser = parsers()[name]
    needed = [action for action in parser._actions if action.required]
    if not rest:
        rest = ["logs"] * len(needed)
    parsed = _parser().parse_args([name, *rest])
    assert callable(parsed.command)


#: Options that a page names by themselves, of programs that are not ours.
OTHERS_OPTIONS = {
    "--samples_per_plugin": "tensorboard",
    "--load_fast": "tensorboard",
    "--strict": "mkdocs",
    "--quiet": "mkdocs",
}


@pytest.mark.parametrize("page", COMMANDS)
def test_options_exist(page: str) -> None:
    ours = {option for parser in parsers().values() for option in parser._option_string_actions}
    scripts = {word for path in ROOT.glob("benchmarks/*.py") for word in words(path)}
    named = re.findall(r"`(--[\w-]+)[^`]*`", COMMANDS[page].read_text())
    assert set(named) <= ours | set(OTHERS_OPTIONS) | scripts


def words(path: Path) -> set[str]:
    """The options that a script's text defines."""
    return set(re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", path.read_text()))


@pytest.mark.parametrize(("page", "arguments"), commands("python"))
def test_scripts_exist_and_have_the_options(page: str, arguments: list[str]) -> None:
    script, *options = arguments
    assert (ROOT / script).is_file()
    known = words(ROOT / script)
    assert {option for option in options if option.startswith("--")} <= known


@pytest.mark.parametrize(("page", "arguments"), commands("pip"))
def test_extras_exist(page: str, arguments: list[str]) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    action, requirement = arguments
    named = re.fullmatch(r"keras-vanish(?:\[(.+)\])?", requirement)
    assert action == "install"
    assert named is not None
    assert set((named[1] or "test").split(",")) <= set(setup["options.extras_require"])
