# The one door for people. `make demo` and `make test` set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow faults faults-full exact exact-full lint bench clean

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .[test,lint]
	touch $@

# Draw a small data set, train on two CPU workers, evaluate.
demo: $(VENV)/installed
	$(BIN)/fcn-launch data make-demo --out demo --overwrite
	$(BIN)/fcn-launch --cluster 2xcpu.yaml train --config demo \
	  --set data_file=demo/train.mindrecord --set data_root=demo --set data_lst=demo/val.txt
	rm -rf demo/masks
	$(BIN)/fcn-launch eval --save-masks demo/masks

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

# The tests that take minutes and those that need PyTorch, which is installed for them.
test-slow: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check torch
	$(BIN)/python -m pytest -n auto --dist loadfile -m "slow or torch"

# Launches that are broken on purpose: up to 20 drawn cases of each promise; less than ten minutes on two cores.
faults: $(VENV)/installed
	$(BIN)/python tests/faults

# As many times as the promises speak of, beside torchrun and msrun; less than an hour.
faults-full: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check torch
	$(BIN)/python tests/faults --full --out benchmarks/results/faults.json

# Trainings that are killed and preempted, and end with the same bits; about six minutes on two cores.
exact: $(VENV)/installed
	$(BIN)/python tests/exact

# Fifty kills, as many preemptions in all phases, a thousand kills of saves; two hours.
exact-full: $(VENV)/installed
	$(BIN)/python tests/exact --full --out benchmarks/results/exact.json

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# PyTorch is the peer of some.
bench: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check torch
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) demo build *.egg-info
