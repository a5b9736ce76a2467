# Every target makes .venv first; only python3.11 with pip, make and a C compiler need to be there.
# On machines with a package index that has CPU-only builds of torch, name it: make demo PIP_FLAGS="--extra-index-url URL"

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
PIP_FLAGS ?=
JOBS ?= 2
# Such as: make zoo ZOO="--resume" or ZOO="--only tv:resnet18 timm:mixer_s32_224"
ZOO ?=
# Such as: make wild WILD="--only transformers/vit --only diffusers/unet" or WILD="--resume --write-docs"
WILD ?=
WILD_PACKAGES ?= .wild
# Such as: make faults FAULTS="--kills 20 --seed 1"; make signals SIGNALS="--count 50"
FAULTS ?=
SIGNALS ?=
# Such as: make fuzz FUZZ="report cards --count 1000"
FUZZ ?=
BIN := .venv/bin
PACKAGES := compiler passes runtime calibration

# An editable install maps the files that were there when it was made: the stamp's name changes with their list, and
# with what is installed.
FILES := $(shell find $(PACKAGES) -type f -not -name '*.pyc' | LC_ALL=C sort)
HASH := $(shell { echo '$(FILES)'; cat pyproject.toml constraints.txt; } | cksum | tr ' ' '-')
STAMP := .venv/.installed-$(HASH)

EXAMPLE := examples/fashion_mnist/model.pt
WIDE := examples/fashion_mnist/wide.pt --config examples/fashion_mnist/wide.toml
# Threads that wait must not spin: on a busy machine they would take the cores from those that work.
DEMO := OMP_WAIT_POLICY=PASSIVE
# The many processes of the tests keep their compiled code, also where the environment has Python write none.
TESTS := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

.PHONY: help venv demo test test-long fuzz gpu-check zoo wild plausibility faults signals lint types format clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(STAMP) ## make .venv and install prunec in it

$(BIN)/python:
	$(PYTHON) -m venv .venv || { $(PYTHON) -m venv --clear --without-pip .venv && $(PYTHON) -m pip --python $@ install pip; }

# Of torchvision and timm only the Python is needed, in tests/zoo; --no-deps, since they'd ask for another torch.
$(STAMP): | $(BIN)/python
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt torch
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt --config-settings editable_mode=strict -e '.[dev]'
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt --no-deps torchvision timm
	rm -f .venv/.installed-*
	touch $@

demo: $(STAMP) ## compile the example's two networks, 1.5x faster for cpu and to half the MACs for a100-2:4, into demo/
	mkdir -p demo
	$(DEMO) $(BIN)/prunec compile $(WIDE) --target cpu --max-drop-points 1.5 --force -o demo/cpu.bundle
	$(DEMO) $(BIN)/prunec compile $(EXAMPLE) --target a100-2:4 --max-drop-points 1 --force -o demo/a100-2_4.bundle
	@echo "Reports: demo/cpu.bundle/report.html and demo/a100-2_4.bundle/report.html"

test: $(STAMP) ## run the tests
	$(TESTS) -m "not long and not gpu" -n $(JOBS) --dist worksteal

test-long: $(STAMP) ## run the slower checks
	$(TESTS) -m "long and not gpu" -n $(JOBS) --dist worksteal

fuzz: $(STAMP) ## give every reader 10,000 damaged inputs; at most 45 minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz_readers --jobs $(JOBS) $(FUZZ)

gpu-check: $(STAMP) ## run what needs an NVIDIA GPU, then what needs TensorRT beside it; fails where one is missing
	$(BIN)/python -m tests.gpu
	$(BIN)/python -m pytest -m gpu tests/gpu --ignore tests/gpu/test_tensorrt.py
	$(BIN)/python -m tests.gpu tensorrt
	$(BIN)/python -m pytest -m gpu tests/gpu/test_tensorrt.py

zoo: $(STAMP) ## check 70 architectures, into docs/coverage.md
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.zoo --jobs $(JOBS) $(ZOO)

wild: $(STAMP) ## check networks of packages that people use, into build/wild; 100 minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.wild --jobs $(JOBS) --packages $(WILD_PACKAGES) $(WILD)

plausibility: $(STAMP) ## check known networks and data for false alarms; downloads 100 MB into plausibility/
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.plausibility plausibility

faults: $(STAMP) ## kill, starve and double compiles at random moments; 45 minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.reliability.faults --jobs $(JOBS) $(FAULTS)

signals: $(STAMP) ## interrupt 500 compiles at random moments; 30 minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.reliability.signals --jobs $(JOBS) $(SIGNALS)

lint: $(STAMP) ## check style and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP) ## check types
	$(BIN)/mypy $(addprefix -p prunec.,$(PACKAGES))

format: $(STAMP) ## format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what the other targets made
	rm -rf .venv .wild build demo zoo plausibility *.egg-info
