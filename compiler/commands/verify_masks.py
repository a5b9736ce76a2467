"""Claims of a report on masks: held against the masks of the compiled program, and against the pipeline."""

from collections.abc import Iterator

from torch import Tensor

from prunec.compiler.commands.verify_claims import Claim, is_own, is_this_version, pipeline_of
from prunec.compiler.commands.verify_network import is_folded
from prunec.compiler.report.masking_part import MaskingPart
from prunec.compiler.report.network_parts import AimPart
from prunec.compiler.report.report import Report
from prunec.passes.criteria.catalogue import criterion_text
from prunec.passes.patterns.eligibility import n_of_m_aim
from prunec.passes.patterns.pattern import TWO_FOUR
from prunec.passes.program import Program
from prunec.passes.sparsify import Sparsify
from prunec.passes.unknown import Unknown, known


def mask_claims(report: Report, program: Program) -> Iterator[Claim]:
    """What masking was asked for, and reached: no step after it changes which layers can be masked.

    What the last step that masks has left is there to be counted; of earlier ones only their rows tell.
    """
    pipeline, rows = pipeline_of(report), known(report.steps) or ()
    if pipeline is None or not is_own(pipeline):
        return
    steps = [(n, s.options) for n, s in enumerate(pipeline.on_dense, start=1) if isinstance(s.options, Sparsify)]
    told = report.masking if isinstance(report.masking, Unknown) else len(report.masking)
    yield Claim("masking, rows", told, len(steps))
    parts = known(report.masking) or ()
    for number, (part, (_, options)) in enumerate(zip(parts, steps, strict=False)):
        yield from _part_claims(report, f"masking.{number}", part, options)
    if is_folded(report) or not steps:
        return
    last, options = steps[-1]
    if (masks := _masks(program, options)) and options.rule.pattern.n_of_m is None:
        masked = sum(int((~mask).sum()) for mask in masks)
        if len(parts) == len(steps):
            weights = sum(mask.numel() for mask in masks)
            yield Claim(f"masking.{len(steps) - 1}", (parts[-1].weights, parts[-1].masked), (weights, masked))
        if len(rows) == len(pipeline.on_dense) + 1 and (aim := _told(rows[last].aim)) is not None:
            yield Claim(f"steps.{last}.aim.got", aim.got, float(masked))
    if len(rows) == len(pipeline.on_dense) + 1:
        yield from (claim for number, options in steps for claim in _n_of_m_claims(report, program, number, options))


def _n_of_m_claims(report: Report, program: Program, number: int, options: Sparsify) -> Iterator[Claim]:
    """The layers that a step was asked to make N:M, and those that it made so."""
    told = _told((known(report.steps) or ())[number].aim)
    if told is None or options.rule.pattern.n_of_m is None:
        return
    aim = n_of_m_aim(options.layers(program), options.rule.pattern)
    yield Claim(f"steps.{number}.aim", (told.asked, told.got), (aim.asked, aim.got))
    if is_this_version(report):
        yield Claim(f"steps.{number}.aim.reason", told.reason, aim.reason)


def _part_claims(report: Report, path: str, part: MaskingPart, options: Sparsify) -> Iterator[Claim]:
    """A row against the options of its step, and against itself."""
    rule = options.rule
    stated = (rule.pattern.text, criterion_text(options.criterion), rule.allocation)
    yield Claim(path, (part.pattern, part.criterion, part.allocation), stated)
    speed, why = rule.pattern.gain(f"-{TWO_FOUR}" in report.target)  # not parsed: the plug-in of a device may be gone
    yield Claim(f"{path}.speed", part.speed, speed)
    if is_this_version(report):
        yield Claim(f"{path}.why", part.why, why)
    weights = max(part.weights, 1)
    yield Claim(f"{path}.masked_share", part.masked_share, part.masked / weights)
    if rule.ratio_of_rest is None:
        yield Claim(f"{path}.asked_share", part.asked_share, float(rule.wanted(part.weights, 0)) / weights)


def _told(aim: AimPart | Unknown | None) -> AimPart | None:
    return None if isinstance(aim, Unknown) else aim


def _masks(program: Program, options: Sparsify) -> list[Tensor]:
    """The masks of the layers that a step masks; none where one isn't found: of a tied weight a file has one name."""
    weights = [layer.weight for layer in options.layers(program) if layer.eligible]
    masks = [program.masks[weight] for weight in weights if weight in program.masks]
    return masks if len(masks) == len(weights) else []
