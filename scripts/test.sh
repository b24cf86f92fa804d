#!/usr/bin/env bash
# Style, types and dead code, and all tests but those that take minutes (scripts/nightly.sh). Arguments go to pytest: bash scripts/test.sh -m "not slow" -k resume
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh" offline,dev
ruff check .
ruff format --check .
said="$(mktemp)"
{ mypy && vulture; } > "$said" 2>&1 &  # beside the tests, which wait for processes of their own now and then
types=$!
trap 'kill "$types" 2> /dev/null || true; rm -f "$said"' EXIT
tests=0
python -m pytest --numprocesses "${METATRAIN_TEST_PROCESSES:-2}" --dist worksteal "$@" || tests=$?
wait "$types" || [ "$tests" != 0 ] || tests=1
cat "$said"
exit "$tests"
