# Everything is run from here: `make run` to try it, `make test` to see it work.
#
# Needs Python 3.11 or later with pip, and make. Makes .venv, and keeps data in var (MAILHOST_DATA).
# Paths are relative and no target names one with a directory above, so that it works in any directory, also in one
# with a space in its name.

PYTHON ?= $(shell for each in python3.11 python3.12 python3.13 python3; do \
	"$$each" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo "$$each" && break; \
	done)
IN_VENV = .venv/bin/python
PIP_INSTALL = $(IN_VENV) -m pip install --quiet --disable-pip-version-check --require-hashes
# Two at least: much of the time tests wait for servers to start and end.
PYTEST_WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ "$$n" -gt 2 ] && echo "$$n" || echo 2)
LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-strip-extras --no-header --no-annotate --no-emit-index-url pyproject.toml --group embedded

.PHONY: run test check bench bench-provisioning soak messages lock clean
.SUFFIXES:

run: .venv/installed
	@exec $(IN_VENV) manage.py up

# Of properties the same examples each time: what passed passes again. Plain pytest, and the soak, look for others.
test: .venv/installed-dev
	@$(IN_VENV) -m pytest -m "not slow" -n $(PYTEST_WORKERS) --dist loadfile --hypothesis-profile=ci $(PYTEST)

soak: .venv/installed-dev
	@$(IN_VENV) -m pytest -m slow $(PYTEST)

check: .venv/installed-dev
	@$(IN_VENV) -m ruff check --quiet .
	@$(IN_VENV) -m ruff format --quiet --check .
	@$(IN_VENV) -m mypy --no-error-summary .
	@said=$$($(IN_VENV) -c 'from importlinter.cli import lint_imports_command as run; run()') || { echo "$$said"; exit 1; }
	@$(IN_VENV) manage.py check --fail-level WARNING >/dev/null
	@said=$$($(IN_VENV) manage.py makemigrations --check --dry-run) || { echo "$$said"; exit 1; }

bench: .venv/installed-dev
	@exec bench/run $(BENCH)

bench-provisioning: .venv/installed-dev
	@exec $(IN_VENV) -m bench.provisioning $(BENCH)

# Brings the catalogues of translations to what is said in the code; needs the tools of GNU gettext.
messages: .venv/installed-dev
	@exec $(IN_VENV) manage.py writemessages

# The lock files name every package with its hashes, and no place to get it from: pip takes what it is configured for.
lock:
	$(LOCK) --output-file requirements.txt
	$(LOCK) --group test --group dev --output-file requirements-dev.txt

# Leaves the data alone: `rm -r var` is the way to a fresh start.
clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: requirements.txt .venv/made
	@echo "Installing (once) ..."
	@$(PIP_INSTALL) -r requirements.txt
	@touch $@

# A superset of requirements.txt.
.venv/installed-dev: requirements-dev.txt .venv/made
	@echo "Installing what development needs (once) ..."
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@ .venv/installed

# Some systems cut ensurepip out of Python: there, their pip installs a pip.
.venv/made:
	@[ -n "$(PYTHON)" ] || { echo "Mailhost needs Python 3.11, 3.12 or 3.13 on the PATH, or make PYTHON=..." >&2; exit 1; }
	@$(IN_VENV) -m pip --version >/dev/null 2>&1 \
		|| { rm -rf .venv && "$(PYTHON)" -m venv .venv >/dev/null 2>&1; } \
		|| { rm -rf .venv && "$(PYTHON)" -m venv --without-pip .venv \
			&& "$(PYTHON)" -m pip install --quiet --disable-pip-version-check pip \
				--target "$$($(IN_VENV) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"; }
	@touch $@
