#!/usr/bin/env bash
# The tests marked nightly, which take minutes: models of every family of transformers, most settings of most methods, the slowest experiments and data sets, launchers, kills. Arguments go to pytest: bash scripts/nightly.sh -k bert
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh" offline,dev
exec python -m pytest --nightly -m nightly -rs "$@"
