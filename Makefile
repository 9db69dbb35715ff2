# Environments are made once, and brought up to date when setup.cfg or pyproject.toml changes.

# The extra of setup.cfg under which TensorFlow is installed. tensorflow-cpu is the smallest,
# and published for x86-64 only.
TENSORFLOW ?= $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),tensorflow-cpu,tensorflow)

# Set PYTHON to choose the interpreter. The oldest TensorFlow knows no Python after 3.12.
newest := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10)
oldest := $(or $(PYTHON),python3.10 python3.11 python3.12)

demo_env := .venv/with-$(TENSORFLOW),examples
docs_env := .venv/with-docs
test_env := .venv/with-$(TENSORFLOW),test
lint_env := .venv/with-lint
smoke_env := .venv-oldest/with-$(TENSORFLOW),test

# Ruff would read this from pyproject.toml only.
ruff_target := py$(shell sed -nE 's/^python_requires *= *>=3\.([0-9]+).*/3\1/p' setup.cfg)

TF_CPP_MIN_LOG_LEVEL ?= 2
export TF_CPP_MIN_LOG_LEVEL
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test smoke soak lint types docs clean
.NOTPARALLEL:
.SECONDARY:

help: ## List these targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' Makefile

demo: $(demo_env) ## Train a model whose gradients vanish, and one whose do not
	@.venv/bin/keras-vanish demo

# There are as many processes as cores. With more than one thread for an operation they wait for each
# other; `make smoke` and `make soak` leave the number to TensorFlow.
test: $(test_env) ## Run the tests
	TF_NUM_INTRAOP_THREADS=1 .venv/bin/python -m pytest --numprocesses auto --dist worksteal

smoke: $(smoke_env) ## Run a few tests on the oldest supported releases
	.venv-oldest/bin/python -m pytest --numprocesses auto --dist worksteal -m "smoke and not soak"

soak: $(test_env) ## Run the tests that take minutes: many crashes, long runs, large models
	.venv/bin/python -m pytest --numprocesses auto --dist worksteal -m soak

lint: $(lint_env) ## Check style and format
	.venv/bin/ruff check --target-version $(ruff_target)
	.venv/bin/ruff format --check --target-version $(ruff_target)

# The public types are checked from a test, which imports pytest.
types: $(lint_env) $(test_env) ## Check types
	.venv/bin/mypy

# Under --quiet, --strict would count no warning, and let a dead link pass. Material for MkDocs
# advertises its successor on each build.
docs: $(docs_env) ## Build the pages in docs/ as a site
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

clean: ## Remove the environments and what the tools leave
	rm -rf .venv .venv-oldest build dist site *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache

.venv/python:
	@python="$$(.ci/find-python $(newest))" && "$$python" -m venv .venv && echo "$$python" > $@

.venv-oldest/python:
	@python="$$(.ci/find-python $(oldest))" && "$$python" -m venv .venv-oldest && echo "$$python" > $@

# The lowest series that each lower bound in setup.cfg allows: `keras>=3.4` is `keras==3.4.*`.
.venv-oldest/constraints.txt: setup.cfg .venv-oldest/python
	@sed -nE 's/^ +([a-z0-9-]+)>=([0-9.]+)$$/\1==\2.*/p' setup.cfg > $@

# Python compiles what it imports, which is a small part of TensorFlow; pip would compile all of it,
# and take twice as long.
.venv/with-%: setup.cfg pyproject.toml .venv/python
	@echo "Installing keras-vanish[$*] into .venv; the first time takes minutes"
	@.venv/bin/python -m pip install --quiet --no-compile --editable ".[$*]"
	@touch $@

.venv-oldest/with-%: setup.cfg pyproject.toml .venv-oldest/constraints.txt
	@echo "Installing keras-vanish[$*] on the oldest releases into .venv-oldest"
	@.venv-oldest/bin/python -m pip install --quiet --no-compile \
		--constraint .venv-oldest/constraints.txt --editable ".[$*]"
	@touch $@
