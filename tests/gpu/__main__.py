"""Says whether this machine can run the checks that need a GPU; exit code 4 where it can't.

    python -m tests.gpu [tensorrt]

With `tensorrt` it says whether it can run those that need TensorRT too.
"""

import sys
from importlib.util import find_spec

import torch

from tests.gpu.device import device_here


def missing(tensorrt: bool) -> list[str]:
    """What is missing, in words."""
    if not torch.cuda.is_available():
        return ["torch sees no CUDA GPU: a GPU with its driver and a build of torch with CUDA are needed"]
    texts = []
    packages = [("pynvml", "pip install nvidia-ml-py")]
    if tensorrt:
        packages.append(("tensorrt", "pip install '.[tensorrt]'"))
        if device_here() is None:
            texts.append(f"no target has compute capability {torch.cuda.get_device_capability()}")
    return texts + [f"{module} isn't installed: {line}" for module, line in packages if find_spec(module) is None]


def main() -> None:
    texts = missing("tensorrt" in sys.argv[1:])
    for text in texts:
        sys.stderr.write(f"gpu-check: {text}\n")
    raise SystemExit(4 if texts else 0)


if __name__ == "__main__":
    main()
