"""Transformers and convolutional networks of transformers that classify images."""

from tests.wild.networks.hugging_face import VISION, model, transformers_family
from tests.wild.networks.inputs import images
from tests.wild.networks.wild_network import Built, called_with

_FAMILY = transformers_family()
NETWORKS = _FAMILY.networks


@_FAMILY.add("vit")
def vit() -> Built:
    return called_with(model("ViTForImageClassification", **VISION, num_labels=10), images(64))


@_FAMILY.add("swinv2")
def swinv2() -> Built:
    sizes = {"image_size": 64, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
    return called_with(model("Swinv2ForImageClassification", **sizes, num_labels=10), images(64))


@_FAMILY.add("beit")
def beit() -> Built:
    network = model("BeitForImageClassification", **VISION, use_relative_position_bias=True, num_labels=10)
    return called_with(network, images(64))


@_FAMILY.add("dinov3-vit")
def dinov3_vit() -> Built:
    return called_with(model("DINOv3ViTModel", **VISION, num_register_tokens=2, use_gated_mlp=True), images(64))


@_FAMILY.add("convnextv2")
def convnextv2() -> Built:
    sizes = {"hidden_sizes": [32, 48, 64, 96], "depths": [1, 1, 2, 1]}
    return called_with(model("ConvNextV2ForImageClassification", **sizes, num_labels=10), images(64))


@_FAMILY.add("bit")
def bit() -> Built:
    sizes = {"embedding_size": 32, "hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 1, 1], "num_groups": 8}
    return called_with(model("BitForImageClassification", **sizes, num_labels=10), images(64))


@_FAMILY.add("levit")
def levit() -> Built:
    sizes = {
        "image_size": 64,
        "hidden_sizes": [32, 48, 64],
        "num_attention_heads": [2, 3, 4],
        "key_dim": [8, 8, 8],
        "depths": [1, 1, 1],
    }
    return called_with(model("LevitForImageClassification", **sizes, num_labels=10), images(64))


@_FAMILY.add("mobilevit")
def mobilevit() -> Built:
    sizes = {
        "image_size": 64,
        "hidden_sizes": [32, 48, 64],
        "neck_hidden_sizes": [16, 16, 24, 32, 48, 64, 96],
        "num_attention_heads": 4,
    }
    return called_with(model("MobileViTForImageClassification", **sizes, num_labels=10), images(64))


@_FAMILY.add("poolformer")
def poolformer() -> Built:
    sizes = {"hidden_sizes": [32, 48, 64, 96], "depths": [1, 1, 1, 1], "mlp_ratio": 2.0}
    return called_with(model("PoolFormerForImageClassification", **sizes, num_labels=10), images(64))


@_FAMILY.add("focalnet")
def focalnet() -> Built:
    sizes = {"image_size": 64, "embed_dim": 32, "depths": [1, 1, 2, 1], "hidden_sizes": [32, 64, 128, 256]}
    return called_with(model("FocalNetForImageClassification", **sizes, num_labels=10), images(64))


@_FAMILY.add("cvt")
def cvt() -> Built:
    sizes = {"embed_dim": [16, 32, 64], "num_heads": [1, 2, 4], "depth": [1, 2, 3]}
    return called_with(model("CvtForImageClassification", **sizes, num_labels=10), images(64))


@_FAMILY.add("hiera")
def hiera() -> Built:
    sizes = {"image_size": [64, 64], "embed_dim": 32, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]}
    return called_with(model("HieraForImageClassification", **sizes, num_labels=10), images(64))


@_FAMILY.add("swiftformer")
def swiftformer() -> Built:
    sizes = {"image_size": 64, "depths": [1, 1, 2, 1], "embed_dims": [16, 32, 48, 64]}
    return called_with(model("SwiftFormerForImageClassification", **sizes, num_labels=10), images(64))
