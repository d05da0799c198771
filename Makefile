# make run: install and serve on $PORT (8000). make test: install what tests need, and test.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test test-fast chaos bench lint lock clean

# Without AUTH, for this machine alone.
run: .venv/installed
	@[ -n "$$AUTH$$API_KEYS$$BIND_HOST" ] || export BIND_HOST=127.0.0.1; exec $(BIN)/gunicorn wsgi:app

test: .venv/installed-dev browser node-clients
	@$(MAKE) --no-print-directory test-fast
	$(BIN)/python -m pytest tests/live tests/browser -n 3 --dist worksteal

# The layers that take seconds, in two processes. Not pytest's own workers: gevent has to be in place before
# they are, and they have threads by then.
HALF := $(wildcard tests/unit/test_[a-l]*.py)
.PHONY: test-half test-other-half
test-fast: .venv/installed-dev
	@$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target test-half test-other-half

test-half:
	$(BIN)/python -m pytest -p tests._patched $(HALF)

test-other-half:
	$(BIN)/python -m pytest -p tests._patched tests/unit tests/contracts tests/web $(HALF:%=--ignore=%)

# Harm the real service under load, and check from outside that no promise is broken; see
# docs/reliability.md. Sizes: make chaos CHAOS="kills --kills 1000 --streams 10000"
CHAOS ?= all
chaos: .venv/installed-dev
	$(BIN)/python -m tests.chaos.campaign $(CHAOS)

# What it costs, beside nginx and the obvious code, on this machine; see docs/performance.md. More, or other
# things: make bench BENCH="all", BENCH="growth", BENCH="--help"
BENCH ?= quick
bench: .venv/installed-dev
	@$(BIN)/python -m bench $(BENCH)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports

# The table of settings in docs/, from what is said beside them in the code.
.PHONY: settings
settings: .venv/installed
	$(BIN)/python -m streaming settings --markdown >docs/settings.md

# Known vulnerabilities of what is pinned. It fails on one, and says so when nobody could be asked; with
# AUDIT=--required that fails too.
.PHONY: audit sbom
audit: .venv/installed-dev
	@$(BIN)/python .ci/audit.py $(AUDIT)

# What the service is made of, as CycloneDX.
sbom: .venv/installed
	@$(BIN)/python .ci/sbom.py >sbom.cdx.json
	@echo "sbom.cdx.json: $$(grep -c bom-ref sbom.cdx.json) parts"

# Pin what requirements*.in name, with hashes.
lock: .venv/installed-dev
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade --output-file requirements.txt requirements.in
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade --constraint requirements.txt --output-file requirements-dev.txt requirements-dev.in

clean:
	rm -rf .venv tests/clients_node/node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The tests in a browser use the system's Chromium, or fetch Playwright's where there is none.
.PHONY: browser
browser: .venv/installed-dev
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || $(BIN)/playwright install chromium

# The tests with clients in JavaScript, at pinned versions; nothing of them runs when it is installed.
NODE_CLIENTS := tests/clients_node
.PHONY: node-clients
node-clients: $(NODE_CLIENTS)/node_modules/.package-lock.json

$(NODE_CLIENTS)/node_modules/.package-lock.json: $(NODE_CLIENTS)/package.json $(NODE_CLIENTS)/package-lock.json
	@command -v npm >/dev/null || { echo "Node 18 or newer and npm are needed: apt-get install nodejs npm"; exit 1; }
	@echo "Installing $$(grep -c '"integrity"' $(NODE_CLIENTS)/package-lock.json) pinned packages for Node"
	@cd $(NODE_CLIENTS) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# The libraries of the page, copied from the pinned packages. Their source maps are not served.
VENDORED := $(NODE_CLIENTS)/node_modules
.PHONY: vendor
vendor: node-clients
	@sed '/^\/\/# sourceMappingURL=/d' $(VENDORED)/markdown-it/dist/browser/markdown-it.esm.min.mjs >static/vendor/markdown-it.js
	@sed '/^\/\/# sourceMappingURL=/d' $(VENDORED)/dompurify/dist/purify.es.mjs >static/vendor/dompurify.js
	@sed '/^\/\/# sourceMappingURL=/d' $(VENDORED)/@highlightjs/cdn-assets/es/highlight.min.js >static/vendor/highlight.js
	@cat $(VENDORED)/dompurify/LICENSE >static/vendor/dompurify.LICENSE
	@cat $(VENDORED)/@highlightjs/cdn-assets/LICENSE >static/vendor/highlight.LICENSE
	@cd $(VENDORED) && for part in markdown-it entities linkify-it mdurl uc.micro punycode.js; do \
		echo "$$part"; echo; cat $$part/LICENSE*; echo; done >$(CURDIR)/static/vendor/markdown-it.LICENSE

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 run")'
	@echo "Making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv

.venv/installed: requirements.txt | .venv/bin/python
	@echo "Installing $$(grep -c == requirements.txt) pinned packages"
	@$(BIN)/pip install --quiet --progress-bar on --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	@touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	@echo "Installing $$(grep -c == requirements-dev.txt) pinned packages for tests"
	@$(BIN)/pip install --quiet --progress-bar on --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.txt
	@touch $@
