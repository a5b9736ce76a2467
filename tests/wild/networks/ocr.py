"""Text in pictures: EasyOCR and docTR."""

from tests.wild.networks.inputs import images, integers
from tests.wild.networks.wild_network import Built, Family, called_with

_EASYOCR = Family("easyocr")
_DOCTR = Family("doctr")

_VOCABULARY = "abcdefghij"


@_EASYOCR.add("crnn-vgg")
def crnn_vgg() -> Built:
    """Its second input is ignored."""
    from easyocr.model.vgg_model import Model

    return called_with(Model(1, 64, 64, 40), images(64, 1, width=100), integers(10, high=40))


@_EASYOCR.add("crnn-resnet")
def crnn_resnet() -> Built:
    """Its second input is ignored."""
    from easyocr.model.model import Model

    return called_with(Model(1, 64, 64, 40), images(64, 1, width=64), integers(10, high=40))


@_EASYOCR.add("craft")
def craft() -> Built:
    from easyocr.craft import CRAFT

    return called_with(CRAFT(pretrained=False), images(64))


@_DOCTR.add("db-mobilenet")
def db_mobilenet() -> Built:
    from doctr.models.detection import db_mobilenet_v3_large

    network = db_mobilenet_v3_large(pretrained=False, pretrained_backbone=False, exportable=True)
    return called_with(network, images(96))


@_DOCTR.add("fast-tiny")
def fast_tiny() -> Built:
    from doctr.models.detection import fast_tiny as construct

    return called_with(construct(pretrained=False, pretrained_backbone=False, exportable=True), images(64))


@_DOCTR.add("crnn-mobilenet")
def crnn_mobilenet() -> Built:
    from doctr.models.recognition import crnn_mobilenet_v3_small

    network = crnn_mobilenet_v3_small(pretrained=False, pretrained_backbone=False, exportable=True, vocab=_VOCABULARY)
    return called_with(network, images(32, width=128))


@_DOCTR.add("vitstr")
def vitstr() -> Built:
    from doctr.models.recognition import vitstr_small

    network = vitstr_small(pretrained=False, pretrained_backbone=False, exportable=True, vocab=_VOCABULARY)
    return called_with(network, images(32, width=128))


NETWORKS = {**_EASYOCR.networks, **_DOCTR.networks}
