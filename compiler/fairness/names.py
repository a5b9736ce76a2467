"""Names in words of data, networks and metrics: when two of them mean the same."""

import re
import unicodedata
from functools import cache

#: Spelling -> the one that is compared, both without case and punctuation.
_ALIASES = {
    **dict.fromkeys(("imagenet1k", "imagenet1000", "imagenet2012", "ilsvrc", "ilsvrc12", "ilsvrc2012"), "imagenet"),
    **dict.fromkeys(("imagenetilsvrc", "imagenetilsvrc2012", "ilsvrc2012imagenet"), "imagenet"),
    "fmnist": "fashionmnist",
    **dict.fromkeys(("top1accuracy", "acc1", "accuracytop1"), "top1"),
    **dict.fromkeys(("top5accuracy", "acc5", "accuracytop5"), "top5"),
}


#: Names that say that there is none.
_UNTOLD = frozenset(("", "unknown", "notknown", "notstated", "unspecified", "na", "tbd"))
#: Blanks and punctuation; a plus and an asterisk tell things apart.
_BETWEEN = re.compile(r"(?:(?![+*])[\W_])+")


@cache
def plain_name(text: str) -> str:
    """A name without case, blanks and punctuation, aliases resolved: "ResNet-50" and "resnet50" are one.

    Numbers stay apart: neither "CIFAR-10.1" and "CIFAR-101" are one, nor "WRN-16-8" and "WRN-168".
    """
    letters = _BETWEEN.sub(_joint, unicodedata.normalize("NFKC", text).casefold())
    return _ALIASES.get(letters, letters)


def told(name: str | None) -> str | None:
    """A name; None where it only says that there is none, such as "", "?" and "unknown"."""
    return None if name is None or plain_name(name) in _UNTOLD else name


def _joint(between: re.Match[str]) -> str:
    before, after = between.string[: between.start()][-1:], between.string[between.end() :][:1]
    return " " if before.isdigit() and after.isdigit() else ""


def same_name(a: str, b: str) -> bool:
    """Whether two names mean the same."""
    return plain_name(a) == plain_name(b)
