# Isthmus: everything a developer or CI does. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/isthmus
# The development environment lies in the cache, one for each set of pinned versions.
VENV := $(CACHE)/development-$(shell cat constraints.txt pyproject.toml | sha256sum | cut -c1-12)
BIN := $(VENV)/bin
RUN := PYTHONPATH=operator:. $(BIN)/python
PARTS ?= kubernetes,slurm
# The tests use playgrounds of their own; what a shell points at is not theirs.
HERMETIC := env -u KUBECONFIG -u SLURM_CONF -u SLURM_PREFIX -u CLUSTER -u STATE -u INSTANCE -u PARTS

# When this make began: its tests end in time also where all had to be built first.
ISTHMUS_MAKE_BEGAN := $(or $(ISTHMUS_MAKE_BEGAN),$(shell date +%s))

export PARTS ISTHMUS_MAKE_BEGAN

##@ Use
.PHONY: help
help: ## Show this list.
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/ready ## Start the playground, serve the sample on both schedulers, show it (CLUSTER=own: your cluster).
	@$(RUN) -m playground demo

.PHONY: playground
playground: $(VENV)/ready ## Start a real Kubernetes and a real SLURM and leave them running (PARTS=, STATE=, INSTANCE=, CPUS=, SLURM_PREFIX=).
	@$(RUN) -m playground up

.PHONY: slurm-releases
slurm-releases: $(VENV)/ready ## Fetch SLURM 24.11 and the newest, beside the machine's own; prints what SLURM_PREFIX= may name.
	@$(RUN) -m playground slurm-prefix 24.11 newest

.PHONY: down
down: $(VENV)/ready ## Stop the playground and remove every trace of it.
	@$(RUN) -m playground down

##@ Develop
.PHONY: test
test: prepare ## Run all tests: lint, types, import contracts, every layer of tests/, side by side (LANES="A D", REPORT=folder).
	@$(HERMETIC) $(RUN) -m tests.run $(LANES)

.PHONY: prepare
prepare: $(VENV)/ready ## Build and fetch all that takes minutes the first time (Kubernetes, helm, images); starts nothing.
	@$(HERMETIC) $(RUN) -m playground prepare

.PHONY: acceptance
acceptance: prepare ## Run what is shown before a release (2000 seeds, all mutations); writes docs/acceptance/.
	@$(HERMETIC) $(RUN) -m tests.acceptance

.PHONY: before
before: $(VENV)/ready ## Show each finding on the commit it was found in, and that it is not here (COMMIT=another).
	@$(HERMETIC) $(RUN) -m tests.before $(COMMIT)

.PHONY: matrix
matrix: $(VENV)/ready ## Run the core of the SLURM tests on 22.05, 24.11 and the newest at once; all three must be there.
	@$(HERMETIC) MATRIX=required $(RUN) -m pytest tests/real/test_slurm_matrix.py

.PHONY: lint
lint: $(VENV)/ready ## Check format, style, types and import contracts.
	@test ! -e operator/__init__.py -a ! -e operator.py || { echo "operator/__init__.py or operator.py would hide Python's own module operator: remove it"; exit 1; }
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@MYPYPATH=operator $(BIN)/mypy
	@PYTHONPATH=operator $(BIN)/lint-imports --no-cache

.PHONY: crds
crds: $(VENV)/ready ## Write crds/ from the pydantic models, and the copies of crds/ and deploy/ in the charts.
	@$(RUN) -m isthmus crds --directory crds
	@cp crds/*.yaml charts/isthmus-cluster/files/crds/
	@cp deploy/cluster.yaml charts/isthmus-cluster/files/
	@cp deploy/rbac.yaml deploy/tunnels.yaml charts/isthmus/files/

.PHONY: lock
lock: $(VENV)/ready ## Fix what the images install by hash, after a change of pyproject.toml or constraints.txt.
	@rm -rf $(CACHE)/lock-tool && python3 -m venv $(CACHE)/lock-tool
	@$(CACHE)/lock-tool/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
	@UV=$(CACHE)/lock-tool/bin/uv $(RUN) -m playground.lockfiles

.PHONY: digests
digests: ## Write the digests that the tags of images.lock have now (needs docker with buildx, or skopeo).
	@deploy/digests.sh images.lock

.PHONY: images
images: ## Build both images from images.lock and the locks (REGISTRY=, TAG=, DOCKER=docker).
	@test -n "$(REGISTRY)" -a -n "$(TAG)" || { echo "write REGISTRY=registry.example.org/isthmus and TAG=0.1.0"; exit 1; }
	@for target in isthmus isthmus-front; do \
	  $(or $(DOCKER),docker) build --target $$target --tag $(REGISTRY)/$$target:$(TAG) \
	    $$(grep -v '^\#' images.lock | sed 's/^/--build-arg /') . || exit 1; \
	done

.PHONY: simulate
simulate: $(VENV)/ready ## Run seeds of the simulation (SEEDS=how many), or replay one with its trace (SEED=number); in a given world (SHAPE=name).
	@$(HERMETIC) $(RUN) -m tests.simulation $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SEED),--seed $(SEED)) $(if $(SHAPE),--shape "$(SHAPE)")

.PHONY: mutations
mutations: $(VENV)/ready ## Break each rule on purpose; the simulation must notice (SEEDS= at most); writes docs/reliability.md.
	@$(HERMETIC) $(RUN) -m tests.simulation.mutants --seeds $(or $(SEEDS),2000) --into docs/reliability.md

.PHONY: bench
bench: $(VENV)/ready ## Measure against raw commands in the same run.
	@$(HERMETIC) $(RUN) -m bench

.PHONY: bench-scale
bench-scale: $(VENV)/ready ## Measure with thousands of deployments and a thousand jobs (half an hour).
	@$(HERMETIC) $(RUN) -m bench.scale
	@$(HERMETIC) $(RUN) -m bench.submissions

.PHONY: soak
soak: $(VENV)/ready ## Run the long forms of the tests.
	@$(HERMETIC) ISTHMUS_EXAMPLES=random $(RUN) -m pytest tests/unit --timeout=3600
	@$(HERMETIC) $(RUN) -m pytest tests -m soak --timeout=3600

.PHONY: engines
engines: $(VENV)/ready ## Run real vLLM and SGLang on processors and write docs/engines.md (some GB, most of an hour; FRESH=1, SITES=, ROWS=).
	@$(HERMETIC) $(RUN) -m tests.engines $(if $(FRESH),--fresh) $(if $(SITES),--sites $(SITES)) $(if $(ROWS),--rows $(ROWS))

# No prerequisites: the folder is named after their content, and a fresh clone has new file times.
$(VENV)/ready:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Isthmus needs Python 3.11 or newer as python3; this is $$(python3 --version)"; exit 1; }
	@python3 -c 'import venv, ensurepip' 2>/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "python3 has no venv module: apt-get install python3-venv"; exit 1; }; \
	  echo "Installing Debian's python3-venv (it stays)"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null; }
	@echo "Installing the development environment into $(VENV) (about a minute the first time)"
	@rm -rf $(VENV) && python3 -m venv $(VENV)
	@$(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print("\n".join(p["dependencies"] + p["optional-dependencies"]["dev"]))' > $(VENV)/requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement $(VENV)/requirements.txt
	@touch $@
