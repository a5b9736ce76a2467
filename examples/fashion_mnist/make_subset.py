"""Write the subset of Fashion-MNIST that this example is compiled with where the whole set isn't installed.

    python make_subset.py [--data DIR] [--out fashion_mnist.npz]

The first 10,000 training and the first 5,000 test images, unchanged. DIR holds the four idx.gz files (Debian:
package dataset-fashion-mnist). The same files give the same bytes.
"""

import argparse
from pathlib import Path

import numpy as np
from train import read_idx

TRAIN_IMAGES, TEST_IMAGES = 10_000, 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("fashion_mnist.npz"))
    args = parser.parse_args()
    arrays = {}
    for name, prefix, count in (("train", "train", TRAIN_IMAGES), ("test", "t10k", TEST_IMAGES)):
        arrays[f"{name}_images"] = read_idx(args.data / f"{prefix}-images-idx3-ubyte.gz")[:count]
        arrays[f"{name}_labels"] = read_idx(args.data / f"{prefix}-labels-idx1-ubyte.gz")[:count]
    np.savez_compressed(args.out, **arrays)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
