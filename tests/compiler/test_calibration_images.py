"""The images that a calibration looks at: all that there are, up to those that are asked for."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from prunec.calibration.samples import ArraySamples
from prunec.calibration.splits import Preprocessing, SampleSplit
from prunec.compiler.stages.calibration_images import CalibrationImages
from prunec.passes import capture
from prunec.passes.feeding import sample_count


class Batched(nn.Module):
    """A network for any batch, or for one alone."""

    def __init__(self, fixed: int | None) -> None:
        super().__init__()
        self.layer, self.fixed = nn.Conv2d(1, 2, 3), fixed

    def forward(self, x: Tensor) -> Tensor:
        if self.fixed:
            x = x.reshape(self.fixed, 1, 4, 4)
        y: Tensor = self.layer(x)
        return y


def images_of(fixed: int | None, there: int, samples: int, seed: int = 0) -> tuple[CalibrationImages, Tensor]:
    program = capture(Batched(fixed).eval(), (torch.randn(fixed or 2, 1, 4, 4),)).inference()
    source = ArraySamples(torch.randn(there, 1, 4, 4), torch.zeros(there, dtype=torch.long))
    split = SampleSplit(source, torch.arange(there), Preprocessing(torch.zeros(1), torch.ones(1)))
    data = SimpleNamespace(request=SimpleNamespace(data=SimpleNamespace(train=split)), seed=seed)
    images = CalibrationImages(program, data, samples)  # type: ignore[arg-type]
    return images, torch.cat([batch for batch in images if isinstance(batch, Tensor)])


@pytest.mark.parametrize(
    ("fixed", "there", "samples", "looked_at"),
    [(None, 50, 256, 50), (None, 63, 256, 63), (None, 70, 33, 33), (None, 5, 256, 5), (4, 11, 256, 8), (4, 44, 10, 8)],
)
def test_all_images_that_can_run_are_looked_at(fixed: int | None, there: int, samples: int, looked_at: int) -> None:
    images, seen = images_of(fixed, there, samples)
    assert (images.count, len(seen), images.there) == (looked_at, looked_at, min(there, samples))
    assert sum(map(sample_count, images)) == looked_at, "they can be read again"
    assert len(seen.flatten(1).unique(dim=0)) == looked_at, "none of them twice"
