"""What `keras-vanish demo` runs: a network whose gradients vanish, and one whose do not."""

import argparse
from pathlib import Path

from keras_vanish.demo import run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logdir", type=Path, default=Path("logs"), help="for TensorBoard")
    run(parser.parse_args().logdir)


if __name__ == "__main__":
    main()
