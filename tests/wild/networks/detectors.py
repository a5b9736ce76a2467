"""Detectors of ultralytics, yolov5, YOLOX, effdet and RF-DETR, from images to boxes."""

from pathlib import Path
from typing import Any

from torch import nn

from tests.wild.networks.inputs import images
from tests.wild.networks.wild_network import Built, Family, called_with

_ULTRALYTICS = Family("ultralytics")
_YOLOV5 = Family("yolov5")
_YOLOX = Family("yolox")
_EFFDET = Family("effdet")
_RFDETR = Family("rfdetr")

_SIDE = 96


def _ultralytics(settings: str, task: str = "DetectionModel") -> Any:
    """A network of ultralytics, from its settings file.

    Args:
        settings: name of the file; its letter of the scale is as in "yolov8n.yaml".
        task: name of the class.
    """
    from ultralytics.nn import tasks

    return getattr(tasks, task)(settings, verbose=False)


def _for_export(network: Any) -> nn.Module:
    """Set the head as ultralytics' own export does: one output, boxes decoded."""
    network.model[-1].export = True
    network.model[-1].format = "onnx"
    module: nn.Module = network
    return module


@_ULTRALYTICS.add("yolov8n")
def yolov8n() -> Built:
    return called_with(_ultralytics("yolov8n.yaml"), images(_SIDE))


@_ULTRALYTICS.add("yolov8n-export")
def yolov8n_export() -> Built:
    return called_with(_for_export(_ultralytics("yolov8n.yaml")), images(_SIDE))


@_ULTRALYTICS.add("yolov8n-pose")
def yolov8n_pose() -> Built:
    return called_with(_ultralytics("yolov8n-pose.yaml", "PoseModel"), images(_SIDE))


@_ULTRALYTICS.add("yolov9t")
def yolov9t() -> Built:
    return called_with(_ultralytics("yolov9t.yaml"), images(64))


@_ULTRALYTICS.add("yolo11n-seg")
def yolo11n_seg() -> Built:
    return called_with(_ultralytics("yolo11n-seg.yaml", "SegmentationModel"), images(_SIDE))


@_ULTRALYTICS.add("yolo12n-export")
def yolo12n_export() -> Built:
    return called_with(_for_export(_ultralytics("yolo12n.yaml")), images(_SIDE))


@_ULTRALYTICS.add("yolo26n")
def yolo26n() -> Built:
    return called_with(_ultralytics("yolo26n.yaml"), images(_SIDE))


@_ULTRALYTICS.add("yolo11n-cls")
def yolo11n_cls() -> Built:
    return called_with(_ultralytics("yolo11n-cls.yaml", "ClassificationModel"), images(64))


@_YOLOV5.add("yolov5n")
def yolov5n() -> Built:
    import yolov5
    from yolov5.models.yolo import DetectionModel

    settings = Path(yolov5.__file__).parent / "models" / "yolov5n.yaml"
    return called_with(DetectionModel(str(settings)), images(_SIDE))


@_YOLOX.add("yolox-nano")
def yolox_nano() -> Built:
    from yolox.models import YOLOPAFPN, YOLOX, YOLOXHead

    depth, width, channels = 0.33, 0.25, [256, 512, 1024]
    backbone = YOLOPAFPN(depth, width, in_channels=channels, depthwise=True)
    head = YOLOXHead(8, width, in_channels=channels, depthwise=True)
    head.decode_in_inference = False  # as YOLOX's own export sets it
    return called_with(YOLOX(backbone, head), images(_SIDE))


@_EFFDET.add("efficientdet-d0")
def efficientdet_d0() -> Built:
    from effdet import EfficientDet, get_efficientdet_config

    config = get_efficientdet_config("efficientdet_d0")
    config.image_size = (128, 128)
    config.num_classes = 8
    return called_with(EfficientDet(config, pretrained_backbone=False), images(128))


@_RFDETR.add("rf-detr-nano")
def rf_detr_nano() -> Built:
    from rfdetr import RFDETRNano

    side = 128
    detector = RFDETRNano(pretrain_weights=None, device="cpu", resolution=side, positional_encoding_size=side // 16)
    return called_with(detector.model.model, images(side))


NETWORKS = {**_ULTRALYTICS.networks, **_YOLOV5.networks, **_YOLOX.networks, **_EFFDET.networks, **_RFDETR.networks}
