#!/usr/bin/env bash
# Style, types and dead code, then all tests, the slow ones too. Arguments go to pytest: bash scripts/test.sh -m "not slow" -k resume
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh" offline,dev
ruff check .
ruff format --check .
mypy
vulture
exec python -m pytest --numprocesses "${METATRAIN_TEST_PROCESSES:-2}" --dist loadfile "$@"
