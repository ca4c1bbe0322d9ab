# Every target sets up what it needs in .venv; `make` alone lists them.
PYTHON ?= python3
BASE_IMAGE ?=
FOR ?= 60
ARGS ?=
# One process more than two cores: many tests wait for brokers and processes.
JOBS ?= 3
WITHIN ?= 900
LONG = --for $(WITHIN) $(if $(N),--n $(N)) $(if $(FRESH),--fresh)
UV ?= uv
DIST ?= dist
SHELL := bash

VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

# Stamps carry a checksum of what they were made from, so that a stale environment is seen whatever the clocks say.
BASE := $(shell $(PYTHON) -c 'import sys; print(sys.version, sys.base_prefix)' 2>/dev/null | cksum | cut -d' ' -f1)
NEEDS := $(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
MADE := $(VENV)/.made-$(BASE)
DEMO := $(VENV)/.demo-$(BASE)-$(NEEDS)
DEV := $(VENV)/.dev-$(BASE)-$(NEEDS)

# $(call install,extra): pip's log goes to a file, the names of the packages to the terminal.
define install
	@echo "==> setting up $(VENV) for $(1) (once; a minute or two)"
	@set -o pipefail; start=$$SECONDS; \
	$(BIN)/python -m pip install --no-compile --progress-bar off -c constraints.txt -e '.[$(1)]' 2>&1 | tee $(VENV)/setup.log \
	  | awk '/^Collecting / { sub(/[^A-Za-z0-9_.-].*/, "", $$2); printf " %s", $$2; fflush() } /^Installing collected/ { printf "\n    installing"; fflush() } END { print "" }' \
	  || { echo "==> setting up failed; the whole log is in $(VENV)/setup.log, and ends so:"; tail -n 15 $(VENV)/setup.log; exit 1; }; \
	echo "    done in $$((SECONDS - start)) s"
endef

.PHONY: help demo test check bench soak fuzz browser image-test clean constraints lock wheel sbom audit python mosquitto

help:
	@echo 'make demo       simulated cameras, worker and status page for $(FOR) s (make demo FOR=0: until Ctrl-C)'
	@echo 'make test       every test that this machine can run; what is left out is named (ARGS="-k gate" picks)'
	@echo 'make check      ruff and mypy'
	@echo 'make bench      how fast engines and gate are here (CONFIG=edge.yaml: the whole worker too)'
	@echo 'make soak       the long runs, into tests/RESULTS.md (ROW=1 N=100: a hundred more of row 1; WITHIN=900 s a row; FRESH=1)'
	@echo 'make fuzz       the same for the rows that feed broken input'
	@echo 'make browser    the status page in headless Chromium'
	@echo 'make image-test  build the CPU image with buildah and let it judge a photo (root; says what it needs)'
	@echo 'make clean      remove what these targets made'
	@echo 'make constraints  pin the newest versions for Python 3.10 to 3.14, then make lock (needs uv)'
	@echo 'make lock       the same versions with the hash of each file, for the images, into requirements/ (needs uv)'
	@echo 'make wheel      the wheel, the same bytes from the same commit, into dist/'
	@echo 'make sbom       what the images install as CycloneDX, into dist/ (needs uv)'
	@echo 'make audit      known weaknesses of what the images install (needs uv and a service on the net)'

demo: $(DEMO)
	@echo '==> edge demo $(if $(filter 0,$(FOR)),until Ctrl-C,for $(FOR) s (make demo FOR=0 lets it stay until Ctrl-C))'
	@$(BIN)/edge demo --for $(FOR) $(ARGS)

test: $(DEV) mosquitto
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(DEV)
	$(BIN)/engines bench edge/demo/models/features.onnx
	$(BIN)/calibrate bench-gate
	$(if $(CONFIG),$(BIN)/edge bench --config $(CONFIG) $(ARGS))

# With ROW only that row is run; it resumes where its earlier runs ended.
soak: $(DEV) mosquitto
	$(if $(ROW),,$(BIN)/python -m pytest -m soak $(ARGS))
	$(BIN)/python -m tests.soak $(if $(ROW),--row $(ROW),--kind soak) $(LONG)

fuzz: $(DEV)
	$(BIN)/python -m tests.soak $(if $(ROW),--row $(ROW),--kind fuzz) $(LONG)

browser: $(DEV)
	$(BIN)/python -m pytest -m browser $(ARGS)

# BASE_IMAGE names a base image that can be had; without it debootstrap makes one.
image-test: $(DEV)
	@BASE_IMAGE='$(BASE_IMAGE)' $(BIN)/python -m tests.deploy.image

clean:
	rm -rf $(VENV) build dist out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find edge engines calibrate deploy tests -name __pycache__ -prune -exec rm -rf {} +

constraints:
	@command -v $(UV) >/dev/null || { echo 'uv is needed: type  pip install uv'; exit 1; }
	@set -eo pipefail; { sed -n '/^#/p' constraints.txt; \
	  $(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.10 --upgrade --quiet \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-package parrotgate \
	  | $(PLAIN); \
	} > constraints.new; mv constraints.new constraints.txt
	@echo 'constraints.txt is written; make test proves it'
	@$(MAKE) --no-print-directory lock

# What the images install, each file with its hash, at the versions of constraints.txt. setuptools builds our own wheel.
LOCK = $(UV) pip compile --universal --python-version 3.10 --generate-hashes -c constraints.txt --quiet --no-header \
  --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-package parrotgate
PLAIN = sed "s/python_full_version == '\(3\.[0-9]*\)\.\*'/python_version == '\1'/g; s/python_full_version/python_version/g"

lock:
	@command -v $(UV) >/dev/null || { echo 'uv is needed: type  pip install uv'; exit 1; }
	@set -eo pipefail; mkdir -p requirements; head='# Written by make lock, do not edit.'; \
	for extras in cpu cpu,tflite convert; do \
	  { echo "$$head"; echo setuptools | $(LOCK) pyproject.toml - --extra $${extras//,/ --extra } | $(PLAIN); } > lock.new; \
	  mv lock.new requirements/$$extras.txt; \
	done; \
	{ echo "$$head"; echo pycuda | $(LOCK) - | $(PLAIN); } > lock.new; mv lock.new requirements/pycuda.txt
	@echo 'requirements/ is written'

# The same sources give the same bytes: times come from the last commit, rights from the umask.
wheel: $(DEV)
	@umask 022; rm -rf build; SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
	  $(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w $(DIST) . && sha256sum $(DIST)/parrotgate-*.whl

sbom:
	@command -v $(UV) >/dev/null || { echo 'uv is needed: type  pip install uv'; exit 1; }
	@mkdir -p $(DIST); for lock in requirements/*.txt; do \
	  out=$(DIST)/sbom-$$(basename $$lock .txt).json; \
	  $(UV) tool run --quiet --from 'cyclonedx-bom==7.*' cyclonedx-py requirements --output-reproducible -o $$out $$lock \
	  && echo $$out || exit 1; \
	done

# Asks a service on the net which of the locked versions have known weaknesses.
audit:
	@command -v $(UV) >/dev/null || { echo 'uv is needed: type  pip install uv'; exit 1; }
	@for lock in requirements/*.txt; do \
	  $(UV) tool run --quiet 'pip-audit==2.*' --strict --require-hashes --disable-pip -r $$lock || exit 1; \
	done

$(MADE): | python
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(DEMO): $(MADE)
	$(call install,demo)
	@rm -f $(VENV)/.demo-* $(VENV)/.dev-*
	@touch $@

$(DEV): $(MADE)
	$(call install,dev)
	@rm -f $(VENV)/.demo-* $(VENV)/.dev-*
	@touch $@ $(DEMO)

# A Python that can make virtual environments, or the one line to type.
python:
	@if command -v apt-get >/dev/null; then how='sudo apt-get install python3 python3-venv'; \
	elif command -v dnf >/dev/null; then how='sudo dnf install python3'; \
	elif command -v brew >/dev/null; then how='brew install python'; \
	else how='install Python 3.10 or newer from https://www.python.org/downloads/'; fi; \
	for other in python3.14 python3.13 python3.12 python3.11 python3.10; do \
	  if $$other -c 'import ensurepip, venv' 2>/dev/null; then how="make $(firstword $(MAKECMDGOALS) demo) PYTHON=$$other"; break; fi; \
	done; \
	if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then \
	  echo "Python 3.10 or newer is needed, and '$(PYTHON)' is not. Type:  $$how"; exit 1; \
	elif ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "'$(PYTHON)' cannot make virtual environments. Type:  $$how"; exit 1; \
	fi

# The real broker for the tests, where we may install it; without it the tests say what they left out.
mosquitto:
	@export PATH="$$PATH:/usr/sbin:/usr/local/sbin" DEBIAN_FRONTEND=noninteractive; \
	if command -v mosquitto >/dev/null && command -v mosquitto_pub >/dev/null; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then as_root=; elif sudo -n true 2>/dev/null; then as_root='sudo -n'; else exit 0; fi; \
	echo '==> installing mosquitto with apt'; log=$$(mktemp); \
	install() { $$as_root apt-get install -y -qq --no-install-recommends mosquitto mosquitto-clients; }; \
	{ install || { $$as_root apt-get update -qq && install; }; } </dev/null >"$$log" 2>&1 \
	  || { echo '    apt could not install it:'; tail -n 3 "$$log"; }; \
	rm -f "$$log"
