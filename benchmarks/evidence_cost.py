"""Evidence of a network for many criteria at once, beside the forward and backward passes that it takes anyway.

Before each batch of the collection the bare passes run on the same batch: the program's outputs, the loss, and its
gradients by all parameters. So both see the same machine. Random images and weights, one thread, processor time; the
collection's time has everything in it, also the analysis of the network.

Run from the top folder: python -m benchmarks.evidence_cost [--images N] [--batch N] [NETWORK]
"""

import argparse
import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.coupling import _network
from benchmarks.tables import finish
from prunec.calibration import collect_evidence
from prunec.passes import Program, capture

#: Criteria whose evidence is collected together.
CRITERIA = ("taylor", "taylor-bn", "snip", "skeletonization", "magnitude-gradient", "magnitude-activation", "ccp")
#: Time of the collection over that of the passes that it needs, at most.
MOST_TIME = 1.5
_CLASSES = 1000


class _Passes:
    """The forward and backward passes of a program on batches, timed.

    Attributes:
        seconds: Processor time of the passes.
        apart: The same, with that of making the batches.
    """

    def __init__(self, program: Program, images: int, batch: int) -> None:
        self.program, self.images, self.batch = program, images, batch
        self.seconds = self.apart = 0.0
        self.parameters = [p.requires_grad_(True) for p in program.parameters().values()]

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches on which the bare passes have just run."""
        generator = torch.Generator().manual_seed(0)
        for start in range(0, self.images, self.batch):
            began = time.process_time()
            count = min(self.batch, self.images - start)
            x = torch.randn(count, 3, 224, 224, generator=generator)
            y = torch.randint(0, _CLASSES, (count,), generator=generator)
            started = time.process_time()
            torch.autograd.grad(cross_entropy(self.program(x), y), self.parameters)
            ended = time.process_time()
            self.seconds += ended - started
            self.apart += ended - began
            yield x, y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", default="tv:resnet50", help="network of the zoo (default tv:resnet50)")
    parser.add_argument("--images", type=int, default=256, help="images that are looked at (default 256)")
    parser.add_argument("--batch", type=int, default=32, help="images in a batch (default 32)")
    parser.add_argument("--criteria", default=" ".join(CRITERIA), help="their names, by default all of gradients")
    given = parser.parse_args()
    network, x = _network(given.network)
    program = capture(network, (x,))
    passes = _Passes(program.clone(), given.images, given.batch)
    names = given.criteria.split()
    started = time.process_time()
    evidence = collect_evidence(program, names, passes.batches(), cross_entropy)
    seconds = time.process_time() - started - passes.apart
    if evidence.passes != (1, 1):
        raise SystemExit(f"These criteria take {evidence.passes} passes, and what is timed beside them is (1, 1).")
    ratio = seconds / passes.seconds
    rows = [
        ("forward and backward", f"{passes.seconds:.1f}", ""),
        (f"evidence of {len(names)} criteria", f"{seconds:.1f}", f"{ratio:.2f}"),
    ]
    missed = [] if ratio <= MOST_TIME else [f"evidence takes {ratio:.2f} times the passes, the limit is {MOST_TIME}"]
    title = f"{given.network}, {given.images} images in batches of {given.batch}: {', '.join(names)}"
    finish(title, ("", "seconds", "ratio"), rows, missed)


if __name__ == "__main__":
    main()
