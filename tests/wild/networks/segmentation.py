"""Segmentation: segmentation_models_pytorch and segment_anything."""

from typing import Any

from torch import nn

from tests.wild.networks.inputs import images
from tests.wild.networks.wild_network import Built, Family, called_with

_MODELS = Family("segmentation_models_pytorch")
_SEGMENT_ANYTHING = Family("segment_anything")


def _segmenter(architecture: str, encoder: str = "resnet18", **settings: Any) -> nn.Module:
    import segmentation_models_pytorch

    kind = getattr(segmentation_models_pytorch, architecture)
    network: nn.Module = kind(encoder_name=encoder, encoder_weights=None, classes=3, **settings)
    return network


@_MODELS.add("unet-classes")
def unet_classes() -> Built:
    """With a second output, classes of the image."""
    return called_with(_segmenter("Unet", aux_params={"classes": 4, "dropout": 0.2}), images(64))


@_MODELS.add("unet-plus-plus")
def unet_plus_plus() -> Built:
    return called_with(_segmenter("UnetPlusPlus", decoder_channels=(64, 48, 32, 24, 16)), images(64))


@_MODELS.add("fpn-mix-transformer")
def fpn_mix_transformer() -> Built:
    return called_with(_segmenter("FPN", "mit_b0"), images(64))


@_MODELS.add("manet")
def manet() -> Built:
    return called_with(_segmenter("MAnet"), images(64))


@_MODELS.add("pan")
def pan() -> Built:
    return called_with(_segmenter("PAN"), images(128))


@_MODELS.add("linknet-mobileone")
def linknet_mobileone() -> Built:
    return called_with(_segmenter("Linknet", "mobileone_s0"), images(64))


@_MODELS.add("deeplabv3plus")
def deeplabv3plus() -> Built:
    return called_with(_segmenter("DeepLabV3Plus", "timm-regnetx_002", decoder_channels=64), images(64))


@_SEGMENT_ANYTHING.add("image-encoder")
def image_encoder() -> Built:
    from segment_anything.modeling import ImageEncoderViT

    network = ImageEncoderViT(
        img_size=96,
        patch_size=16,
        embed_dim=64,
        depth=2,
        num_heads=4,
        out_chans=32,
        use_rel_pos=True,
        window_size=4,
        global_attn_indexes=(1,),
    )
    return called_with(network, images(96))


NETWORKS = {**_MODELS.networks, **_SEGMENT_ANYTHING.networks}
