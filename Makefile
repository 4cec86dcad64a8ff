# One word for everything: `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
FOR ?=
SOURCES := poller plugins state

.DEFAULT_GOAL := help
.PHONY: deb prove-slow prove-power soak soak-year help install demo test bench bench-sweep bench-delivery bench-planner bench-start bench-peers bench-cluster prove prove-truth prove-budget prove-delivery prove-backlog prove-servers prove-receivers prove-hostile prove-tests prove-api prove-crash prove-fuzz audit lint types format check docs lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): requirements.lock pyproject.toml
	@echo "installing into $(VENV): about a minute, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

install: $(STAMP)  ## create the virtual environment and install into it

demo: $(STAMP)  ## sandbox + daemon + console on this machine, no account needed (FOR=20s ends by itself)
	$(BIN)/poller demo $(if $(FOR),--for $(FOR))

test: $(STAMP)  ## run the tests
	$(BIN)/python -m pytest -n 3 --dist worksteal

lint: $(STAMP)  ## ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy --strict
	$(BIN)/mypy

format: $(STAMP)  ## rewrite to the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint types test  ## everything that CI runs

docs: $(STAMP)  ## write the pages that come from the code, and the site into build/site
	$(BIN)/python -m tools.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

deb:  ## a Debian package into build/deb, for the Debian or Ubuntu that builds it (needs debhelper and python3-venv)
	rm -rf build/deb
	git checkout-index --all --prefix=build/deb/poller/
	cd build/deb/poller && dpkg-buildpackage --build=binary --no-sign

lock: $(STAMP)  ## pin every dependency again, with hashes
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url \
	    --no-emit-find-links --no-emit-options --no-emit-trusted-host --extra dev \
	    --output-file requirements.lock pyproject.toml

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

bench-planner: $(STAMP)  ## the planner against its bounds and targets (6 minutes)
	$(BIN)/python -m benchmarks.planner

bench: bench-sweep bench-delivery  ## what sweeps and deliveries cost, as ratios to a limit of the same run

bench-sweep: $(STAMP)  ## sweeps against orjson.loads of the same bytes, memory and cost as lists grow (a minute)
	$(BIN)/python -m benchmarks.sweep

bench-start: $(STAMP)  ## CPU time of commands from a cold start, beside bare imports, and beside the urlwatch that $$URLWATCH names
	$(BIN)/python -m benchmarks.start

bench-peers: $(STAMP)  ## Poller beside urlwatch, webchanges, changedetection.io and dlt: faults and costs (10 minutes)
	$(BIN)/python -m benchmarks.peers

prove-budget: $(STAMP)  ## the budget against the sandbox's count, over 50 restarts by SIGKILL (8 minutes)
	$(BIN)/python -m tests.proofs.budget

prove: prove-slow prove-truth prove-crash prove-power prove-delivery prove-backlog  ## long proofs, each bounded in time

prove-delivery: $(STAMP)  ## order and completeness of deliveries over 1,000 random histories (5 minutes)
	POLLER_HISTORIES=1000 $(BIN)/python -m pytest tests/delivery/test_delivery_stateful.py

prove-backlog: $(STAMP)  ## a million events for a dead subscriber beside a healthy one (2 minutes)
	$(BIN)/python -m tests.proofs.backlog

bench-delivery: $(STAMP)  ## deliveries a second and their delay, beside a bare aiohttp loop (1 minute)
	$(BIN)/python -m benchmarks.delivery

prove-slow: $(STAMP)  ## the tests that take too long for every run (5 minutes)
	$(BIN)/python -m pytest -m slow

prove-servers: $(STAMP)  ## no event false or missing against four servers that others wrote (8 minutes; needs npm)
	$(BIN)/python -m tests.proofs.servers

prove-receivers: $(STAMP)  ## hostile answers to every sink: nothing ends, little memory, no pause (5 minutes)
	$(BIN)/python -W ignore -m tests.proofs.hostile_receivers

prove-truth: $(STAMP)  ## no event lost or invented, in 20,000 random runs of an API that misbehaves (an hour at most)
	$(BIN)/python -m tests.proofs.truth

prove-crash: $(STAMP)  ## 500 kills of a daemon, at random and at every named point, judged from outside (20 minutes)
	$(BIN)/python -m tests.proofs.crash

prove-power: $(STAMP)  ## the power goes at every sync of a recorded run and in between: what was told before is there (15 minutes)
	$(BIN)/python -m tests.proofs.power

soak: $(STAMP)  ## a daemon at work for an hour: memory, files, descriptors and threads do not grow
	$(BIN)/python -m tests.proofs.soak

soak-year: $(STAMP)  ## a simulated year: memory, file and how long changes take to be seen do not grow (10 minutes)
	$(BIN)/python -m tests.proofs.soak.year

prove-cluster: $(STAMP)  ## three workers on PostgreSQL, killed and stopped 30 times: nothing lost, no limit exceeded (10 minutes)
	$(BIN)/python -m tests.proofs.cluster

prove-tests: $(STAMP)  ## small mistakes in the pure core, by mutmut beside Poller: does a test see each? (100 minutes at most)
	$(BIN)/python -m tests.proofs.mutants

bench-cluster: $(STAMP)  ## two workers on PostgreSQL beside Procrastinate on the same server, many budgets, a takeover (6 minutes)
	$(BIN)/python -m benchmarks.cluster_speed

prove-api: $(STAMP)  ## the API against its own description, by schemathesis from the PATH (5 minutes)
	$(BIN)/python -m tests.proofs.api

prove-pages: $(STAMP)  ## the dashboard in Chromium: accessible, in place, without a script; writes docs/images (3 minutes; needs playwright, npm)
	$(BIN)/python -m tests.proofs.pages

bench-streams: $(STAMP)  ## what streams of events cost a daemon, read and unread (1 minute)
	$(BIN)/python -m benchmarks.streams

prove-alerts: $(STAMP)  ## the alert rules and the Grafana board, by promtool from the PATH (a second)
	$(BIN)/python -m tests.proofs.alerts

prove-hostile: $(STAMP)  ## hostile answers and clients, wherever others are read: memory, stillness, nothing ended (8 minutes)
	PYTHONWARNINGS=ignore timeout 240 $(BIN)/python -m tests.proofs.hostile
	PYTHONWARNINGS=ignore timeout 200 $(BIN)/python -m tests.proofs.hostile_clients
	PYTHONWARNINGS=ignore timeout 155 $(BIN)/python -m tests.proofs.hostile_receivers

prove-fuzz: $(STAMP)  ## random input at every place that takes words of others, and every statement failing in every way (9 minutes)
	POLLER_EXAMPLES=300 timeout 400 $(BIN)/python -m pytest tests/fuzz
	POLLER_FAULTS=1 timeout 150 $(BIN)/python -m pytest tests/daemon/test_every_statement.py

audit: $(STAMP)  ## licences, bill of materials (CycloneDX), known vulnerabilities (the last needs the advisory service)
	$(BIN)/python -m tools.audit
