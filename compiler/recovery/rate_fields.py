"""Learning rates as a field of reports and run cards, which pydantic reads and writes."""

from typing import Annotated

from pydantic import AfterValidator

from prunec.compiler.recovery.rate_pieces import RatePiece, checked

#: Pieces from epoch 0 on without gaps; in JSON each is a mapping with the fields of `RatePiece`.
RatePieces = Annotated[tuple[RatePiece, ...], AfterValidator(checked)]
