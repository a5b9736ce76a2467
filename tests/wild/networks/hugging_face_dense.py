"""Detectors, segmentation and depth of transformers."""

from typing import Any

from tests.wild.networks.hugging_face import config, model, transformers_family
from tests.wild.networks.inputs import images
from tests.wild.networks.wild_network import Built, called_with

_FAMILY = transformers_family()
NETWORKS = _FAMILY.networks

_DETR: dict[str, Any] = {
    "d_model": 64,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 10,
    "num_labels": 8,
}


def _resnet(*outputs: str) -> Any:
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    return config("ResNetConfig", **sizes, out_features=list(outputs))


def _swin() -> Any:
    sizes = {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 4}
    return config("SwinConfig", **sizes, out_features=["stage1", "stage2", "stage3", "stage4"])


@_FAMILY.add("detr")
def detr() -> Built:
    return called_with(model("DetrForObjectDetection", **_DETR, backbone_config=_resnet("stage4")), images(64))


@_FAMILY.add("rt-detr")
def rt_detr() -> Built:
    backbone = config(
        "RTDetrResNetConfig",
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    network = model(
        "RTDetrForObjectDetection",
        backbone_config=backbone,
        encoder_hidden_dim=64,
        encoder_in_channels=[32, 48, 64],
        encoder_ffn_dim=128,
        encoder_attention_heads=4,
        d_model=64,
        decoder_in_channels=[64, 64, 64],
        decoder_ffn_dim=128,
        decoder_layers=2,
        decoder_attention_heads=4,
        num_queries=20,
        num_denoising=0,
        num_labels=8,
    )
    return called_with(network, images(64))


@_FAMILY.add("mask2former")
def mask2former() -> Built:
    network = model(
        "Mask2FormerForUniversalSegmentation",
        backbone_config=_swin(),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=64,
        dim_feedforward=64,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=4,
        num_queries=8,
        num_labels=5,
    )
    return called_with(network, images(64))


@_FAMILY.add("segformer")
def segformer() -> Built:
    sizes = {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 3, 4]}
    network = model("SegformerForSemanticSegmentation", **sizes, decoder_hidden_size=64, num_labels=5)
    return called_with(network, images(64))


@_FAMILY.add("upernet")
def upernet() -> Built:
    backbone = config(
        "ConvNextConfig",
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    sizes = {"hidden_size": 32, "auxiliary_in_channels": 48, "auxiliary_channels": 16}
    network = model("UperNetForSemanticSegmentation", backbone_config=backbone, **sizes, num_labels=5)
    return called_with(network, images(64))


@_FAMILY.add("depth-anything")
def depth_anything() -> Built:
    backbone = config(
        "Dinov2Config",
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        mlp_ratio=2,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    network = model(
        "DepthAnythingForDepthEstimation",
        backbone_config=backbone,
        reassemble_hidden_size=64,
        patch_size=14,
        neck_hidden_sizes=[16, 24, 32, 48],
        fusion_hidden_size=32,
        head_hidden_size=16,
        depth_estimation_type="metric",
        max_depth=10,
    )
    return called_with(network, images(56))


@_FAMILY.add("vitmatte")
def vitmatte() -> Built:
    backbone = config(
        "VitDetConfig",
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        mlp_ratio=2,
        image_size=64,
        num_channels=4,
        window_size=2,
        window_block_indices=[0],
        use_relative_position_embeddings=True,
        out_features=["stage2"],
    )
    network = model(
        "VitMatteForImageMatting",
        backbone_config=backbone,
        hidden_size=64,
        convstream_hidden_sizes=[16, 32, 48],
        fusion_hidden_sizes=[64, 48, 32, 16],
    )
    return called_with(network, images(64, channels=4))
