# What one does with a checkout. `make help` lists it; a fresh machine needs Python 3.11 or newer, git and make.

VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
LOCK := .ci/constraints.txt
FOR_RUN := $(VENV)/.for-run
FOR_WORK := $(VENV)/.for-work
# `make image` takes docker or podman, whichever is there; a base and flags of your own where no registry is in reach.
ENGINE ?= $(shell command -v podman || command -v docker)
IMAGE ?= localhost/henge:dev
PYTHON_IMAGE ?= docker.io/library/python:3.13-slim-bookworm
BUILD_FLAGS ?=
# Tests wait as much as they compute: two processes more than there are processors. `WORKERS=0` runs them in this one.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 2)
# Programs that the tests start by the hundred are compiled once, not at every start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run demo board test lint format bench powerloss diskfaults lantest boottest imagetest debtest manifests wheeltest image deb venv lock man dist clean

help: ## list these targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-10s %s\n", $$1, $$2 }'

run: $(FOR_RUN) ## start the daemon with the sample fleet and one demo device; stays until Ctrl-C, keeps its data
	@$(PY) contrib/first_run.py --stay $(ARGS)

demo: $(FOR_RUN) ## the same without staying; succeeds only if the device really runs the changed value
	@$(PY) contrib/first_run.py --once $(ARGS)

board: $(FOR_RUN) ## a simulated MicroPython board beside `make run`: runs the lamp example and draws its LED
	@$(PY) contrib/board.py $(ARGS)

test: $(FOR_WORK) ## run every test that needs neither root nor special hardware (ARGS="-k name" narrows it)
	@$(PY) -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(FOR_WORK) ## ruff, mypy --strict and the contracts between the floors
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@PYTHONPATH=.:agent $(VENV)/bin/lint-imports --no-logo

format: $(FOR_WORK) ## put the code into its one form
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: $(FOR_WORK) ## measure delivery, fan-out, memory; takes minutes and wants an otherwise idle machine
	@$(PY) -m tests.bench $(ARGS)

powerloss: $(FOR_WORK) ## replay power cuts at every moment of the store's life; needs strace
	@$(PY) -m tests.powerloss $(ARGS)

diskfaults: $(FOR_WORK) ## run the daemon on a disk whose calls fail one by one; needs strace, takes ten minutes
	@$(PY) -m tests.powerloss.diskfaults $(ARGS)

lantest: $(FOR_WORK) ## cut cables, lose frames, move the daemon on a network of namespaces; needs root, takes minutes
	@$(PY) -m pytest -q -rs --timeout 1200 tests/lan/elsewhere.py tests/lan/strangers.py tests/lan/trouble.py $(ARGS)

boottest: $(FOR_WORK) ## install, push, reload, hang, restart, stop on a Debian that boots under systemd; needs root and systemd-nspawn
	@$(PY) -m pytest -q -rs --timeout 900 tests/deployment/boot.py $(ARGS)

manifests: $(FOR_WORK) $(VENV)/.for-manifests ## hold k8s/ against Kubernetes' own schemas; needs kubectl
	@$(PY) -m pytest -q -rs --timeout 900 tests/deployment/manifests.py $(ARGS)

wheeltest: $(FOR_WORK) $(VENV)/.for-wheel ## build the wheel, install it with pipx, serve from there, uninstall
	@$(PY) -m pytest -q -rs --timeout 600 tests/deployment/wheel.py $(ARGS)

image: ## build the container image with docker or podman (IMAGE, PYTHON_IMAGE, BUILD_FLAGS)
	@[ -n "$(ENGINE)" ] || { echo "Neither podman nor docker is installed." >&2; exit 1; }
	@$(ENGINE) build -f Containerfile -t $(IMAGE) --build-arg BASE=$(PYTHON_IMAGE) \
		--build-arg VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' henge_protocol/__init__.py) \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null) $(BUILD_FLAGS) .

imagetest: $(FOR_WORK) ## build the image on a Debian base and run it read-only without rights; needs root, podman, mmdebstrap
	@$(PY) -m pytest -q -rs --timeout 900 tests/deployment/image.py $(ARGS)

deb: man ## build a Debian package for this machine's Debian into dist/
	@contrib/deb.sh dist

debtest: $(FOR_WORK) ## build the package, install and purge it in a fresh Debian that boots; needs root, systemd-nspawn, mmdebstrap
	@$(PY) -m pytest -q -rs --timeout 900 tests/deployment/package.py $(ARGS)

venv: $(FOR_WORK) ## make .venv with everything that testing and linting need

lock: ## write .ci/constraints.txt anew from the newest versions that setup.cfg allows
	@$(find_python); set -e; \
	fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	"$$python" -m venv "$$fresh"; \
	echo "Resolving anew ..."; \
	"$$fresh/bin/python" -m pip --disable-pip-version-check --quiet install -e '.[test,lint,manifests,wheel]'; \
	{ sed '/^[^#]/,$$d' $(LOCK); \
	  "$$fresh/bin/python" -m pip --disable-pip-version-check freeze --exclude-editable; } > $(LOCK).new; \
	mv $(LOCK).new $(LOCK); echo "Wrote $(LOCK)"

man: $(FOR_RUN) ## write the man pages of all commands into man/
	@PYTHONPATH=.:agent $(PY) contrib/manpages.py

dist: $(FOR_RUN) man ## build the wheel into dist/, with its man pages
	@rm -rf build
	@$(PIP) wheel --no-deps --wheel-dir dist .
	@rm -rf build; ls dist/*.whl

clean: ## remove .venv and everything that building, testing and linting left (not the data of `make run`)
	rm -rf $(VENV) build dist man *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment, in two steps so that `make run` does not wait for test tools. A stamp makes the second call free.

# A missing or dangling interpreter (the system's Python was upgraded) makes the stamps worthless.
ifeq ($(realpath $(PY)),)
.PHONY: $(FOR_RUN) $(FOR_WORK)
endif

$(FOR_RUN): setup.cfg pyproject.toml $(LOCK)
	@$(make_venv)
	@echo "Installing henge into $(VENV) (about half a minute, once) ..."
	@$(PIP) install -e . -c $(LOCK)
	@touch $@

$(FOR_WORK): setup.cfg pyproject.toml $(LOCK)
	@$(make_venv)
	@echo "Installing henge with its test and lint tools into $(VENV) (about a minute, once) ..."
	@$(PIP) install -e '.[test,lint]' -c $(LOCK)
	@touch $(FOR_RUN) $@

$(VENV)/.for-manifests: setup.cfg
	@$(PIP) install -e '.[manifests]' -c $(LOCK)
	@touch $@

$(VENV)/.for-wheel: setup.cfg
	@$(PIP) install -e '.[wheel]' -c $(LOCK)
	@touch $@

# Shell: leave in $python the newest usable interpreter. PYTHON=/path/to/python3 chooses another.
# Each candidate is run, because a name on the PATH may be a shim without a version behind it.
CANDIDATES := $(or $(PYTHON),python3.13 python3.12 python3.11 python3)
define find_python
python=; bare=; \
for candidate in $(CANDIDATES); do \
	"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	"$$candidate" -c 'import ensurepip, venv' 2>/dev/null && { python=$$candidate; break; }; \
	bare=$${bare:-$$candidate}; \
done; \
if [ -z "$$python" ] && [ -n "$$bare" ]; then \
	version=$$("$$bare" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	echo "$$bare cannot make virtual environments: its module ensurepip is missing." >&2; \
	echo "On Debian, Ubuntu and Raspberry Pi OS: sudo apt install python$$version-venv" >&2; exit 1; \
elif [ -z "$$python" ]; then \
	echo "henge needs Python 3.11 or newer and found none (looked for: $(CANDIDATES))." >&2; \
	echo "On Debian, Ubuntu and Raspberry Pi OS: sudo apt install python3 python3-venv" >&2; \
	echo "If it is installed elsewhere: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; \
fi
endef

# Shell: make $(VENV) unless it is there and works; half-made or broken ones are made anew.
define make_venv
$(PY) -m pip --version >/dev/null 2>&1 || { \
	$(find_python); \
	echo "Making $(VENV) with $$("$$python" --version) ..."; \
	"$$python" -m venv --clear $(VENV); \
}
endef
