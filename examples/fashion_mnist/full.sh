#!/usr/bin/env bash
# Compile at 2x fewer MACs plus 2:4 with all 60,000 training images, for three seeds, and fail where the mean loss
# of accuracy on the 10,000 test images is more than 0.2 points. Needs Debian's package dataset-fashion-mnist.
set -euo pipefail
cd "$(dirname "$0")"
export PATH="$PWD/../../.venv/bin:$PATH"

data=/usr/share/datasets/fashion-mnist
if [ ! -d "$data" ]; then
    echo "$data doesn't exist: apt-get install dataset-fashion-mnist, or name another folder in full.toml" >&2
    exit 1
fi

reports=()
for seed in 0 1 2; do
    bundle="full-seed$seed.bundle"
    prunec compile model.pt --config full.toml --target a100-2:4 --no-engine --seed "$seed" -o "$bundle" --force
    reports+=("$bundle/report.json")
done

python - "${reports[@]}" <<'PYTHON'
import json
import sys
from pathlib import Path

LIMIT_POINTS = 0.2

lost = []
for path in sys.argv[1:]:
    report = json.loads(Path(path).read_text())
    dense, recovered = report["accuracy"]["dense"], report["accuracy"]["recovered"]
    lost.append(100 * (dense - recovered))
    print(
        f"{path}: {report['macs']['speedup']:.2f}x fewer MACs, top-1 {100 * dense:.2f} % -> {100 * recovered:.2f} % "
        f"on {report['data']['test_images']} test images, {lost[-1]:.2f} points lost"
    )
mean = sum(lost) / len(lost)
verdict = "PASSED" if mean <= LIMIT_POINTS else "FAILED"
print(f"{verdict} | mean of {len(lost)} seeds: {mean:.2f} points lost, limit {LIMIT_POINTS}")
sys.exit(verdict == "FAILED")
PYTHON
