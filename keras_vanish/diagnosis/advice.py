"""Verdicts in plain words, and what to try."""

from __future__ import annotations

from collections.abc import Sequence

#: By verdict and, where one is named, by the component of the score that it rests on: what is
#: said of all, and what is said of the layers to blame.
_WORDS: dict[tuple[str, str], tuple[str, str]] = {
    ("healthy", ""): ("Gradients reach the whole network.", ""),
    ("vanishing", ""): ("Gradients vanish on the way to the input.", "Starved: {layers}."),
    ("vanishing", "time"): (
        "Gradients vanish through time, and nothing is learned of the input.",
        "They reach back only so far: {layers}.",
    ),
    ("vanishing", "dead"): (
        "No gradient passes: a layer has only dead units, which are zero for every sample.",
        "Dead: {layers}.",
    ),
    ("vanishing", "silent"): (
        "No gradient at all reaches the early layers.",
        "Exactly zero: {layers}.",
    ),
    ("vanishing", "saturated"): (
        "Most activations are saturated, where their slope is nearly zero.",
        "Saturated: {layers}.",
    ),
    ("exploding", ""): ("Gradients explode.", "Too large: {layers}."),
    ("exploding", "update"): (
        "Updates are as large as the weights.",
        "Thrown about: {layers}.",
    ),
    ("nonfinite", ""): ("Gradients are NaN or infinite.", "In {layers}."),
    ("nonfinite", "variables"): (
        "Weights are NaN or infinite, and no update can mend that.",
        "In {layers}.",
    ),
    ("nonfinite", "output"): (
        "Outputs are NaN or infinite already on the way forward.",
        "First in {layers}.",
    ),
    ("nonfinite", "gradient"): (
        "Gradients are NaN or infinite, and outputs are not.",
        "First, counted from the loss, in {layers}.",
    ),
    ("unknown", ""): ("Too few layers have a gradient that tells.", "Exactly zero: {layers}."),
}

_ADVICE: dict[tuple[str, str], tuple[str, ...]] = {
    ("healthy", ""): (),
    ("vanishing", ""): (
        "Replace sigmoid and tanh in hidden layers by ReLU, GELU or another activation "
        'whose slope does not shrink, with kernel_initializer="he_normal".',
        "Put a normalisation layer (BatchNormalization, LayerNormalization) between the layers.",
        "Add residual connections, so that gradients have a short way to the early layers.",
    ),
    ("vanishing", "time"): (
        "Use LSTM or GRU in place of SimpleRNN.",
        "Shorten the sequences, or give the model a short way back in time: attention, or pooling "
        "over the outputs of all time steps (return_sequences=True).",
        'In SimpleRNN, set recurrent_initializer="orthogonal" or keras.initializers.Identity(), '
        "and clip: optimizer=Adam(global_clipnorm=1.0).",
    ),
    ("vanishing", "dead"): (
        "Lower the learning rate: one large update may have pushed all units below zero.",
        "Use LeakyReLU, ELU or GELU, which pass a gradient below zero.",
        'Check the biases and the initialisers: zeros and "he_normal" for ReLU.',
    ),
    ("vanishing", "silent"): (
        "In float16, small gradients are rounded to zero: let Keras scale the loss "
        '(auto_scale_loss=True in compile), or use the policy "mixed_bfloat16".',
        "Look for what stops a gradient: tf.stop_gradient, argmax, rounding, a cast to integers, "
        "or a kernel that stays zero.",
        "Put a normalisation layer (BatchNormalization, LayerNormalization) between the layers.",
    ),
    ("vanishing", "saturated"): (
        'Make the initial weights smaller: kernel_initializer="glorot_uniform", and standardise '
        "the inputs.",
        "Put a normalisation layer (BatchNormalization, LayerNormalization) in front of the "
        "activations.",
        "Lower the learning rate: large updates push units to their bounds.",
    ),
    ("exploding", ""): (
        "Clip: optimizer=Adam(global_clipnorm=1.0).",
        "Lower the learning rate by a factor of ten.",
        'Check the initialisers: "he_normal" for ReLU, "glorot_uniform" for tanh.',
    ),
    ("exploding", "update"): (
        "Lower the learning rate by a factor of ten.",
        "Warm it up: keras.optimizers.schedules.CosineDecay(..., warmup_target=...).",
        "Clip: optimizer=Adam(global_clipnorm=1.0).",
    ),
    ("nonfinite", ""): (
        "Look for NaN or infinite values in the inputs, the labels and the sample weights.",
        "Lower the learning rate, and clip: optimizer=Adam(global_clipnorm=1.0).",
        "Guard logarithms, square roots and divisions in custom losses and layers.",
    ),
    ("nonfinite", "variables"): (
        "Begin again from weights that are finite: keras.callbacks.ModelCheckpoint and "
        "BackupAndRestore keep some. With auto_rollback=True the monitor does.",
        "Lower the learning rate, and clip: optimizer=Adam(global_clipnorm=1.0).",
        "Look for NaN or infinite values in the inputs, the labels and the sample weights.",
    ),
    ("unknown", ""): (
        "If gradients stay exactly zero, look for ReLU units that are all dead, a loss that "
        "does not depend on the layers, or tf.stop_gradient.",
    ),
}

#: What is said first where float16 has rounded gradients to zero, whatever the verdict.
_FLOAT16 = (
    "float16 rounds gradients below 6e-8 to zero, here in {layers}: let Keras scale the loss "
    "(auto_scale_loss=True in compile, optimizer.scale_loss in a train step of your own), or use "
    'the policy "mixed_bfloat16".'
)

_MOST_NAMES = 6

#: Of a longer name, so many characters are given: it would fill the screen.
LONGEST_NAME = 500


def sentence(verdict: str, cause: str, blame: Sequence[str]) -> str:
    """A verdict in plain words.

    Args:
        verdict: The verdict of a `Diagnosis`.
        cause: Its cause.
        blame: The layers to blame; of many, the first are named.
    """
    words, of_layers = _WORDS.get((verdict, cause)) or _WORDS[verdict, ""]
    if not blame or not of_layers:
        return words
    return f"{words} {_named(of_layers, blame)}"


def advice(verdict: str, cause: str, cut: Sequence[str] = ()) -> tuple[str, ...]:
    """What to try, most useful first; empty for a healthy run whose gradients are all there.

    Args:
        verdict: The verdict of a `Diagnosis`.
        cause: Its cause.
        cut: The layers of whose gradient float16 has rounded a part to zero.
    """
    known = _ADVICE.get((verdict, cause)) or _ADVICE[verdict, ""]
    return (_named(_FLOAT16, cut), *known) if cut else known


def _named(words: str, layers: Sequence[str]) -> str:
    names = ", ".join(name[:LONGEST_NAME] for name in layers[:_MOST_NAMES])
    if len(layers) > _MOST_NAMES:
        names += f" and {len(layers) - _MOST_NAMES} more"
    # Names may hold braces.
    return words.replace("{layers}", names)
