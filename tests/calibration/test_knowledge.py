"""What shows that a network knows classes, and what only looks like it."""

import math

import pytest
import torch
from torch import Tensor

from prunec.calibration.knowledge import Knowledge, by_class
from prunec.calibration.relabelling import relabellings


def answers(labels: Tensor, classes: int, accuracy: float, logit: float, seed: int = 0) -> Tensor:
    """Outputs (N, classes) of which this share is right, each with this logit for its answer."""
    generator = torch.Generator().manual_seed(seed)
    wrong = (labels + torch.randint(1, classes, labels.shape, generator=generator)) % classes
    said = torch.where(torch.rand(len(labels), generator=generator) < accuracy, labels, wrong)
    return logit * torch.nn.functional.one_hot(said, classes).float()


def test_the_loss_is_that_of_the_probabilities_in_both_forms() -> None:
    labels = torch.arange(10).repeat(20)
    logits = answers(labels, 10, 0.8, 4.0)
    for outputs in (logits, logits.softmax(1), logits.log_softmax(1)):
        knowledge = Knowledge(outputs, labels)
        assert knowledge.is_there()
        assert knowledge.sureness == pytest.approx(math.exp(4) / (math.exp(4) + 9), rel=1e-4)


@pytest.mark.parametrize("logit", [4.0, 30.0])
@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_a_network_that_knows_the_classes_knows_them_in_another_order_only(classes: int, logit: float) -> None:
    """However sure it is of its errors."""
    labels = torch.arange(classes).repeat(-(-300 // classes))
    outputs = answers(labels, classes, 0.9, logit)
    assert Knowledge(outputs, labels).is_there()
    assert not Knowledge(outputs, (labels + 1) % classes).is_there()
    assert next(iter(relabellings(outputs, (labels + 1) % classes))).words.startswith("they count from 1")


@pytest.mark.parametrize(("accuracy", "logit"), [(0.42, 0.5), (0.42, 4.0), (0.8, 0.1), (0.7, 30.0)])
def test_what_has_hardly_learned_is_explained_by_no_order_of_the_classes(accuracy: float, logit: float) -> None:
    """Few are right under the best order, or the differences are small, or what is wrong is sure of itself."""
    labels = torch.arange(3).repeat(100)[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    outputs = answers(labels, 3, accuracy, logit)
    assert list(relabellings(outputs, 2 - labels)) == []


def test_a_network_that_says_the_commonest_class_knows_nothing() -> None:
    labels = (torch.arange(400) % 20 == 0).long()
    said = Knowledge(5 * torch.tensor([1.0, 0.0]).expand(400, 2), labels)
    assert said.accuracy == said.chance == pytest.approx(0.95)
    assert by_class((said.predicted == labels).float(), labels) == 0.5
    assert not said.is_there()
    assert said.is_missing()
    # One that finds the rare class at the price of the common one isn't at chance, however low its accuracy.
    weighted = Knowledge(answers(labels, 2, 0.8, 5.0), labels)
    assert weighted.accuracy < weighted.chance
    assert not weighted.is_missing()


def test_labels_of_others_need_as_many_answers_as_there_are_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(100)
    sure = 9 * torch.nn.functional.one_hot(torch.randint(0, 3, (300,), generator=generator), 3).float()
    assert Knowledge(sure, labels).is_of_others()
    assert not Knowledge(sure / 6, labels).is_of_others()  # unsure
    few = 9 * torch.nn.functional.one_hot((torch.rand(300, generator=generator) < 0.2).long(), 3).float()
    assert not Knowledge(few, labels).is_of_others()


def test_outputs_that_are_not_finite_know_nothing() -> None:
    knowledge = Knowledge(torch.full((40, 4), torch.nan), torch.arange(40) % 4)
    assert not knowledge.is_there()
    assert not knowledge.is_of_others()
