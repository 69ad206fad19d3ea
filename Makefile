# Everything a fresh Debian or Ubuntu needs is installed by the targets themselves; root or sudo is needed for
# the system packages, and only when one is missing.

VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
SYSTEM_PACKAGES = qemu-system-x86 qemu-utils
# What the tests compare with: an assembler, other shells, the guest agent on the host, archivers.
TEST_PACKAGES = nasm busybox qemu-guest-agent cpio lz4 zstd procps
# What builds the distribution guest of tests/debian, from Debian's packages.
DEBIAN_GUEST_PACKAGES = debootstrap debian-archive-keyring e2fsprogs qemu-utils

.PHONY: help setup demo test lint check tests versions bench chaos guest debian-guest debian-tests clean

help:
	@echo 'make demo          set everything up and run examples/quickstart against real virtual machines'
	@echo 'make test          set everything up, check style, types and import rules, and run the test suite'
	@echo 'make versions      the plugin with the oldest pytest, without pytest-xdist, with other Pythons (long)'
	@echo 'make bench         run the benchmarks of tests/performance and print their figures'
	@echo 'make chaos         500 signals at random moments and 1,000 starts: is anything left? (an hour)'
	@echo 'make debian-guest  build the Debian guest of the slow tests (root or sudo; a few minutes, once)'
	@echo 'make debian-tests  build it where it is missing, and run the tests that need it'
	@echo 'make clean         remove the virtual environment and what the tests left'

demo: guest
	cd examples/quickstart && ../../$(BIN)/python -m pytest -v -p no:cacheprovider

test: setup lint tests

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml scripts/system-packages
	scripts/system-packages $(SYSTEM_PACKAGES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

guest: setup
	$(BIN)/pytest-maqet guest build

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

tests: guest
	scripts/system-packages $(TEST_PACKAGES)
	$(BIN)/python -m pytest -n auto --ignore=tests/debian/test_debian_guest.py

versions: guest
	PYTHON=$(PYTHON) scripts/other-versions

bench: guest
	$(BIN)/python tests/performance/run.py

chaos: guest
	$(BIN)/python tests/chaos/chaos.py
	$(BIN)/python tests/chaos/endurance.py

debian-guest:
	scripts/system-packages $(DEBIAN_GUEST_PACKAGES)
	scripts/debian-guest

debian-tests: setup debian-guest
	$(BIN)/python -m pytest tests/debian

clean:
	rm -rf $(VENV) .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis .maqet
