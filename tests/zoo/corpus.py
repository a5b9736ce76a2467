"""The zoo: 70 networks of torchvision and timm, with random weights, that prunec must capture, prune and export again.

``tv``, ``seg`` and ``det`` are torchvision's classification, segmentation and detection networks, ``timm`` those of
``timm.create_model``. Nothing is downloaded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tests.architectures.redraw import fit_statistics_, redraw_
from tests.zoo import shim  # noqa: F401 - torchvision is imported after it

Kind = Literal["cnn", "hybrid", "transformer", "mlp"]


@dataclass(frozen=True)
class Network:
    """One of the zoo.

    Attributes:
        name: source and name there, as "tv:resnet18".
        kind: the class under which the results are summed up.
        side: Side of the square images that it takes.
    """

    name: str
    kind: Kind
    side: int = 224


NETWORKS: tuple[Network, ...] = (
    Network("tv:alexnet", "cnn"),
    Network("tv:vgg16_bn", "cnn"),
    Network("tv:resnet18", "cnn"),
    Network("tv:resnet50", "cnn"),
    Network("tv:resnet152", "cnn"),
    Network("tv:resnext50_32x4d", "cnn"),
    Network("tv:densenet121", "cnn"),
    Network("tv:googlenet", "cnn"),
    Network("tv:mobilenet_v2", "cnn"),
    Network("tv:mobilenet_v3_large", "cnn"),
    Network("tv:shufflenet_v2_x1_0", "cnn"),
    Network("tv:squeezenet1_0", "cnn"),
    Network("tv:efficientnet_b0", "cnn"),
    Network("tv:regnet_y_400mf", "cnn"),
    Network("tv:convnext_tiny", "cnn"),
    Network("tv:swin_t", "transformer"),
    Network("tv:maxvit_t", "transformer"),
    Network("tv:vit_b_16", "transformer"),
    Network("seg:fcn_resnet50", "cnn"),
    Network("seg:deeplabv3_resnet50", "cnn"),
    Network("seg:deeplabv3_mobilenet_v3_large", "cnn"),
    Network("det:retinanet_resnet50_fpn", "cnn"),
    Network("timm:repvgg_a0", "cnn"),
    Network("timm:ghostnet_100", "cnn"),
    Network("timm:hrnet_w18_small", "cnn"),
    Network("timm:skresnet18", "cnn"),
    Network("timm:resnest14d", "cnn"),
    Network("timm:dla34", "cnn"),
    Network("timm:cspdarknet53", "cnn"),
    Network("timm:dm_nfnet_f0", "cnn"),
    Network("timm:coatnet_0_rw_224", "hybrid"),
    Network("timm:mixer_s32_224", "mlp"),
    Network("timm:poolformer_s12", "hybrid"),
    Network("timm:edgenext_xx_small", "hybrid"),
    Network("timm:fastvit_t8", "hybrid"),
    Network("timm:efficientformer_l1", "hybrid"),
    Network("timm:xception41", "cnn"),
    Network("timm:inception_resnet_v2", "cnn"),
    Network("timm:dpn68", "cnn"),
    Network("timm:vovnet39a", "cnn"),
    Network("timm:selecsls42", "cnn"),
    Network("timm:rexnet_100", "cnn"),
    Network("timm:volo_d1_224", "transformer"),
    Network("timm:beit_base_patch16_224", "transformer"),
    Network("timm:deit_tiny_patch16_224", "transformer"),
    Network("timm:cait_xxs24_224", "transformer"),
    Network("timm:convmixer_768_32", "cnn"),
    Network("timm:gmlp_ti16_224", "mlp"),
    Network("timm:xcit_nano_12_p16_224", "transformer"),
    Network("timm:mobilevit_xxs", "hybrid", 256),
    Network("timm:eva02_tiny_patch14_224", "transformer"),
    Network("timm:convnextv2_atto", "cnn"),
    Network("timm:mobilenetv4_conv_small", "cnn"),
    Network("timm:repvit_m0_9", "cnn"),
    Network("timm:seresnet50", "cnn"),
    Network("timm:ecaresnet26t", "cnn"),
    Network("timm:mambaout_femto", "cnn"),
    Network("timm:davit_tiny", "transformer"),
    Network("timm:caformer_s18", "hybrid"),
    Network("timm:resnetv2_50", "cnn"),
    Network("timm:tf_efficientnet_lite0", "cnn"),
    Network("timm:lambda_resnet26t", "hybrid", 256),
    Network("timm:halonet26t", "hybrid", 256),
    Network("timm:sebotnet33ts_256", "hybrid", 256),
    Network("timm:vit_small_patch16_224", "transformer"),
    Network("timm:twins_svt_small", "transformer"),
    Network("timm:gernet_s", "cnn"),
    Network("timm:inception_next_atto", "cnn"),
    Network("timm:lcnet_050", "cnn"),
    Network("timm:nasnetalarge", "cnn", 331),
)
BY_NAME: dict[str, Network] = {network.name: network for network in NETWORKS}


class FeatureHead(nn.Module):
    """A detector without what comes before and after the network: resized images, anchors, suppressed boxes."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, x: Tensor) -> Any:
        return self.head(list(self.backbone(x).values()))


def build(name: str, seed: int = 0) -> nn.Module:
    """A network of the zoo in eval mode, every parameter and running statistic drawn anew.

    Args:
        name: as in `NETWORKS`.
        seed: Seed of the draws.
    """
    network = redraw_(construct(name).eval(), seed)
    return fit_statistics_(network, example(name, seed=seed))


def construct(name: str) -> nn.Module:
    """A network as its library makes it, without trained weights.

    Args:
        name: "tv:" (torchvision), "seg:" and "det:" (its segmentation and detection networks) or "timm:" and a name.
    """
    source, _, model = name.partition(":")
    return _SOURCES[source](model)


def example(name: str, batch: int = 2, seed: int = 0) -> Tensor:
    """Random images of the size that a network takes, each with a hue of its own; float32 (batch, 3, side, side).

    Without the hue the means of the networks' last features hardly tell one image of noise from another.
    """
    side = BY_NAME[name].side
    generator = torch.Generator().manual_seed(seed)
    hues = torch.randn(batch, 3, 1, 1, generator=generator)
    return hues + torch.randn(batch, 3, side, side, generator=generator)


def _torchvision(name: str) -> nn.Module:
    from torchvision import models

    options = {"init_weights": False} if name == "googlenet" else {}
    return models.get_model(name, weights=None, **options)


def _without_backbone_weights(name: str) -> nn.Module:
    from torchvision import models

    return models.get_model(name, weights=None, weights_backbone=None)


def _detection(name: str) -> nn.Module:
    return FeatureHead(_without_backbone_weights(name))


def _timm(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False)


_SOURCES: dict[str, Callable[[str], nn.Module]] = {
    "tv": _torchvision,
    "seg": _without_backbone_weights,
    "det": _detection,
    "timm": _timm,
}
