"""What happens to a run: interrupted, copied, saved, killed, and taken up again."""

from __future__ import annotations

import copy
import gc
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from fits import assert_identical, steps

from keras_vanish import GradientMonitor, read
from keras_vanish.diagnosis import verdict_of
from keras_vanish.interventions import Intervention, Reinitialization, ZScoreClipping
from keras_vanish.logs.interventions_log import append, read_interventions
from keras_vanish.logs.state import NAME

# NumPy's own, about how Keras saves variables.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

L = keras.layers
ROOT = Path(__file__).resolve().parents[2]


def data(n: int = 64) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 4)).astype("float32")
    return x, x[:, :1] * 2


def compiled(**options: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), L.Dense(4, activation="tanh"), L.Dense(1)])
    options.setdefault("optimizer", keras.optimizers.SGD(0.01, momentum=0.9))
    model.compile(loss="mse", **options)
    return model


def fit(model: Any, *callbacks: Any, epochs: int = 1, batches: int = 8, **options: Any) -> Any:
    x, y = data(8 * batches)
    options.setdefault("shuffle", False)
    return model.fit(
        x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks), **options
    )


def watching(log_dir: Path | None, every: int = 1, **options: Any) -> GradientMonitor:
    return GradientMonitor(log_dir, update_freq=every, probe=False, **options)


def same_weights(one: Any, other: Any) -> None:
    assert_identical(one.get_weights(), other.get_weights())


def as_before(model: Any) -> bool:
    """Whether nothing of ours is left in a model."""
    return "apply" not in vars(model.optimizer) and "train_step" not in vars(model)


# Between and within fits.


def test_initial_epoch_does_not_move_the_axis() -> None:
    model, monitor = compiled(), watching(None, every=4)
    fit(model, monitor, epochs=2)
    fit(model, monitor, epochs=3, initial_epoch=2)
    assert steps(monitor) == [0, 4, 8, 12, 16, 20]


def test_evaluate_predict_and_train_on_batch_in_between() -> None:
    x, y = data()
    plain, model = compiled(), compiled()
    monitor = watching(None, every=4)

    def between(model: Any) -> None:
        model.evaluate(x, y, verbose=0)
        model.predict(x, verbose=0)
        model.train_on_batch(x, y)

    for trained, callbacks in ((plain, []), (model, [monitor])):
        within = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs, trained=trained: trained.evaluate(x, y, verbose=0)
        )
        for _ in range(2):
            fit(trained, *callbacks, within, epochs=2)
            between(trained)
    same_weights(plain, model)
    # What `train_on_batch` applies is no step of the fit, but one of the optimizer's.
    assert steps(monitor) == [0, 4, 8, 12, 17, 21, 25, 29]


class Failing(keras.callbacks.Callback):
    """Raises at one batch."""

    def __init__(self, error: BaseException, at: int = 5) -> None:
        super().__init__()
        self._error, self._at = error, at

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == self._at:
            raise self._error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("another callback")])
def test_an_exception_in_another_callback(tmp_path: Path, error: BaseException) -> None:
    model, monitor = compiled(), watching(tmp_path, auto_clip=True)
    with pytest.raises(type(error)):
        fit(model, monitor, Failing(error))
    assert steps(monitor) == [d.step for d in read(tmp_path)] == list(range(6))
    model.train_on_batch(*data())
    assert as_before(model)
    fit(model, monitor, batches=2)
    assert steps(monitor) == [d.step for d in read(tmp_path)] == [*range(6), 7, 8]


def test_a_fit_in_a_thread(tmp_path: Path) -> None:
    plain, model = compiled(), compiled()
    fit(plain, epochs=2)
    monitor = watching(tmp_path)
    thread = threading.Thread(target=fit, args=(model, monitor), kwargs={"epochs": 2})
    thread.start()
    thread.join()
    same_weights(plain, model)
    assert steps(monitor) == [d.step for d in read(tmp_path)] == list(range(16))


def test_a_model_is_saved_and_loaded_while_it_trains(tmp_path: Path) -> None:
    model = compiled()
    monitor = watching(tmp_path / "logs", every=4)

    def save(epoch: int, logs: Any) -> None:
        model.save(tmp_path / "by_hand.keras")
        loaded = keras.models.load_model(tmp_path / "by_hand.keras")
        same_weights(loaded, model)
        keras.models.clone_model(model)
        copy.deepcopy(model)
        pickle.loads(pickle.dumps(model))

    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    fit(model, monitor, checkpoint, keras.callbacks.LambdaCallback(on_epoch_end=save), epochs=2)
    plain = compiled()
    fit(plain, epochs=3)
    loaded = keras.models.load_model(tmp_path / "2.keras")
    assert as_before(loaded)
    fit(loaded, monitor)
    same_weights(plain, loaded)
    assert steps(monitor) == [0, 4, 8, 12, 16, 20]


def test_nothing_is_printed_but_a_line_an_intervention(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fit(compiled(), watching(tmp_path / "a"), epochs=3)
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")
    x, y = data()
    y[20] = np.nan
    monitor = watching(tmp_path / "b", auto_clip=True)
    compiled().fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[monitor])
    output = capfd.readouterr()
    lines = [line for line in output.out.splitlines() if line]
    assert lines == [f"GradientMonitor: {act.sentence()}" for act in monitor.interventions]
    assert len(lines) == 1
    assert output.err == ""


# Copies.


def flags() -> dict[str, Any]:
    return {"auto_clip": True, "auto_lr": True, "auto_rollback": True, "auto_init": True}


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_a_monitor_is_copied(tmp_path: Path, how: str, when: str) -> None:
    copies: list[GradientMonitor] = []

    def duplicate(*_: Any) -> None:
        twin = copy.deepcopy(monitor) if how == "deepcopy" else pickle.loads(pickle.dumps(monitor))
        copies.append(twin)

    model = compiled()
    monitor = watching(tmp_path, every=4, **flags())
    if when == "before":
        duplicate()
    during = keras.callbacks.LambdaCallback(on_epoch_end=duplicate)
    fit(model, monitor, *([during] if when == "during" else []))
    if when == "after":
        duplicate()
    seen = [] if when == "before" else [0, 4]
    (twin,) = copies
    assert steps(twin) == seen
    assert [d.reading for d in twin.history] == [d.reading for d in monitor.history if seen]
    assert twin.model is None
    assert twin.log_dir == os.fspath(tmp_path / "copy_1" if how == "deepcopy" else tmp_path)
    # It takes part in a fit of its own, and the other goes on.
    fit(compiled(), twin)
    assert steps(twin) == [*seen, *([5, 9] if seen else [0, 4])]
    fit(model, monitor)
    assert steps(monitor) == [0, 4, 8, 12]
    if how == "deepcopy":
        assert [d.step for d in read(tmp_path / "copy_1")] == steps(twin)[len(seen) :]
        assert [d.step for d in read(tmp_path / "gradients")] == steps(monitor)


def test_a_copy_shares_what_is_the_users(tmp_path: Path) -> None:
    class Experiment:
        lock = threading.Lock()

        def __init__(self) -> None:
            self.own_lock = threading.Lock()

        def alert(self, diagnosis: Any) -> None:
            pass

    policy = Reinitialization(protect=[L.Dense(3)])
    alert = Experiment().alert
    monitor = GradientMonitor(tmp_path, on_diagnosis=alert, auto_init=policy)
    twin = copy.deepcopy(monitor)
    assert twin.on_diagnosis is alert
    assert twin._rescue.new_weights.policy is policy
    assert copy.deepcopy(monitor).log_dir == os.fspath(tmp_path / "copy_2")
    assert copy.deepcopy(twin).log_dir == os.fspath(tmp_path / "copy_1" / "copy_1")
    (tmp_path / "copy_3").mkdir()
    assert copy.deepcopy(monitor).log_dir == os.fspath(tmp_path / "copy_4")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_each_trial_of_keras_tuner_has_a_run(tmp_path: Path) -> None:
    keras_tuner = pytest.importorskip("keras_tuner")

    def build(hp: Any) -> Any:
        return compiled(optimizer=keras.optimizers.SGD(hp.Choice("rate", [0.01, 0.02, 0.03])))

    tuner = keras_tuner.GridSearch(
        build, objective="loss", max_trials=3, directory=tmp_path / "tuner", project_name="a"
    )
    monitor = watching(tmp_path / "logs", every=4)
    x, y = data()
    tuner.search(x, y, batch_size=8, epochs=1, verbose=0, callbacks=[monitor])
    assert monitor.history == []
    for number in (1, 2, 3):
        assert [d.step for d in read(tmp_path / "logs" / f"copy_{number}")] == [0, 4]
    rates = {read(tmp_path / "logs" / f"copy_{n}")[1].reading.global_norm for n in (1, 2, 3)}
    assert len(rates) == 3


# Taken up again.


@pytest.mark.parametrize("first", ["monitor", "backup"])
def test_an_interrupted_fit_is_taken_up_with_backup_and_restore(tmp_path: Path, first: str) -> None:
    def run(model: Any, *more: Any) -> GradientMonitor:
        monitor = watching(tmp_path / "logs", **flags())
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        callbacks = [monitor, backup] if first == "monitor" else [backup, monitor]
        try:
            fit(model, *callbacks, *more, epochs=4)
        except KeyboardInterrupt:
            assert more
        return monitor

    class StopInThirdEpoch(Failing):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._at = 4 if epoch == 2 else -1

    before = run(compiled(), StopInThirdEpoch(KeyboardInterrupt()))
    assert steps(before) == list(range(21))
    model = compiled()
    after = run(model)
    # Two of four epochs, of eight updates each, were kept; the axis goes on all the same.
    assert int(model.optimizer.iterations.numpy()) == 32
    assert steps(after) == [d.step for d in read(tmp_path / "logs")] == list(range(37))
    assert after.history[:21] == before.history
    assert after.verdict == verdict_of(after.history)
    plain = compiled()
    fit(plain, epochs=4)
    same_weights(plain, model)


def test_no_step_is_written_twice(tmp_path: Path) -> None:
    model = compiled()
    fit(model, watching(tmp_path))
    fit(model, watching(tmp_path))
    fit(model, watching(tmp_path, every=3))
    assert written_steps(tmp_path) == [*range(17), 19, 22]


def written_steps(log_dir: Path) -> list[int]:
    """The steps of all event files, as they were written; each once, each above the one before."""
    from keras_vanish.logs.decoding import readings
    from keras_vanish.logs.tfrecord import records

    files = sorted(
        (log_dir / "gradients").glob("*tfevents*"), key=lambda path: path.stat().st_mtime_ns
    )
    found = [reading.step for path in files for reading in readings(records(os.fspath(path)))]
    assert found == sorted(set(found))
    return found


def test_a_run_from_the_beginning_into_an_old_folder_begins_anew(tmp_path: Path) -> None:
    old = watching(tmp_path)
    fit(compiled(), old)
    append(os.fspath(tmp_path / "gradients"), [Intervention(3, "clip", "of the old run")])
    new = watching(tmp_path)
    model = compiled()
    fit(model, new, batches=3)
    assert steps(new) == [0, 1, 2]
    # And what takes that up knows nothing of the old one.
    third = watching(tmp_path)
    fit(model, third, batches=2)
    assert steps(third) == [0, 1, 2, 3, 4]
    assert third.history[:3] == new.history
    assert third.interventions == []


def test_what_the_flags_knew_is_taken_up(tmp_path: Path) -> None:
    options = {"auto_clip": ZScoreClipping(history=5), "auto_lr": True, "auto_rollback": True}
    x, y = data()
    y = y.copy()
    y[30] = np.nan
    model = compiled(optimizer=keras.optimizers.SGD(20.0))
    first = watching(tmp_path, **options)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[first])
    actions = [act.action for act in first.interventions]
    assert {"skip", "roll_back"} <= set(actions)
    model.save(tmp_path / "model.keras")
    factor = first._rescue.rate.factor
    assert factor < 1

    loaded = keras.models.load_model(tmp_path / "model.keras")
    second = watching(tmp_path, **options)
    fit(loaded, second, batches=1)
    assert second.interventions[: len(actions)] == first.interventions
    assert second._rescue.rate.factor == pytest.approx(factor)
    clip = second._rescue.clipping.state
    assert clip.count == first._rescue.clipping.state.count + 1
    assert second._rescue.good_states.state.restores == first._rescue.good_states.state.restores
    assert read_interventions(os.fspath(tmp_path / "gradients")) == second.interventions
    # The rate of the update that was applied is the lowered one.
    layer = second.history[-1].reading.layers[-1]
    assert layer.update_rms == pytest.approx(20 * factor * layer.gradient_rms, rel=1e-2)


def test_a_policy_of_another_kind_begins_anew(tmp_path: Path) -> None:
    model = compiled()
    fit(model, watching(tmp_path, auto_clip=True, auto_lr=True))
    other = watching(tmp_path, auto_rollback=True)
    fit(model, other, batches=1)
    assert steps(other) == list(range(9))


@pytest.mark.parametrize("spoiled", ["the state", "the flags", "the events"])
def test_what_is_spoiled_is_one_warning(tmp_path: Path, spoiled: str) -> None:
    model = compiled()
    fit(model, watching(tmp_path, auto_lr=True), batches=2)
    folder, said = tmp_path / "gradients", "could not take up the run"
    if spoiled == "the state":
        (folder / NAME).write_bytes(b"[" * 100_000)
    elif spoiled == "the flags":
        said = "could not take up what the flags knew"
        whole = (folder / NAME).read_bytes()
        (folder / NAME).write_bytes(whole.replace(b'"factor":1.0', b'"factor":-1'))
    else:
        (path,) = folder.glob("*tfevents*")
        path.write_bytes(path.read_bytes()[:-50] + b"x" * 50)
    monitor = watching(tmp_path, auto_lr=True)
    with pytest.warns(UserWarning, match=f"{said}.*begins anew") as caught:
        fit(model, monitor, batches=2)
    assert len(caught) == 1
    assert len(str(caught[0].message)) < 1000
    assert steps(monitor) == ([0, 1, 2, 3] if spoiled == "the flags" else [2, 3])


# Killed processes, one after the other in one log directory.

CHILD = """
    import os, sys
    import keras, numpy as np
    from keras_vanish import GradientMonitor

    logs, kept, seen, epochs = sys.argv[1:]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    file = open(seen, "a")

    def note(diagnosis):
        file.write(f"{diagnosis.step}\\n")
        file.flush()

    monitor = GradientMonitor(logs, update_freq=2, auto_clip=True, auto_lr=True, on_diagnosis=note)

    class Keep(keras.callbacks.Callback):
        # As BackupAndRestore, which a kill may leave with half a file.

        def on_train_begin(self, logs=None):
            if os.path.exists(kept):
                self.model.optimizer.build(self.model.trainable_variables)
                self.model.load_weights(kept)

        def on_train_batch_end(self, batch, logs=None):
            if batch % 25 == 24:
                self.model.save_weights(f"{kept}.new.weights.h5")
                os.replace(f"{kept}.new.weights.h5", kept)

    x = np.random.default_rng(0).normal(size=(400, 4)).astype("float32")
    print("begun", flush=True)
    model.fit(x, x[:, :1], batch_size=8, epochs=int(epochs), verbose=0, callbacks=[monitor, Keep()])
"""


def killed_runs(folder: Path, times: int) -> None:
    """Kills as many processes at random moments; looks at what they leave, each time."""
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    logs, kept, seen = folder / "logs", folder / "kept.weights.h5", folder / "seen"
    arguments = [os.fspath(path) for path in (logs, kept, seen)]
    moments = random.Random(0)
    for _ in range(times):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), *arguments, "100000"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "begun\n"
            before = seen.stat().st_size if seen.exists() else 0
            while not (kept.exists() and seen.stat().st_size > before):
                assert child.poll() is None
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 1.5))
            child.send_signal(signal.SIGKILL)
        noted = [int(line) for line in seen.read_text().split("\n")[:-1]]
        found = [diagnosis.step for diagnosis in read(logs)]
        assert found == written_steps(logs)
        # What was noted had been written; at most one more a process was written and not noted.
        assert set(noted) <= set(found)
        assert len(noted) == len(set(noted))
        assert len(found) - len(noted) <= times
        read_interventions(os.fspath(logs / "gradients"))
        json.loads((logs / "gradients" / NAME).read_bytes())


def test_processes_killed_at_random_moments(tmp_path: Path) -> None:
    killed_runs(tmp_path, 2)


@pytest.mark.soak
def test_fifty_processes_killed_at_random_moments(tmp_path: Path) -> None:
    killed_runs(tmp_path, 50)


# Many, and long.


def graphs() -> int:
    """How many graphs there are, but for branches, which a graph holds."""
    keras.backend.clear_session()
    gc.collect()
    found = [thing for thing in gc.get_objects() if isinstance(thing, tf.Graph)]
    return sum(not getattr(graph, "name", "").startswith("cond") for graph in found)


def many_monitors(count: int, folder: Path) -> None:
    """So many monitors one after the other: nothing is left that is not left without them."""
    fit(compiled(), watching(folder / "first", auto_clip=True), batches=3)
    before = graphs()
    for _ in range(3):
        fit(compiled(), batches=3)
    each = (graphs() - before) / 3
    before, threads = graphs(), threading.active_count()
    tasks = Path("/proc/self/task")
    all_threads = len(list(tasks.iterdir())) if tasks.exists() else 0
    left = []
    for number in range(count):
        model = compiled()
        monitor = watching(folder / str(number), every=2, auto_clip=True)
        fit(model, monitor, batches=3)
        left += [weakref.ref(model), weakref.ref(monitor)]
    del model, monitor
    # TensorFlow keeps the graph of each step, whoever made it.
    assert graphs() - before <= each * count
    assert [ref() for ref in left] == [None] * len(left)
    assert threading.active_count() == threads
    if all_threads:
        assert len(list(tasks.iterdir())) <= all_threads + 2


def test_a_few_monitors_leave_nothing(tmp_path: Path) -> None:
    many_monitors(2, tmp_path)


@pytest.mark.soak
def test_a_hundred_monitors_leave_nothing(tmp_path: Path) -> None:
    many_monitors(100, tmp_path)


@pytest.mark.soak
def test_a_hundred_thousand_steps(tmp_path: Path) -> None:
    """Memory stays flat but for the history; a recorded step takes the same on disk."""
    resident, written = [], []
    folder = tmp_path / "gradients"

    def look(epoch: int, logs: Any) -> None:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(pages * os.sysconf("SC_PAGE_SIZE"))
        written.append(sum(path.stat().st_size for path in folder.iterdir()))

    monitor = watching(tmp_path, every=100, **flags())
    x, y = data(8)
    model = compiled()
    model.fit(
        tf.data.Dataset.from_tensors((x, y)).repeat(),
        shuffle=False,
        steps_per_epoch=10_000,
        epochs=10,
        verbose=0,
        callbacks=[monitor, keras.callbacks.LambdaCallback(on_epoch_end=look)],
    )
    assert len(monitor.history) == 1000
    per_step = np.diff(written) / 100
    growth = (resident[-1] - resident[1]) / 800
    print(f"{per_step.mean():.0f} bytes written, {growth:.0f} bytes kept a recorded step")
    assert per_step.max() < 1.2 * per_step.min()
    assert growth < 50_000
    assert len(read(tmp_path)) == 1000
