# What one does with this repository. Every verb does its own set-up, in .venv, .tools and
# node_modules inside the checkout; it needs Python >= 3.11, git and make. The first run fetches
# packages, the next ones start at once.

# Which Python makes .venv: make PYTHON=python3.13 test
PYTHON ?= python3
# More for the command behind the verb: make test ARGS="tests/http/test_url.py -x"
ARGS ?=
# With "yes", what fails in the suite is tried once more, alone, and named. A machine that stops for
# seconds, as one that many share does, may fail one of thousands of tests of processes and signals.
AGAIN ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
NODE := tests/interop/node/node_modules
# The suite needs these programs beside packages of Python and Node.js.
PROGRAMS := chromium curl haproxy libatomic microsocks nginx node redis-server systemd tinyproxy wrk
# The dependency group of each environment with the oldest versions.
GROUP_OF_minimal := pytest
GROUP_OF_oldest := test
# The folders of the suite that need no extra, and no other program; without half a minute of measuring.
MINIMAL := tests/connection tests/transport --ignore=tests/connection/test_large_frames.py

.PHONY: help demo test check docs dist sbom minimal oldest conformance interop fuzz soak bench
.DELETE_ON_ERROR:

help:
	@echo "make demo         serve the counter page; Ctrl-C ends it"
	@echo "make test         the whole suite, with coverage; some of it: ARGS=tests/http/test_url.py"
	@echo "make check        format, lint and types"
	@echo "make docs         the documentation, into docs/_build/html; and what its search finds"
	@echo "make dist         the wheel and the sdist, checked, into dist"
	@echo "make sbom         the same, and a bill of materials in build/sbom.json"
	@echo "make minimal      a minute of the suite with the required dependencies alone, at their oldest"
	@echo "make oldest       the whole suite with the oldest version of every dependency; some of it: ARGS"
	@echo "make conformance  all of Autobahn's test suite, both ways, in 15 minutes; ARGS='--set quick --tls'"
	@echo "make interop      peers in Go, Perl and Java, with compression; installs their compilers"
	@echo "make soak         the load tests at full size, with what they measure"
	@echo "make bench        trio_ws beside its peers, in 20 minutes; some of it: ARGS='--case echo-16'"
	@echo "make fuzz         atheris at frames, compression, handshakes and TLS, 60 s each; ARGS='--seconds 600'"

demo: .venv/.package
	@$(BIN)/python examples/counter/server.py $(ARGS)

test: .venv/.group-test $(NODE)/.installed
	@sh tests/setup/system.sh $(PROGRAMS)
ifeq ($(strip $(ARGS)),)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
	    $(if $(AGAIN),|| { [ $$? = 1 ] && $(BIN)/coverage run -m pytest --last-failed --exitfirst -v; })
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
else
	$(BIN)/python -m pytest $(ARGS)
endif

check: .venv/.group-check
	@sh tests/setup/system.sh node npm
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	PATH="$(CURDIR)/$(BIN):$$PATH" pyright --verifytypes trio_ws --ignoreexternal

# Always all of it (-E): from an earlier build, Sphinx takes over what the search needs but in part.
docs: .venv/.group-docs
	@sh tests/setup/system.sh chromium libatomic
	$(BIN)/python -m tests.project.shown
	$(BIN)/sphinx-build -E -W -n --keep-going docs docs/_build/html
	$(BIN)/python -m tests.project.search

# A fixed date, so that the same sources give the same bytes on every day.
dist: .venv/.group-dist
	rm -rf dist
	SOURCE_DATE_EPOCH=1700000000 $(BIN)/python -m hatchling build --directory dist
	$(BIN)/twine check --strict dist/*

# The requirements of the wheel, in CycloneDX format, from an environment that has nothing else.
sbom: dist
	rm -rf .tools/sbom
	$(BIN)/python -m venv --without-pip .tools/sbom
	$(PIP) --python .tools/sbom install --no-index --no-deps --find-links dist trio-ws
	$(PIP) --python .tools/sbom install trio-ws
	@mkdir -p build
	$(BIN)/cyclonedx-py environment --output-reproducible --output-file build/sbom.json .tools/sbom

# A test in these folders that needs an extra fails here.
minimal: .tools/minimal/.installed
	$(<D)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile tests/minimal/alone.py $(MINIMAL) $(ARGS) \
	    $(if $(AGAIN),|| { [ $$? = 1 ] && $(<D)/bin/python -m pytest --last-failed --exitfirst -v tests/minimal/alone.py $(MINIMAL); })

oldest: .tools/oldest/.installed $(NODE)/.installed
	@sh tests/setup/system.sh $(PROGRAMS)
	$(<D)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

conformance: .venv/.group-test .tools/autobahn/.installed
	$(BIN)/python -m tests.conformance.run $(ARGS) .tools/autobahn/bin/wstest

# Not collected by "make test", because its name does not begin with test_.
interop: .venv/.group-test .tools/interop/go-peer
	@sh tests/setup/system.sh javac mojolicious
	$(BIN)/python -m pytest tests/interop/heavy.py $(ARGS)

soak: .venv/.group-test
	TRIO_WS_SOAK=1 $(BIN)/python -m pytest -s tests/whole/test_trust.py tests/whole/test_trust_faults.py tests/whole/test_stalled_tls.py tests/whole/test_floods.py tests/broadcast/test_load.py tests/broadcast/test_model.py tests/server/test_drain.py tests/command/test_workers.py tests/command/test_restarts.py tests/command/test_terminal.py tests/project/test_bench_agrees.py tests/client/test_reconnecting_for_real.py tests/live/test_tabs.py tests/backplane/test_redis_chaos.py $(ARGS)

bench: .venv/.group-bench
	$(BIN)/python -m benchmarks $(ARGS)

fuzz: .venv/.group-fuzz
	$(BIN)/python -m tests.fuzz $(ARGS)

# Set-up. A stamp file says that a step was done, and that it is due again when what it was done
# from has changed. Only the existence of .venv counts, so that an existing one is left in place.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "trio_ws needs Python 3.11 or later, and '$(PYTHON)' is not one:" \
	         "say which is, as in make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	@PYTHON='$(PYTHON)' sh tests/setup/system.sh venv
	$(PYTHON) -m venv .venv

# The pip that comes with Python 3.11 does not know dependency groups.
.venv/.package: pyproject.toml | $(BIN)/python
	$(PIP) install --upgrade 'pip>=25.1'
	$(PIP) install --editable .
	@touch $@

.venv/.group-%: pyproject.toml .venv/.package
	$(PIP) install --group $*
	@touch $@

.tools/oldest/.installed .tools/minimal/.installed: .tools/%/.installed: pyproject.toml tests/setup/oldest.py
	@PYTHON='$(PYTHON)' sh tests/setup/system.sh venv
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip -qq --disable-pip-version-check install --upgrade 'pip>=25.1'
	$(@D)/bin/python tests/setup/oldest.py >$(@D)/constraints.txt
	$(@D)/bin/python -m pip -qq --disable-pip-version-check install --constraint $(@D)/constraints.txt --editable . --group $(GROUP_OF_$*)
	@touch $@

# Without a lock file: it would name the registry that it was made with. The one direct dependency
# has an exact version, and none of its own.
$(NODE)/.installed: tests/interop/node/package.json
	@sh tests/setup/system.sh node npm
	cd tests/interop/node && npm install --no-package-lock --no-audit --no-fund --silent
	@touch $@

.tools/autobahn/.installed: tests/setup/autobahn.sh
	PYTHON='$(abspath $(BIN)/python)' sh tests/setup/autobahn.sh .tools/autobahn
	@touch $@

# Without modules, which would be fetched: Debian packages Go libraries as sources.
.tools/interop/go-peer: $(wildcard tests/interop/go/*.go)
	@sh tests/setup/system.sh go gorilla nhooyr
	@mkdir -p $(@D)
	cd $(<D) && GO111MODULE=off GOPATH=/usr/share/gocode go build -o $(abspath $@) .
