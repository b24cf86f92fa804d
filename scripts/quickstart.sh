#!/usr/bin/env bash
# From a fresh clone to a meta-trained model and the table of arms: installs what is missing, then about five minutes of
# training on two cores. Settings go through: bash scripts/quickstart.sh outer.steps=20 seed=1
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh" offline
exec metatrain train +experiment=sentiment_fewshot "$@"
