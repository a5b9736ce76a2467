"""[model] of prunec.toml: the network, its inputs and outputs, and its own training."""

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    field_validator,
    model_validator,
)

from prunec.compiler.recovery.optimizer_kinds import check_optimizer
from prunec.compiler.recovery.schedules import Schedule, parse_schedule, untrained
from prunec.passes.errors import UsageError
from prunec.passes.network_inputs import MAX_SIZE, WHOLE, NetworkInput, VaryingSize, check_samples_size
from prunec.passes.size_range import SizeRange

SampleShape = tuple[StrictInt, ...]
#: Inputs that a network may have, and dimensions that an input may have.
_MOST_INPUTS, _MOST_DIMENSIONS = 256, 16


def checked_reference(text: str) -> str:
    """``module:callable``, or ValueError."""
    module, colon, name = text.partition(":")
    if not colon or not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"{text!r} is not of the form module:callable")
    return text


Reference = Annotated[str, AfterValidator(checked_reference)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class PretrainingSection(Section):
    """[model] pretraining: how the dense network was trained.

    Attributes:
        epochs: Passes over the training data, fractions allowed; 0 for a network with random weights.
        schedule: Learning rate over the epochs, as text (`parse_schedule`); empty for no epochs.
        optimizer: "sgd", "adam", "adamw" or ``module:callable``, relative to the file; None where it isn't known.
    """

    epochs: StrictInt | StrictFloat = Field(ge=0, allow_inf_nan=False)
    schedule: str = ""
    optimizer: str | None = None

    @model_validator(mode="after")
    def _readable(self) -> typing.Self:
        if bool(self.schedule) != bool(self.epochs):
            raise ValueError("a schedule belongs to epochs, and none to none of them")
        if self.optimizer is not None and not self.epochs:
            raise ValueError("an optimizer belongs to epochs, and none to none of them")
        try:
            self.learning_rates()
            if self.optimizer is not None:
                check_optimizer(self.optimizer)
        except UsageError as error:
            raise ValueError(error.message.removesuffix(".")) from error
        return self

    def learning_rates(self) -> Schedule:
        """The schedule that the text gives."""
        return parse_schedule(self.schedule, epochs=self.epochs) if self.epochs else untrained()


class InputSection(Section):
    """One of [model] inputs.

    Attributes:
        name: The argument of ``forward()`` that it is.
        shape: Sizes of one sample, without the batch; a dimension that varies is its name, as [model] dims has it.
        dtype: The type of its values.
        low: The least value that is drawn; 0 by default for whole numbers with a ``high``.
        high: The bound of the values that are drawn, itself not among them.
        optional: Whether data may leave it out; ones stand for it then.
        example: A ``.npy`` file of samples, relative to the project file, from which it is taken and not drawn.
        batch: Whether samples lie along its first dimension.
    """

    name: str
    shape: Annotated[tuple[StrictInt | str, ...], Field(max_length=_MOST_DIMENSIONS)]
    dtype: str = "float32"
    low: StrictInt | StrictFloat | None = None
    high: StrictInt | StrictFloat | None = None
    optional: StrictBool = False
    example: str = ""
    batch: StrictBool = True

    def described(self, dims: Mapping[str, SizeRange], folder: Path) -> NetworkInput:
        """The input, with the ranges of the dimensions that vary.

        Raises:
            ValueError: A dimension has no range, or something can't be.
        """
        if unknown := [size for size in self.shape if isinstance(size, str) and size not in dims]:
            raise ValueError(f"the dimension {unknown[0]!r} of {self.name} has no range: [model] dims")
        if any(isinstance(size, int) and size < 1 for size in self.shape):
            raise ValueError(f"sizes must be at least 1 and at most {MAX_SIZE}, got {list(self.shape)}")
        low, high = self.low, self.high
        if self.dtype in WHOLE and self.dtype != "bool" and high is None and not self.example:
            raise ValueError(f"{self.name} is of {self.dtype} and has neither a high nor an example file to draw it by")
        if self.dtype in WHOLE and high is not None and low is None:
            low = 0
        return NetworkInput(
            name=self.name,
            shape=tuple(size if isinstance(size, int) else VaryingSize.of(size, dims[size]) for size in self.shape),
            dtype=self.dtype,
            low=low,
            high=high,
            optional=self.optional,
            example=str(folder / self.example) if self.example else "",
            has_batch=self.batch,
        )


class ModelSection(Section):
    """[model]: the network that a checkpoint belongs to.

    Attributes:
        name: Name of the network, such as "ResNet-50", by which runs are compared with published ones.
        factory: "module:callable", relative to the file, that builds it.
        initialise: "module:callable" that draws all weights of a network, for control arms from scratch.
        input: Shape of one sample, or a list of shapes for several inputs, of standard normal numbers.
        inputs: Descriptions of inputs of any kind, in place of ``input``.
        dims: Sizes that other dimensions than the batch may have, by name: "smallest:example:largest".
        outputs: Paths of the outputs that are deployed, as in "logits"; all of them by default.
        weights: Name of the weights to take, where a checkpoint holds several, such as "ema".
        pretraining: The training of the dense network, where it is known.
        accuracy: The dense network's accuracy on the test data, 0 to 1, which is then checked.
    """

    name: str = ""
    factory: Reference | None = None
    initialise: Reference | None = None
    input: tuple[SampleShape, ...] | None = None
    inputs: Annotated[tuple[InputSection, ...], Field(max_length=_MOST_INPUTS)] | None = None
    dims: dict[str, str] = Field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    weights: str = ""
    pretraining: PretrainingSection | None = None
    accuracy: StrictFloat | StrictInt | None = Field(default=None, ge=0, le=1)

    @field_validator("input", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, list) and value and not isinstance(value[0], list) else value

    @field_validator("input")
    @classmethod
    def _positive(cls, value: tuple[SampleShape, ...] | None) -> tuple[SampleShape, ...] | None:
        if value == ():
            raise ValueError("expected one sample's shape, as in [3, 224, 224]")
        if value is not None and not all(1 <= size <= MAX_SIZE for shape in value for size in shape):
            raise ValueError(f"sizes must be at least 1 and at most {MAX_SIZE}")
        for shape in value or ():
            check_samples_size(shape)
        return value

    @model_validator(mode="after")
    def _describes_inputs(self) -> typing.Self:
        if self.input is not None and self.inputs is not None:
            raise ValueError("input and inputs exclude each other")
        if self.inputs == ():
            raise ValueError("inputs names none")
        if self.inputs is None and self.dims:
            raise ValueError("dims are of the dimensions that inputs names")
        described = self.described(Path())
        names = [each.name for each in described]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two inputs have the name {twice[0]!r}")
        if unused := self.dims.keys() - {size for each in self.inputs or () for size in each.shape}:
            raise ValueError(f"no input has the dimension {sorted(unused)[0]!r} of dims")
        return self

    def described(self, folder: Path) -> tuple[NetworkInput, ...]:
        """The inputs, with the paths of their example files as seen from a folder; none where there is no ``inputs``.

        Raises:
            ValueError: A range of ``dims`` can't be read, or something of an input can't be.
        """
        dims = {}
        for name, text in self.dims.items():
            try:
                dims[name] = SizeRange.parse(text)
            except UsageError as error:
                said = error.message.removesuffix(".")
                raise ValueError(f"dims, {name}: {said}; expected smallest:example:largest, as in 8:128:512") from error
        return tuple(each.described(dims, folder) for each in self.inputs or ())
