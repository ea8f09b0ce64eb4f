# `make demo` and `make test` set up what they need; `make install` only sets up.

PYTHON ?= python3
# The index of the CPU build, so that no CUDA package is pulled in; empty (TORCH_INDEX=) for the CUDA build.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)

BIN := .venv/bin
SET_UP := .venv/.set-up

.PHONY: install demo test quick check clean

install: $(SET_UP)

$(SET_UP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
ifneq ($(TORCH_INDEX),)
	$(BIN)/pip install --quiet --no-deps --retries 0 --timeout 15 --index-url $(TORCH_INDEX) "$(TORCH)" \
		|| echo "$(TORCH_INDEX) does not answer; taking the $(TORCH) that pip finds"
endif
	$(BIN)/pip install --quiet -c constraints.txt "$(TORCH)"
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

demo: install
	$(BIN)/hsi-se train configs/demo.yaml --out runs/demo --overwrite
	$(BIN)/hsi-se eval runs/demo

test: install
	$(BIN)/python -m pytest

quick: install  # what is not slow, two at a time, a thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
