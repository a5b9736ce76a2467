"""The check of the data before anything is pruned: whether the dense network works on them as it should."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from prunec.calibration.plausibility import Plausibility, can_be_judged, check_plausibility
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.step_facts import NO_DATA, StepFact
from prunec.compiler.recovery.objective import DEFAULT_OBJECTIVE, label_loss
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.stages.dense_trainings import own_training
from prunec.passes.errors import InputError
from prunec.passes.feeding import feed
from prunec.passes.unknown import Unknown, known
from prunec.passes.user_calls import defined_at

_NOT_TRAINED = Unknown("the network was never trained ([model] pretraining has 0 epochs), so that it isn't judged.")
_OF_THIS_RUN = Unknown("the run trained the network itself on these data (pretrain), so that it isn't judged.")
_OTHER_INPUTS = Unknown("the network doesn't take one input of numbers in batches of any size.")
#: Standard errors between a stated accuracy and the measured one that are still chance.
_SURE = 3.0
#: A stated accuracy is rounded.
_ROUNDED = 0.0005
_FEW = 8


def check_plausible(request: Request, dense: StepFact) -> Plausibility | Unknown:
    """Check the data, the stated accuracy and the user's loss with the dense network.

    Raises:
        InputError: They don't fit, and nothing allows that; or the loss can't be used.
    """
    if request.data is None:
        return NO_DATA
    request.settings.progress.stage("check that the data are plausible")
    _check_loss(request)
    examined = _examined(request)
    findings = _stated(request, dense)
    if not isinstance(examined, Unknown):
        findings = (*findings, *examined.findings)
        examined = replace(examined, findings=findings)
    if findings and not request.settings.allow_implausible:
        said = " ".join(f"{each[0].upper()}{each[1:]}." for each in findings)
        raise InputError(
            f"The data are implausible for this network. {said}",
            hint="Mend [data], or the checkpoint; --allow-implausible compiles nevertheless.",
        )
    return Plausibility(0, examined, findings) if isinstance(examined, Unknown) and findings else examined


def _examined(request: Request) -> Plausibility | Unknown:
    pretraining, dense, data = request.settings.pretraining, request.dense, request.data
    assert data is not None
    if pretraining is not None and not pretraining.epochs:
        return _NOT_TRAINED
    if own_training(request.pipeline) is not None:
        return _OF_THIS_RUN
    if not can_be_judged(dense, data):
        return _OTHER_INPUTS
    return check_plausibility(dense, data, request.objective.metric)


def _stated(request: Request, dense: StepFact) -> tuple[str, ...]:
    """Whether the dense accuracy is another one than the project file states, beyond its sampling error."""
    stated, measured = request.settings.stated_accuracy, known(dense.accuracy)
    if stated is None or measured is None or request.data is None:
        return ()
    error = (max(stated * (1 - stated), measured * (1 - measured)) / len(request.data.test)) ** 0.5
    if abs(measured - stated) <= _SURE * error + _ROUNDED:
        return ()
    numbers = f"{measured:.4f} on {len(request.data.test)} samples, standard error {error:.4f}"
    return (f"test data: [model] accuracy states {stated:.4f}, and the dense network's is another ({numbers})",)


def _check_loss(request: Request) -> None:
    """Let the user's loss say something of a few samples before it is needed."""
    loss, data = request.objective.loss, request.data
    if loss is DEFAULT_OBJECTIVE.loss or data is None or not request.pipeline.of(Recover):
        return
    inputs, labels = next(iter(data.train.batches(_FEW)))
    with torch.random.fork_rng(devices=[]):
        outputs = torch.utils._pytree.tree_map(_with_gradient, feed(request.dense, inputs))
        value = float(label_loss(loss, outputs, labels))
    if not math.isfinite(value):
        raise InputError(
            f"The loss function{defined_at(loss)} gave {value} for the dense network on {len(labels)} samples.",
            hint="A loss must be finite: look for logarithms and divisions of 0 in it.",
        )


def _with_gradient(leaf: object) -> object:
    is_real = isinstance(leaf, Tensor) and leaf.is_floating_point()
    return leaf.detach().requires_grad_() if is_real and isinstance(leaf, Tensor) else leaf
