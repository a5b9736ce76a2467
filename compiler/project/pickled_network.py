"""A pickled network: which of those in a file, out of its wrappers, and ready to be trained."""

from pathlib import Path

from torch import nn
from torch.optim.swa_utils import AveragedModel

from prunec.compiler.project.stored_weights import Content
from prunec.compiler.project.weights_choice import asked_for, check_found, choice_notes, choose, source_notes

#: Attribute of a wrapper that holds the network. A compiled module's class is private to torch, its attribute isn't.
_WRAPPED = {nn.DataParallel: "module", nn.parallel.DistributedDataParallel: "module", AveragedModel: "module"}
_COMPILED = "_orig_mod"


def take_network(content: Content, path: Path, asked: str = "") -> tuple[nn.Module, tuple[str, ...]]:
    """The network of a file that holds some, and notes on it.

    Args:
        content: What the file holds.
        path: The file, for messages.
        asked: Name of the network, where the user said which (`asked_for`).

    Raises:
        InputError: It holds several, or none of the name that is asked for.
    """
    known = {where or ".": network for where, network in content.networks.items()}
    names = asked_for(list(known), asked)
    check_found(names, asked, path, list(known))
    distinct = list({id(known[name]): name for name in reversed(names)}.values())[::-1]
    chosen = choose(distinct, path)
    home = chosen.removeprefix(".") if chosen == "." else chosen
    unused = [key for key in content.keys if key != home.partition(".")[0]] if home else []
    module, more = unwrapped(known[chosen])
    notes = [*source_notes(home, unused), *choice_notes(chosen, distinct), *more, *_trainable(module)]
    return module, tuple(notes)


def unwrapped(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """A network out of the wrappers of parallel training, averaging and torch.compile, with a note on each."""
    attribute = next((name for kind, name in _WRAPPED.items() if isinstance(module, kind)), None)
    attribute = _COMPILED if attribute is None and _COMPILED in dict(module.named_children()) else attribute
    if attribute is None:
        return module, ()
    inner, notes = unwrapped(module.get_submodule(attribute))
    return inner, (f"The network was taken out of its {type(module).__name__} wrapper.", *notes)


def _trainable(module: nn.Module) -> list[str]:
    """Let the parameters of a network be trained none of which is: copies for averages are saved like that."""
    parameters = [each for each in module.parameters() if each.is_floating_point()]
    if not parameters or any(each.requires_grad for each in parameters):
        return []
    for each in parameters:
        each.requires_grad_(True)
    return ["No parameter of the stored network was to be trained, as in averaged copies; all of them are here."]
