"""Names in words of data, networks and metrics: when two of them mean the same."""

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


@cache
def plain_name(text: str) -> str:
    """A name without case, blanks and punctuation, aliases resolved: "ResNet-50" and "resnet50" are one."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    letters = "".join(character for character in folded if character.isalnum())
    return _ALIASES.get(letters, letters) or folded


def same_name(a: str, b: str) -> bool:
    """Whether two names mean the same."""
    return plain_name(a) == plain_name(b)
