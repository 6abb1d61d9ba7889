# PYTHON: the interpreter of the environment that pyfau is installed in.
PYTHON ?= python

.PHONY: check lint types docs test coverage lock wheel wheel-check sbom
check: lint types docs coverage

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	PATH="$(dir $(PYTHON)):$$PATH" lint-imports --cache-dir build/import-linter

types:
	$(PYTHON) -m mypy

# The site, in build/site; warnings, such as a dead link or a page that the navigation lacks, are errors.
docs:
	$(PYTHON) -m sphinx -qW --keep-going -b html -c docs . build/site

test:
	$(PYTHON) -m pytest

# The tests, then the branch coverage of pyfau/. It fails below the limit in pyproject.toml.
# What slow tests run does not count (tests/conftest.py).
coverage:
	$(PYTHON) -m pytest --cov

# Writes requirements/*.txt again after a change of pyproject.toml or constraints.txt. Needs a package index.
lock:
	$(PYTHON) scripts/lock.py

# The source archive and, built from it, the wheel, in dist/.
wheel:
	rm -rf dist
	$(PYTHON) -m build --no-isolation --outdir dist

wheel-check: wheel
	$(PYTHON) scripts/check_wheel.py dist/*.whl

# The software bill of materials of this environment's pyfau, in build/pyfau.cdx.json (CycloneDX).
sbom:
	$(PYTHON) scripts/sbom.py
