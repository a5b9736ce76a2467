"""``prunec inspect --target``: what pruning and 2:4 would bring on a target, layer by layer, before any training."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from prunec.passes.costs.counting import work_of, workload_of
from prunec.passes.costs.workload import Work, Workload
from prunec.passes.coupling import Coupling
from prunec.passes.group_summary import macs_by_weight
from prunec.passes.patterns.eligibility import LayerEligibility, eligibility
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown, reason_of
from prunec.runtime.costs.roofline import Bound, Prediction, RooflineCosts, roofline_costs
from prunec.runtime.target import Target

#: Dense over sparse time of a layer from which it is likely to gain by 2:4.
LEAST_GAIN = 1.05


@dataclass(frozen=True)
class GroupAhead:
    """What halving the width of a prunable group would bring; None where it isn't known.

    Attributes:
        group: Name of the group.
        units: Number of units that can be removed one by one.
        halved_macs_saved: Share of the network's MACs that half of the units have.
        halved_ms_saved: Share of the network's predicted time that goes with them.
    """

    group: str
    units: int
    halved_macs_saved: float
    halved_ms_saved: float | None


@dataclass(frozen=True)
class LayerAhead:
    """Predictions for one weight, all its calls together; None where something isn't known.

    Attributes:
        layer: Path of the layer.
        operator: ATen operator.
        weight: Name of the weight.
        shape: Shape of the weight.
        group: Name of the group that its filters are in; empty where they can't be pruned.
        macs_share: Share of the network's MACs.
        predicted_ms: Predicted dense milliseconds of the layer with what follows it up to the next.
        bound: What most of them go into.
        two_four_gain: Predicted dense over sparse time; None also where the layer can't run sparse.
        likely_to_gain: Whether that gain is at least `LEAST_GAIN`; False where the layer can't run sparse.
        reason: Why it can't run sparse, or why that isn't known; empty where it can.
    """

    layer: str
    operator: str
    weight: str
    shape: tuple[int, ...]
    group: str
    macs_share: float
    predicted_ms: float | None
    bound: Bound | None
    two_four_gain: float | None
    likely_to_gain: bool | None
    reason: str


@dataclass(frozen=True)
class Ahead:
    """What a target would make of a network; None where it isn't known.

    Attributes:
        target: The target in its full form.
        batch: Number of samples at once.
        source: "roofline": every time is a prediction out of the data sheet.
        predicted_ms: Predicted milliseconds of the dense network.
        predicted_two_four_ms: The same with 2:4 in every layer that can run sparse.
        reason: Why times aren't predicted; empty where they are.
        groups: The prunable groups.
        layers: The weighted layers.
    """

    target: str
    batch: int
    source: str
    predicted_ms: float | None
    predicted_two_four_ms: float | None
    reason: str
    groups: tuple[GroupAhead, ...]
    layers: tuple[LayerAhead, ...]


def look_ahead(program: Program, coupling: Coupling, target: Target, batch: int) -> Ahead:
    """Predict the time of every layer, and what halving its group and 2:4 would bring; nothing is measured."""
    work, layers, why_dense = work_of(program), eligibility(program), why_no_two_four(target)
    sparse = frozenset(layer.weight for layer in layers if layer.eligible and not why_dense)
    costs = _costs(target, batch, frozenset())
    dense, two_four = (_predicted(each, work) for each in (costs, _costs(target, batch, sparse)))
    groups = _group_of_filters(coupling)
    macs = macs_by_weight(program)

    def ahead(layer: LayerEligibility) -> LayerAhead:
        predicted = dense.by_weight.get(layer.weight)
        can_be_sparse = layer.weight in sparse
        gain = predicted.ms / two_four.by_weight[layer.weight].ms if predicted and can_be_sparse else None
        return LayerAhead(
            layer=layer.layer,
            operator=layer.operator,
            weight=layer.weight,
            shape=layer.shape,
            group=groups.get(layer.weight, ""),
            macs_share=macs[layer.weight] / (macs.total() or 1),
            predicted_ms=None if predicted is None else predicted.ms,
            bound=None if predicted is None else predicted.bound,
            two_four_gain=gain,
            likely_to_gain=None if can_be_sparse and gain is None else (gain or 1) >= LEAST_GAIN,
            reason=why_dense or layer.reason,
        )

    return Ahead(
        target=str(target),
        batch=batch,
        source="roofline",
        predicted_ms=dense.network_ms,
        predicted_two_four_ms=two_four.network_ms if sparse else None,
        reason=reason_of(costs),
        groups=tuple(_groups(coupling, workload_of(program, coupling), costs)),
        layers=tuple(map(ahead, layers)),
    )


def _costs(target: Target, batch: int, sparse: frozenset[str]) -> RooflineCosts | Unknown:
    if target.device == "cpu":
        return Unknown(f"times on a CPU are measured: prunec measure-costs CHECKPOINT --target {target} -o costs.json.")
    return roofline_costs(target, batch, sparse)


@dataclass(frozen=True)
class _Predicted:
    """Predictions for the network and by weight; None and empty where nothing is predicted."""

    network_ms: float | None
    by_weight: Mapping[str, Prediction]


def _predicted(costs: RooflineCosts | Unknown, work: Work) -> _Predicted:
    if isinstance(costs, Unknown):
        return _Predicted(None, {})
    return _Predicted(float(costs.network_ms(work)), costs.by_weight(work))


def why_no_two_four(target: Target) -> str:
    """Why a target can't run any layer sparse; empty where it can."""
    if not target.info.sparse_tensor_cores:
        return f"{target.info.title} has no sparse tensor cores"
    return "sparse tensor cores don't compute in fp32" if target.precision == "fp32" else ""


def _group_of_filters(coupling: Coupling) -> dict[str, str]:
    """Name of the prunable group that the filters of each weight are in."""
    return {
        member.parameter: group.name
        for group in coupling.groups
        for member in group.members
        if (member.parameter, member.dim) in group.filters
    }


def _groups(coupling: Coupling, workload: Workload, costs: RooflineCosts | Unknown) -> Iterable[GroupAhead]:
    """All groups halved one by one, at once; the last row is the whole network."""
    full = np.array([group.count for group in coupling.groups], dtype=np.int64)
    work = workload.at(full - np.vstack([np.diag(full // 2), np.zeros_like(full)]))
    macs = work.macs.sum(axis=-1)
    times = None if isinstance(costs, Unknown) else costs.network_ms(work)
    for place, group in enumerate(coupling.groups):
        yield GroupAhead(
            group=group.name,
            units=group.count,
            halved_macs_saved=1 - float(macs[place] / (macs[-1] or 1)),
            halved_ms_saved=None if times is None else 1 - float(times[place] / times[-1]),
        )
