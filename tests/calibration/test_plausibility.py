"""Mistakes in the preparation of data are named, each by its own words, and data that are right raise no alarm."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import nn

from prunec.calibration.data import Data
from prunec.calibration.first_norm import FirstNorm
from prunec.calibration.plausibility import Plausibility, check_plausibility
from prunec.calibration.relabelling import relabellings
from prunec.calibration.splits import Preprocessing, SampleSplit
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown
from prunec.runtime.evaluate import top1, top5
from tests.calibration.glyphs import (
    CLASSES,
    MEAN,
    STD,
    accuracy,
    changed,
    glyph_data,
    network,
    preprocessing,
    split_of,
    trained,
)

GIVEN, NONE = preprocessing(), preprocessing((0.0,), (1.0,))
ORDER = torch.tensor([3, 0, 1, 5, 2, 4])


def scaled(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255


def noise(images: torch.Tensor) -> torch.Tensor:
    return torch.randint(0, 256, images.shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def dots(images: torch.Tensor) -> torch.Tensor:
    """One bright pixel in each image."""
    dark, samples = torch.zeros_like(images), torch.arange(len(images))
    dark[samples, :, 5 * samples % 12, 7 * samples % 11] = 255
    return dark


#: What is done to the data -> words of the finding where a batch norm tells the scale, and where there is none.
MISTAKES = {
    "mean and std of 0..255": (
        lambda data: changed(data, given=preprocessing(tuple(255 * m for m in MEAN), tuple(255 * s for s in STD))),
        "mean and std of [data] are those of 0..255",
        "mean and std of [data] are those of 0..255",
    ),
    "not normalised": (lambda data: changed(data, given=NONE), "normalisation is missing", "normalisation is missing"),
    "normalised twice": (
        lambda data: changed(data, GIVEN),
        "normalisation is given twice",
        "normalised though they should not be, or are twice",
    ),
    "normalised twice in the data": (
        lambda data: changed(data, lambda x: GIVEN.normalised(GIVEN(x)), given=NONE),
        "were normalised twice before they were given",
        "normalisation is missing, or was done otherwise",
    ),
    "0..255 with mean and std of 0..1": (
        lambda data: changed(data, lambda x: x.float()),
        "are those of 0..1, and the data lie in 0..255",
        "are those of 0..1, and the data lie in 0..255",
    ),
    "divided by 255 twice": (
        lambda data: changed(data, lambda x: scaled(x) / 255),
        "were divided by 255 twice",
        "mean and std of [data] are those of 0..255",
    ),
    "-1..1": (
        lambda data: changed(data, given=preprocessing((0.5,), (0.5,))),
        "normalised otherwise than in training",
        "was done otherwise than in training",
    ),
    "inverted": (lambda data: changed(data, lambda x: 255 - x), "(inverted)", "(inverted)"),
    "BGR": (lambda data: changed(data, lambda x: x.flip(1)), "BGR instead of RGB", "BGR instead of RGB"),
    "transposed": (lambda data: changed(data, lambda x: x.transpose(2, 3)), "(transposed)", "(transposed)"),
    "upside down": (lambda data: changed(data, lambda x: x.flip(2)), "upside down", "upside down"),
    "mirrored": (lambda data: changed(data, lambda x: x.flip(3)), "mirrored", "mirrored"),
    "turned by 180 degrees": (lambda data: changed(data, lambda x: x.flip(2, 3)), "turned by 180", "turned by 180"),
    "turned to the right": (
        lambda data: changed(data, lambda x: x.rot90(-1, (2, 3))),
        "turned by 90 degrees to the right",
        "turned by 90 degrees to the right",
    ),
    "turned to the left": (
        lambda data: changed(data, lambda x: x.rot90(1, (2, 3))),
        "turned by 90 degrees to the left",
        "turned by 90 degrees to the left",
    ),
    "nothing but zeros": (
        lambda data: changed(data, lambda x: 0 * x),
        "all inputs are the same",
        "inputs are the same",
    ),
    "one image for all": (
        lambda data: changed(data, lambda x: x[:1].expand_as(x)),
        "all inputs are the same",
        "all inputs are the same",
    ),
    "noise": (lambda data: changed(data, noise), "the inputs are others than those of the training", ""),
    "single dots": (lambda data: changed(data, dots), "the inputs are others than those of the training", ""),
    "reshaped": (
        lambda data: changed(data, lambda x: x.permute(0, 2, 3, 1).reshape(-1, 3, 12, 12)),
        "reshape or view was used",
        "reshape or view was used",
    ),
    "off by one": (lambda data: changed(data, labels=lambda y: (y + 1) % CLASSES), "off by one: subtract 1", ""),
    "in reverse": (lambda data: changed(data, labels=lambda y: CLASSES - 1 - y), "reverse order", ""),
    "permuted": (lambda data: changed(data, labels=lambda y: ORDER[y]), "0 as 1, 1 as 2, 2 as 4, 3 as 0, 4 as 5", ""),
    "two exchanged": (
        lambda data: changed(data, labels=lambda y: torch.tensor([0, 2, 1, 3, 4, 5])[y]),
        "in another order (1 as 2, 2 as 1)",
        "",
    ),
    "labels of other samples": (lambda data: changed(data, labels=lambda y: y.roll(7)), "belong to other samples", ""),
    "one class": (
        lambda data: changed(data, labels=lambda y: torch.full_like(y, 2)),
        "all samples are of one class",
        "",
    ),
    "the training data as test data": (lambda data: replace(data, test_repeats_train=1.0), "100 % of the samples", ""),
}


@pytest.fixture(scope="module")
def data() -> Data:
    return glyph_data()


def program_of(network: nn.Module) -> Program:
    return capture(network, (torch.zeros(2, 3, 12, 12),))


@pytest.fixture(scope="module")
def program(data: Data) -> Program:
    net = trained(data, epochs=5)
    assert accuracy(net, data) > 0.95
    return program_of(net)


@pytest.fixture(scope="module")
def normless(data: Data) -> Program:
    net = trained(data, norm=False, epochs=8)
    assert accuracy(net, data) > 0.9
    return program_of(net)


def sure_of(predicted: torch.Tensor, classes: int) -> torch.Tensor:
    return 8 * nn.functional.one_hot(predicted, classes).float()


def findings(program: Program, data: Data) -> tuple[str, ...]:
    found = check_plausibility(program, data)
    assert isinstance(found, Plausibility)
    return found.findings


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(program: Program, data: Data, mistake: str) -> None:
    spoil, words, _ = MISTAKES[mistake]
    (found,) = findings(program, spoil(data))
    assert words in found
    assert found.startswith(("training and test data: ", "test data: 100 %"))


@pytest.mark.parametrize("mistake", [name for name, (_, _, words) in MISTAKES.items() if words])
def test_mistakes_are_named_without_batch_norms(normless: Program, data: Data, mistake: str) -> None:
    spoil, _, words = MISTAKES[mistake]
    assert any(words in found for found in findings(normless, spoil(data)))


def test_data_of_the_training_raise_no_alarm(program: Program, normless: Program, data: Data) -> None:
    found = check_plausibility(program, data)
    assert isinstance(found, Plausibility)
    assert found.findings == ()
    assert isinstance(found.distance, float)
    assert found.distance < 0.1
    without = check_plausibility(normless, data)
    assert isinstance(without, Plausibility)
    assert without.findings == ()
    assert isinstance(without.distance, Unknown)


def test_a_mistake_in_the_test_data_alone_is_told_of_them(program: Program, data: Data) -> None:
    spoilt = replace(data, test=changed(data, lambda x: x.flip(1)).test)
    (found,) = findings(program, spoilt)
    assert found.startswith("test data: their channels")


def test_networks_that_were_never_trained_are_not_judged(data: Data) -> None:
    found = check_plausibility(program_of(network().eval()), changed(data, given=NONE))
    assert isinstance(found, Unknown)
    assert "never trained" in found.reason


def test_labels_are_looked_at_under_top1_only(program: Program, data: Data) -> None:
    permuted = changed(data, labels=lambda y: ORDER[y])
    for metric, count in ((top1, 1), (top5, 0)):
        found = check_plausibility(program, permuted, metric)
        assert isinstance(found, Plausibility)
        assert len([each for each in found.findings if "labels" in each]) == count


def test_test_samples_that_repeat_as_training_samples_do_are_no_mistake(program: Program, data: Data) -> None:
    assert findings(program, replace(data, test_repeats_train=0.3, train_repeats=0.2)) == ()
    assert len(findings(program, replace(data, test_repeats_train=0.3, train_repeats=0.1))) == 1


@pytest.mark.parametrize(("scale", "shift"), [(0.2, 0.3), (4.0, -1.5), (255.0, 120.0)])
def test_the_fit_finds_a_change_that_was_made(program: Program, data: Data, scale: float, shift: float) -> None:
    """Against the change itself: inputs x were (x' - shift) / scale before."""
    norm = FirstNorm.of(program.inference())
    assert norm is not None
    inputs = next(iter(data.test.batches(64)))[0]
    moments = norm.moments((inputs - shift) / scale)
    assert moments is not None
    (change, distance), (_, inverted) = norm.fits(moments)
    assert inverted > 2 * distance
    assert change.scale == pytest.approx(scale, rel=0.05)
    assert change.shift == pytest.approx(shift, rel=0.01, abs=0.1)
    assert distance == pytest.approx(norm.distance(inputs), abs=0.02)


def test_moments_give_the_statistics_of_what_the_network_computes(program: Program, data: Data) -> None:
    norm = FirstNorm.of(program.inference())
    assert norm is not None
    inputs = next(iter(data.test.batches(40)))[0]
    moments = norm.moments(inputs)
    assert moments is not None
    mean, variance = moments.statistics(torch.tensor([0.5]).double(), torch.tensor([2.0]).double())
    given = norm.before(0.5 * inputs + 2.0)[:, norm.alive].double()
    assert torch.allclose(mean[0], given.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(variance[0], given.var((0, 2, 3), unbiased=False), atol=1e-4)


def test_what_is_not_affine_before_the_first_batch_norm_has_no_moments(data: Data) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(400, 6))
    norm = FirstNorm.of(program_of(net.eval()))
    assert norm is not None
    assert norm.moments(next(iter(data.test.batches(8)))[0]) is None


@pytest.mark.parametrize("classes", [2, 10, 300])
def test_random_predictions_are_explained_by_no_order_of_the_classes(classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, labels = (torch.randint(0, classes, (320,), generator=generator) for _ in range(2))
    assert list(relabellings(sure_of(predicted, classes), labels)) == []
    # Nor is a network that gives one answer always.
    assert list(relabellings(sure_of(torch.zeros_like(labels), classes), labels)) == []


def test_classes_that_are_sorted_as_text_are_named(program: Program) -> None:
    names = sorted(range(12), key=str)
    numbers = torch.arange(12).repeat(30)
    predicted = torch.tensor([names.index(number) for number in numbers.tolist()])
    assert next(iter(relabellings(sure_of(predicted, 12), numbers))).words.startswith(
        "one of the two has the classes sorted"
    )


def test_samples_are_taken_from_all_of_a_split(data: Data) -> None:
    """Sorted by class, the first samples hold one class only."""
    test = data.test
    assert isinstance(test, SampleSplit)
    labels = test.samples.labels  # type: ignore[attr-defined]
    ordered = replace(data, test=replace(test, positions=labels.argsort(stable=True)))
    program = program_of(trained(data, epochs=1))
    assert not any("one class" in found for found in findings(program, ordered))


@pytest.mark.parametrize("steps", [2, 8, 30])
def test_briefly_trained_networks_raise_no_alarm(data: Data, steps: int) -> None:
    """Their batch norms still hold much of the mean 0 and the variance 1 that they began with."""
    plain = changed(data, given=NONE)
    torch.manual_seed(steps)
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.05, 0.9)
    for inputs, labels in islice(plain.train.batches(50, epoch=0), steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    assert findings(program_of(net.eval()), plain) == ()


def tabular(inputs: torch.Tensor, labels: torch.Tensor) -> Data:
    """The same samples for training and test."""
    split = split_of(inputs.numpy(), labels.numpy(), Preprocessing(torch.zeros(1), torch.ones(1)))
    return Data(split, split, split, "0", "0", 2, tuple(inputs.shape[1:]), test_repeats_train=0.0, train_repeats=0.0)


class Threshold(nn.Module):
    """Class 1 where the mean input is above a threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.linear.weight.data = torch.tensor([[0.0] * 4, [0.25] * 4])
        self.linear.bias.data = torch.tensor([0.0, -threshold])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
def test_rare_classes_that_were_given_weight_raise_no_alarm(share: float) -> None:
    """Saying the common class only has the higher accuracy, and every change that does so lifts it."""
    torch.manual_seed(0)
    labels = (torch.rand(4000) < share).long()
    inputs = (80 + 40 * labels[:, None] + 30 * torch.randn(4000, 1) + torch.randn(4000, 4)).clamp(0, 255)
    net = Threshold(100.0).eval()
    assert float((net(inputs).argmax(1) == labels).float().mean()) < 1 - share - 0.05
    assert findings(capture(net, (inputs[:2],)), tabular(inputs, labels)) == ()


def test_a_rare_class_that_no_sample_is_of_is_no_mistake_and_one_class_in_all_is() -> None:
    torch.manual_seed(0)
    inputs, labels = 80 + 30 * torch.randn(5000, 4), torch.zeros(5000).long()
    program = capture(Threshold(100.0).eval(), (inputs[:2],))
    assert "all samples are of one class" in findings(program, tabular(inputs, labels))[0]
    labels[20] = 1
    assert findings(program, tabular(inputs, labels)) == ()


def test_inputs_that_do_not_vary_fit_no_scale(program: Program, data: Data) -> None:
    norm = FirstNorm.of(program.inference())
    assert norm is not None
    for value in (0.0, 7.0):
        assert norm.moments(torch.full((32, 3, 12, 12), value)) is None


@pytest.mark.parametrize("rate", [1e-4, 5e-4, 2e-3])
def test_networks_that_have_hardly_learned_raise_no_alarm(data: Data, rate: float) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(432, 32), nn.ReLU(), nn.Linear(32, CLASSES))
        optimizer = torch.optim.Adam(net.parameters(), rate)
        for inputs, labels in islice(data.train.batches(50, epoch=0), 10):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs), labels).backward()
            optimizer.step()
        assert findings(program_of(net.eval()), data) == ()
