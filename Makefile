# The two commands that matter: `make run` and `make test`. Paths with spaces are fine; nothing outside this folder changes.
SHELL := /bin/sh
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do command -v $$name && break; done)
VENV := .venv/bin
BOOTSTRAP = "$(PYTHON)" metadet_site/local_stack/bootstrap.py
BROWSER ?= yes

.DEFAULT_GOAL := help
.PHONY: help run setup setup-dev test test-slow lint types layers migrations-made python-tests front-end-tests browser-test \
        format lock clean

help:
	@echo "make run        start metadet on this machine (sets everything up the first time); Ctrl-C stops it"
	@echo "make test       the whole fast suite; BROWSER=no leaves out the journey in Chromium"
	@echo "make test-slow  storms, corpora, whole-slide runs"
	@echo "make format     ruff's formatter and fixes"
	@echo "make lock       write the lock files again from pyproject.toml (needs uv)"
	@echo "make clean      remove what was built; var/ with your data stays"

run: setup
	@METADET_DIE_WITH_PARENT=1 exec $(VENV)/python manage.py up

setup:
	@$(BOOTSTRAP) run

setup-dev:
	@$(BOOTSTRAP) test

test: setup-dev lint types layers migrations-made python-tests front-end-tests browser-test

lint:
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .

types:
	METADET_SECRET_KEY=only-for-type-checks $(VENV)/mypy

layers:
	$(VENV)/lint-imports

migrations-made:
	$(VENV)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run

python-tests:
	$(VENV)/python -m pytest -n 2 --dist loadfile

front-end-tests:
	@$(BOOTSTRAP) npm test

browser-test:
ifeq ($(BROWSER),no)
	@echo "BROWSER=no: the journey in Chromium is left out."
else
	$(VENV)/python -m pytest -m browser
endif

test-slow: setup-dev
	$(VENV)/python -m pytest -m slow

format: setup-dev
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

lock:
	"$(PYTHON)" locks/refresh.py

clean:
	rm -rf .venv frontend/node_modules frontend/dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build
