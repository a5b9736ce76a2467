"""Says whether this machine can run the checks that need a GPU; exit code 4 where it can't."""

import sys
from importlib.util import find_spec

import torch

from tests.gpu.device import device_here


def main() -> None:
    missing = []
    if not torch.cuda.is_available():
        missing.append("torch sees no CUDA GPU: a GPU with its driver and a build of torch with CUDA are needed")
    elif device_here() is None:
        missing.append(f"no target has compute capability {torch.cuda.get_device_capability()}")
    for module, line in (("tensorrt", "pip install '.[tensorrt]'"), ("pynvml", "pip install nvidia-ml-py")):
        if find_spec(module) is None:
            missing.append(f"{module} isn't installed: {line}")
    for text in missing:
        sys.stderr.write(f"gpu-check: {text}\n")
    raise SystemExit(4 if missing else 0)


if __name__ == "__main__":
    main()
