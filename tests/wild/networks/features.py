"""Feature maps, descriptors and faces: timm, kornia, facenet_pytorch, efficientnet_pytorch."""

from typing import Any

from torch import Tensor, nn

from tests.wild.networks.inputs import images, numbers
from tests.wild.networks.wild_network import Built, Family, called_with

_TIMM = Family("timm")
_KORNIA = Family("kornia")
_FACENET = Family("facenet_pytorch")
_EFFICIENTNET = Family("efficientnet_pytorch")


@_TIMM.add("convnext-features")
def convnext_features() -> Built:
    import timm

    return called_with(timm.create_model("convnext_atto", features_only=True), images(64))


@_TIMM.add("vit-features")
def vit_features() -> Built:
    import timm

    return called_with(timm.create_model("vit_tiny_patch16_224", features_only=True, img_size=64), images(64))


@_TIMM.add("hgnetv2-features")
def hgnetv2_features() -> Built:
    import timm

    return called_with(timm.create_model("hgnetv2_b0", features_only=True), images(64))


@_KORNIA.add("loftr")
def loftr() -> Built:
    """Takes one dict of two images; how many matches it gives depends on them."""
    from kornia.feature import LoFTR

    return called_with(LoFTR(pretrained=None), {"image0": images(64, 1), "image1": images(64, 1, seed=1)})


class DescriptorMaps(nn.Module):
    """DISK before any key point is chosen: a heat map and a descriptor for every pixel."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network.heatmap_and_dense_descriptors(x)


@_KORNIA.add("disk")
def disk() -> Built:
    from kornia.feature import DISK

    return called_with(DescriptorMaps(DISK()), images(64))


@_KORNIA.add("hardnet")
def hardnet() -> Built:
    from kornia.feature import HardNet

    return called_with(HardNet(pretrained=False), numbers(1, 32, 32))


@_KORNIA.add("tiny-vit")
def tiny_vit() -> Built:
    from kornia.models.tiny_vit import TinyViT

    network = TinyViT(
        img_size=64,
        num_classes=10,
        embed_dims=(32, 48, 64, 96),
        depths=(1, 1, 1, 1),
        num_heads=(1, 2, 2, 3),
        window_sizes=(4, 4, 4, 2),
    )
    return called_with(network, images(64))


@_FACENET.add("inception-resnet-v1")
def inception_resnet_v1() -> Built:
    from facenet_pytorch import InceptionResnetV1

    return called_with(InceptionResnetV1(pretrained=None), images(96))


@_FACENET.add("mtcnn-onet")
def mtcnn_onet() -> Built:
    from facenet_pytorch.models.mtcnn import ONet

    return called_with(ONet(pretrained=False), images(48))


@_EFFICIENTNET.add("efficientnet-b0")
def efficientnet_b0() -> Built:
    from efficientnet_pytorch import EfficientNet

    return called_with(EfficientNet.from_name("efficientnet-b0", num_classes=10), images(64))


NETWORKS = {**_TIMM.networks, **_KORNIA.networks, **_FACENET.networks, **_EFFICIENTNET.networks}
