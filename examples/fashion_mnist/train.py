"""Train a dense network on all 60,000 Fashion-MNIST images and write its checkpoint and log.

    python train.py --data DIR [--network resnet] [--epochs 12] [--seed 0] [--out model.pt]
    python train.py --data DIR --network wide_resnet --epochs 6 --out wide.pt

DIR holds the four idx.gz files (Debian: package dataset-fashion-mnist). The last epoch is kept: nothing is
chosen on the test images, which are only watched.
"""

import argparse
import csv
import gzip
import time
from pathlib import Path

import model as networks
import numpy as np
import torch
from torch import Tensor, nn

MEAN, STD = 0.2860, 0.3530


def read_idx(path: Path) -> np.ndarray:
    """Array stored in a gzipped IDX file of unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", count=rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Normalised images (N, 1, 28, 28) and labels (N,) of "train" or "t10k"."""
    images = read_idx(folder / f"{split}-images-idx3-ubyte.gz").astype(np.float32) / 255
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz").astype(np.int64)
    return torch.from_numpy((images - MEAN) / STD)[:, None], torch.from_numpy(labels)


@torch.no_grad()
def top1(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Fraction of images classified as labelled."""
    model.eval()
    hits = [model(x).argmax(1) == y for x, y in zip(images.split(1000), labels.split(1000), strict=True)]
    return torch.cat(hits).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--network", choices=("resnet", "wide_resnet"), default="resnet")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("model.pt"))
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    images, labels = load(args.data, "train")
    test_images, test_labels = load(args.data, "t10k")
    model = getattr(networks, args.network)()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    steps = args.epochs * (len(images) // 128)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rows = []
    for epoch in range(1, args.epochs + 1):
        model.train()
        started, total, learning_rate = time.perf_counter(), 0.0, schedule.get_last_lr()[0]
        for index in torch.randperm(len(images)).split(128)[: len(images) // 128]:
            flip = torch.rand(len(index), 1, 1, 1) < 0.5
            batch = images[index]
            loss = nn.functional.cross_entropy(model(torch.where(flip, batch.flip(3), batch)), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(index)
        row = {
            "epoch": epoch,
            "learning_rate": f"{learning_rate:.6g}",
            "train_loss": f"{total / len(images):.4f}",
            "test_top1": f"{top1(model, test_images, test_labels):.4f}",
            "seconds": f"{time.perf_counter() - started:.1f}",
        }
        print(row, flush=True)
        rows.append(row)
    torch.save(model.state_dict(), args.out)
    with args.out.with_suffix(".log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
