#!/usr/bin/env bash
# All fault injections in the numbers that docs/reliability.md states, then hours of work in one process; writes that page.
#   bash scripts/soak.sh [MINUTES]     of the soak, 120 if not given; 0: none, the page keeps the figures of the last one
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh" offline,dev
mkdir -p outputs/soak
rm -f outputs/soak/faults.jsonl
METATRAIN_FAULTS=full METATRAIN_FAULTS_REPORT="$PWD/outputs/soak/faults.jsonl" python -m pytest --nightly tests/faults tests/tasks/test_malformed_files.py
if [ "${1:-120}" != 0 ]; then
  python scripts/soak.py "${1:-120}"
fi
python scripts/docs/reliability_page.py
