# PYTHON: the interpreter of the environment that pyfau is installed in.
PYTHON ?= python

.PHONY: check lint types docs test
check: lint types docs test

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types:
	$(PYTHON) -m mypy

# The site, in build/site; warnings, such as a dead link or a page that the navigation lacks, are errors.
docs:
	$(PYTHON) -m sphinx -qW --keep-going -b html -c docs . build/site

test:
	$(PYTHON) -m pytest
