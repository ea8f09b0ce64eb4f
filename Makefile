# `make demo` and `make test` set up what they need; `make install` only sets up.

PYTHON ?= python3
# The index of the CPU build, so that no CUDA package is pulled in; empty (TORCH_INDEX=) for the CUDA build.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)

BIN := .venv/bin
SET_UP := .venv/.set-up

.PHONY: install demo test quick exhaustive check docs site clean

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

demo: install  # the real Indian Pines, or a synthetic scene where it cannot be had
	@if $(BIN)/hsi-se scene fetch indian-pines; then \
		$(BIN)/hsi-se gap configs/indian_pines_demo.yaml --out runs/demo; \
	else \
		echo "Indian Pines cannot be had here, so the demo uses a synthetic scene"; \
		$(BIN)/hsi-se gap configs/demo.yaml --out runs/demo-synthetic; \
	fi

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test: install  # two files at a time, a thread each
	$(PYTEST) -m "not exhaustive" -n 2 --dist loadfile

quick: install  # what is not slow
	$(PYTEST) -m "not slow and not exhaustive" -n 2 --dist loadfile

exhaustive: install  # what `make test` leaves out
	$(PYTEST) -m exhaustive -n 2

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install  # on this machine, built anew when a page changes
	$(BIN)/mkdocs serve

site: install  # into site/; a warning is an error
	$(BIN)/mkdocs build --strict

clean:
	rm -rf site .venv *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
