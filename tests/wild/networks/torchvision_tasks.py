"""Networks of torchvision for other things than classes of images: boxes, masks, video, optical flow.

Of its detectors what comes before the network (resized images) and after it (suppressed boxes) is left away.
"""

from typing import Any

from torch import Tensor, nn

from tests.wild.networks.inputs import images, numbers
from tests.wild.networks.wild_network import Built, Family, called_with
from tests.zoo.corpus import FeatureHead

_FAMILY = Family("torchvision")
NETWORKS = _FAMILY.networks


class RegionProposals(nn.Module):
    """Feature maps of a two-stage detector, with scores and boxes of its regions before any is chosen."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.rpn.head

    def forward(self, x: Tensor) -> Any:
        features = self.backbone(x)
        scores, boxes = self.head(list(features.values()))
        return features, scores, boxes


def _detector(name: str) -> Any:
    from torchvision.models import get_model

    return get_model(name, weights=None, weights_backbone=None, num_classes=8)


@_FAMILY.add("ssdlite320-heads")
def ssdlite320_heads() -> Built:
    return called_with(FeatureHead(_detector("ssdlite320_mobilenet_v3_large")), images(160))


@_FAMILY.add("fcos-heads")
def fcos_heads() -> Built:
    return called_with(FeatureHead(_detector("fcos_resnet50_fpn")), images(64))


@_FAMILY.add("faster-rcnn-regions")
def faster_rcnn_regions() -> Built:
    return called_with(RegionProposals(_detector("fasterrcnn_mobilenet_v3_large_320_fpn")), images(96))


@_FAMILY.add("r2plus1d-18")
def r2plus1d_18() -> Built:
    from torchvision.models import get_model

    return called_with(get_model("r2plus1d_18", weights=None, num_classes=10), numbers(3, 4, 32, 32))


@_FAMILY.add("swin3d")
def swin3d() -> Built:
    from torchvision.models.video.swin_transformer import SwinTransformer3d

    network = SwinTransformer3d(
        patch_size=[2, 4, 4], embed_dim=32, depths=[2, 2], num_heads=[2, 4], window_size=[2, 4, 4], num_classes=10
    )
    return called_with(network, numbers(3, 4, 32, 32))


@_FAMILY.add("mvit-v2")
def mvit_v2() -> Built:
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    blocks = [
        MSBlockConfig(
            num_heads=heads,
            input_channels=channels,
            output_channels=outputs,
            kernel_q=[3, 3, 3],
            kernel_kv=[3, 3, 3],
            stride_q=[1, stride, stride],
            stride_kv=[1, 2, 2],
        )
        for heads, channels, outputs, stride in ((1, 32, 32, 1), (2, 32, 64, 2), (4, 64, 64, 1))
    ]
    network = MViT(
        spatial_size=(32, 32),
        temporal_size=4,
        block_setting=blocks,
        residual_pool=True,
        residual_with_cls_embed=False,
        rel_pos_embed=True,
        proj_after_attn=True,
        num_classes=10,
    )
    return called_with(network, numbers(3, 4, 32, 32))


@_FAMILY.add("raft-small")
def raft_small() -> Built:
    from torchvision.models.optical_flow import raft_small as construct

    return called_with(construct(weights=None), images(128), images(128, seed=1), num_flow_updates=2)
