"""Torchvision, which the extra ``vision`` installs."""

from typing import Any

from prunec.passes.errors import MissingDependencyError, first_line


def torchvision(what: str) -> Any:
    """The package with its data sets and ``transforms.v2``.

    Args:
        what: Subject of the error message with its verb, such as "Image folders are read by functions that are".

    Raises:
        MissingDependencyError: It isn't installed, or doesn't fit this build of torch.
    """
    try:
        import torchvision.transforms.v2  # type: ignore[import-untyped]  # brings its data sets along
    except (ImportError, RuntimeError) as error:  # built for another torch, it fails when it registers its operators
        raise MissingDependencyError(
            f"{what} torchvision's, which can't be loaded: {first_line(error)}",
            hint="pip install 'prunec[vision]', with the build of torchvision that belongs to this torch.",
        ) from error
    return torchvision
