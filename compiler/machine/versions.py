"""Versions of the tools that decide what a compile produces, from package metadata: nothing is imported."""

import platform
from importlib import metadata

# tool -> the distributions that may provide it
TOOLS: dict[str, tuple[str, ...]] = {
    "prunec": ("prunec",),
    "torch": ("torch",),
    "onnx": ("onnx",),
    "onnxscript": ("onnxscript",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "polygraphy": ("polygraphy",),
    "numpy": ("numpy",),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13"),
    "plotly": ("plotly",),
    "pynvml": ("nvidia-ml-py", "pynvml"),
}


def tool_version(tool: str) -> str | None:
    """Installed version of a tool named in `TOOLS`, or None."""
    for distribution in TOOLS[tool]:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def installed_versions() -> dict[str, str]:
    """Version of Python and of every tool that is installed."""
    versions = {tool: version for tool in TOOLS if (version := tool_version(tool)) is not None}
    return {"python": platform.python_version()} | versions
