# The commands of the README. Needs Python >= 3.11, git and make; installs the rest into .venv.
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := agent initpuller shared
LOCK := uv pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --no-header \
	--universal --python-version 3.11
UPGRADE := --upgrade
# The lock files agree on the version of each package, so that any of them can be installed together.
PINNED := --constraint requirements-dev.lock
PYTEST := $(BIN)/python -m pytest
WORKERS = --tx "$(1)*popen//python=tests/isolated-python" --dist worksteal
# More workers than cores, because tests wait for other processes.
SUITE := $(call WORKERS,4) -m "not long and not vm and not images and not cluster and not platforms and not browser"
PROSE := *.md docs charts agent initpuller shared tests bench
CHECK_PYTHON := $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "plexodus needs Python 3.11 or newer. Name one: make PYTHON=python3.12 …"; exit 1; }

# Debian's name of one, for the images and the package.
MACHINE := $(shell dpkg --print-architecture 2>/dev/null)
ARCHITECTURE ?= $(MACHINE)

# Wherever the accelerator is built. Crates are compiled once for all of them.
WHEEL := $(CURDIR)/build/native/wheel
ACCELERATOR := $(shell find native -name '*.rs') native/Cargo.toml native/pyproject.toml native/crates.lock native/build
export CARGO_TARGET_DIR := $(CURDIR)/build/native/target

.PHONY: help setup tools lint test test-python coverage test-long test-all campaign test-vm images test-images test-arm64 test-cluster test-browser screenshots test-platforms charts deb demo bench bench-downtime bench-fleet bench-scale footprint lock clean

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## */\1\t/' | expand -t 14

setup: .venv/installed build/native/installed  ## a virtual environment with everything, from the hashed lock file

.venv/installed: requirements-dev.lock pyproject.toml
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --require-hashes --requirement requirements-dev.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	# As pip does, but on all cores, and without what nobody imports.
	$(BIN)/python -m compileall -q -j 0 -x 'kubernetes/(aio/)?client/(api|models)/' .venv $(PACKAGES)
	touch $@

# Without cargo there is no wheel, and nothing is written, so that the next run looks for cargo again.
build/native/installed: .venv/installed $(ACCELERATOR)
	@native/build wheel $(CURDIR)/$(BIN)/maturin $(WHEEL)
	@[ ! -e $(WHEEL)/*.whl ] || { $(BIN)/pip install --quiet --no-index --no-deps --force-reinstall $(WHEEL)/*.whl && touch $@; }

tools: ## the programs that tests compare with (rsync, tar, zstd …), by apt-get where missing
	@tests/install-tools

lint: lint-rust lint-python lint-prose  ## format, lint, types, layers, length of files, spelling, prose; Rust's where cargo is

.PHONY: lint-rust lint-python lint-prose
lint-rust:  # needs no .venv, so it can run while that is made
	native/build lint

lint-python: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests
	$(BIN)/lint-imports --no-logo
	$(BIN)/interrogate --quiet tests
	@long=$$(git ls-files '*.py' | xargs wc -l | awk '$$1 > 400 && $$2 != "total"'); \
		[ -z "$$long" ] || { echo "files over 400 lines:"; echo "$$long"; exit 1; }

lint-prose: .venv/installed
	$(BIN)/codespell $(PACKAGES) native charts tests bench docs *.md
	@tests/install-lint-tools
	build/tools/bin/vale --output=line $(PROSE)
	build/tools/bin/vale --config .vale/messages.ini --output=line $(PACKAGES)

test:  ## everything that must hold before a change lands
	$(MAKE) --jobs=2 --output-sync setup tools lint build/tests/compiled
	$(PYTEST) $(SUITE)

# pytest compiles all tests for their assertions: here once, instead of in each worker, also where Python is told not to.
build/tests/compiled: .venv/installed $(shell find tests -name '*.py')
	PYTHONDONTWRITEBYTECODE= $(PYTEST) --quiet --collect-only >/dev/null
	@mkdir -p $(@D) && touch $@

test-python: setup tools  ## the tests of `make test` without the accelerator: Python alone does everything
	PLEXODUS_NATIVE=0 $(PYTEST) $(SUITE)

coverage: setup tools  ## branch coverage of both programs by `make test`; volume, pull and cutover: 90 % at least
	rm -rf build/coverage && mkdir -p build/coverage
	# Left out: the test of the sidecar's memory, to which measuring adds. A failed test fails this target, too, but only
	# after the report.
	$(BIN)/coverage run -m pytest $(SUITE) \
		--deselect tests/cluster/test_watch.py::test_plex_starts_and_all_is_there; status=$$?; \
	$(BIN)/coverage combine --quiet && $(BIN)/coverage report \
		&& $(BIN)/coverage report --fail-under=90 --include='initpuller/volume/*,initpuller/pull/*,agent/cutover/*' \
		&& exit $$status

test-long: setup tools  ## what takes minutes
	$(PYTEST) -m long $(call WORKERS,2) --timeout 1800 -o faulthandler_timeout=0

test-all:  ## every suite in order, each with its output in build/test-all/, one line for each (as root; hours; SUITES=)
	@tests/run-all $(SUITES)

campaign: setup tools  ## random faults against whole moves of the real programs, and a table (as root, gcc; CAMPAIGN=--help)
	PYTHONPATH=tests $(BIN)/python -m campaign $(CAMPAIGN)

test-vm: setup tools deb  ## the package on a real systemd, and attackers (as root; minutes)
	tests/install-vm-tools all
	tests/make-vm build/vm/base bookworm
	tests/make-vm build/vm/newer trixie
	$(PYTEST) -m vm --timeout 600 -o faulthandler_timeout=0

images: setup  ## the container images, without an engine (as root; ARCHITECTURE=arm64 under emulation)
	tests/install-image-tools $(ARCHITECTURE)
	tests/make-images build/images $(ARCHITECTURE)

test-images: images tools  ## pulls inside containers of them, hardened as in a cluster (as root)
	$(PYTEST) -m "images and not foreign" --timeout 300 -o faulthandler_timeout=0

test-cluster: images tools deb  ## the charts in a real API server, Plex's Pod on a real node (as root, with Go)
	tests/install-vm-tools all
	tests/make-vm build/vm/base bookworm
	tests/install-cluster-tools
	$(PYTEST) -m cluster --timeout 300 -o faulthandler_timeout=0

test-browser: setup tools  ## the agent's page in Chromium, and axe-core (as root where they are missing)
	tests/install-browser-tools
	$(PYTEST) -m browser

screenshots: test-browser  ## pictures of the page, for docs/
	cp build/page/page-*.png docs/

test-platforms: images tools  ## Plex in a real Docker and a real Podman, Compose; other filesystems, NFS, SMB (as root)
	tests/install-platform-tools
	tests/make-machine build/machine
	$(PYTEST) -m platforms --timeout 300 -o faulthandler_timeout=0

charts: setup  ## values.schema.json, from the comments in values.yaml
	$(BIN)/python charts/make_schema.py charts/plexodus

test-arm64:  ## those of test-images, and the package, for arm64 under emulation (as root; 22 minutes, the first time)
	$(MAKE) images deb tools ARCHITECTURE=arm64
	PLEXODUS_TEST_ARCHITECTURE=arm64 $(PYTEST) -m images --timeout 900 -o faulthandler_timeout=0

deb: setup  ## build/plexodus-agent_*.deb, for Debian 12 and Ubuntu 22.04 and newer (ARCHITECTURE=arm64 after images)
	tests/install-vm-tools
ifeq ($(ARCHITECTURE),$(MACHINE))
	agent/debian/build $(BIN)/python
else
	tests/make-foreign-deb build/images $(ARCHITECTURE)
endif

demo: build/demo/installed  ## a whole move, with a stand-in for Plex that writes; a minute, with installation
	PYTHONPATH=tests build/demo/bin/python -m bench.demo

build/demo/installed: requirements-agent.lock requirements-puller.lock requirements-build.lock pyproject.toml \
		$(shell find $(PACKAGES) -name '*.py') $(ACCELERATOR)
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv build/demo
	build/demo/bin/pip install --quiet --require-hashes -r requirements-agent.lock -r requirements-puller.lock -r requirements-build.lock
	build/demo/bin/pip install --quiet --no-deps --no-build-isolation --force-reinstall .
	native/build wheel $(CURDIR)/build/demo/bin/maturin $(WHEEL)
	[ ! -e $(WHEEL)/*.whl ] || build/demo/bin/pip install --quiet --no-index --no-deps --force-reinstall $(WHEEL)/*.whl
	touch $@

bench: setup tools  ## times beside tar over HTTP, zstd, rsync, SSH and cp, downtime, stages (as root; 55 minutes; BENCH=--help)
	bench/install-tools
	PYTHONPATH=tests $(BIN)/python -m bench.compare --touch-memory $(BENCH)
	PYTHONPATH=tests $(BIN)/python -m bench.compare --link 1gbit --peers plexodus RS --rounds 3 $(BENCH)
	PYTHONPATH=tests $(BIN)/python -m bench.downtime
	PYTHONPATH=tests $(BIN)/python -m bench.stages

bench-downtime: setup tools  ## how long Plex is down, and what the delta costs (DOWNTIME=--help)
	PYTHONPATH=tests $(BIN)/python -m bench.downtime $(DOWNTIME)

bench-scale: setup tools  ## how each part grows with the library, and what 10 TB in 50 million entries would take (as root; SCALE=--help)
	PYTHONPATH=tests $(BIN)/python -m bench.scale --touch-memory $(SCALE)

bench-fleet: setup build/tools/bin/helm  ## the chart with 500 migrations beside one: seconds, objects, sizes (with Go; FLEET=--help)
	$(BIN)/python -m bench.fleet_chart $(FLEET)

# Of the version that the tests use.
build/tools/bin/helm:
	GOBIN=$(CURDIR)/$(@D) go install -ldflags '-s -w' $$(sed -n 's/^install helm //p' tests/install-cluster-tools)

footprint: setup  ## memory and disk that a pull of 250,000 entries takes
	PYTHONPATH=tests $(BIN)/python -m bench.footprint

lock:  ## pin the newest versions (needs uv and cargo; UPGRADE= keeps those that are pinned)
	$(LOCK) $(UPGRADE) pyproject.toml --extra agent --extra puller --group dev -o requirements-dev.lock
	$(LOCK) pyproject.toml --extra agent $(PINNED) -o requirements-agent.lock
	$(LOCK) pyproject.toml --extra puller $(PINNED) -o requirements-puller.lock
	$(LOCK) --group build $(PINNED) -o requirements-build.lock  # for the images
	native/build pin $(UPGRADE)

clean:  ## remove what was installed and made
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
