"""One network in a process of its own, with a limit of processor time and of memory."""

import argparse
import resource
import site
from pathlib import Path

_MEMORY_BYTES = 8 * 2**30


def main() -> None:
    """Take one network through all stages; its row grows in the folder of results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seconds", type=int, required=True, help="processor time that it may take")
    parser.add_argument("--engine", action="store_true", help="build an engine too")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (options.seconds, options.seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    import torch

    from tests.wild.networks import NETWORKS
    from tests.wild.networks.environment import folder
    from tests.wild.packages import REQUIREMENTS
    from tests.wild.recording import Recording
    from tests.wild.rows import Row
    from tests.wild.stages import examine

    torch.set_num_threads(1)
    network = NETWORKS[options.name]
    paths = [*(folder() / name for name in REQUIREMENTS), *map(Path, site.getsitepackages()), Path.cwd()]
    hidden = {f"{path}/": "" for path in paths}
    examine(network, Recording(Row(network.name, network.package), options.results, hidden), options.engine)


if __name__ == "__main__":
    main()
