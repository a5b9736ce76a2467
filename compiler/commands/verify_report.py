"""What a report claims, held against the program of its bundle and against itself."""

from torch import Tensor

from prunec.compiler.bundle.bundle_names import REPORT
from prunec.compiler.bundle.bundle_reader import Bundle, bundle_onnx
from prunec.compiler.commands.verify_calibration import calibration_claims
from prunec.compiler.commands.verify_checks import NAMED, refuse
from prunec.compiler.commands.verify_claims import figure_claims
from prunec.compiler.commands.verify_course import course_claims
from prunec.compiler.commands.verify_masks import mask_claims
from prunec.compiler.commands.verify_network import NOT_CHECKED, names_in_program, network_claims
from prunec.compiler.report.nulls import NOT_RECORDED
from prunec.passes.errors import InputError, SparsityGateError
from prunec.passes.patterns.pattern import TWO_FOUR
from prunec.passes.patterns.unit_masks import holds_mask
from prunec.passes.program import Program
from prunec.passes.two_four_words import two_four_words
from prunec.passes.unknown import Unknown, known
from prunec.runtime.onnx_sparsity import check_sparsity, weight_states


def check_claims(bundle: Bundle, program: Program) -> str:
    """Say that the figures of a report are those of the program, as far as the report has them.

    Raises:
        InputError: Some differ.
    """
    report = bundle.report
    claims = [*network_claims(bundle, program), *figure_claims(report), *course_claims(report)]
    claims += [*calibration_claims(report, program), *mask_claims(report, program)]
    told = [claim for claim in claims if not isinstance(claim.told, Unknown) and claim.computed != NOT_CHECKED]
    refuse(REPORT, [f"{c.path} is {c.told!r}, computed anew {c.computed!r}" for c in told if not c.holds])
    older = dict.fromkeys(claim.path for claim in claims if claim.told == NOT_RECORDED)
    open_ = dict.fromkeys(claim.path for claim in claims if claim.computed == NOT_CHECKED)
    lists = {"not recorded": older, "not checked, since only the dense checkpoint tells them": open_}
    words = [f"; {why}: {', '.join(paths)}" for why, paths in lists.items() if paths]
    return f"{len(told)} figures are as computed anew{''.join(words)}; not measured again: accuracies and times"


def check_two_four(bundle: Bundle, program: Program) -> str:
    """Say that the layers that the report says are 2:4 are so in the ONNX model, and no others, and all masks hold.

    Raises:
        SparsityGateError: A layer isn't 2:4 that is said to be, or a mask doesn't hold.
        InputError: A layer is 2:4 of which the report says that it isn't.
    """
    layers = check_sparsity(bundle_onnx(bundle.folder))
    exported = {entry.layer: entry for entry in layers}
    sparsities = {layer.name: known(layer.sparsity) for layer in bundle.report.layers}
    claimed = [name for name, sparsity in sparsities.items() if sparsity is not None and sparsity.valid]
    if wrong := [name for name in claimed if name not in exported or not exported[name].valid]:
        raise SparsityGateError(f"the report says 2:4, the ONNX model doesn't hold it: {', '.join(wrong[:NAMED])}")
    others = [name for name, told in sparsities.items() if told is not None and not told.valid and name in exported]
    refuse(REPORT, [f"{name} is told not to be 2:4, and is" for name in others if exported[name].valid])
    tensors, masks = program.tensors(), program.masks

    def holds(name: str, weight: Tensor) -> bool:
        return holds_mask(weight, masks[name], program.pattern_of(name))

    for name, present in names_in_program(masks, program, holds).items():
        if present is None or not holds(name, tensors[present]):
            raise SparsityGateError(f"the mask of {name} in model.pt2 doesn't hold")
    if (two_four := program.masked_to(TWO_FOUR)) and not claimed:
        raise InputError(f"model.pt2 has {len(two_four)} masks of 2:4, which the report's layers don't tell of")
    return f"{two_four_words(weight_states(layers))}, as the report says"
