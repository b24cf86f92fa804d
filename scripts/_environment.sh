# Sourced by the other scripts: an environment with metatrain and the extras named in $1, made only if it is not there.
# A virtual environment that is active is used; otherwise .venv beside this checkout. Installing again takes nothing if
# pyproject.toml and constraints.txt are as they were.
set -euo pipefail
unset PYTHONDONTWRITEBYTECODE  # else each of the hundreds of processes of the tests compiles all that it imports
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${VIRTUAL_ENV:-}" ]; then
  [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
  # shellcheck disable=SC1091
  source .venv/bin/activate
fi
python - <<'PY'
import sys
if sys.version_info < (3, 11):
    sys.exit(f"metatrain needs Python 3.11 or newer, this is {sys.version.split()[0]}; set PYTHON=/path/to/python3.11")
PY
stamp="$VIRTUAL_ENV/.metatrain-$1"
wanted="$(pwd) $(cat pyproject.toml constraints.txt | sha256sum | cut -d' ' -f1)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "installing metatrain[$1] into $VIRTUAL_ENV (a few minutes the first time)"
  # Not compiled: Python compiles what it imports, a fifth of the files. torch first and pinned: an unpinned one would bring gigabytes of CUDA libraries to a machine without a GPU.
  python -m pip install --quiet --no-compile --disable-pip-version-check "$(grep '^torch==' constraints.txt)"
  python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable ".[$1]"
  echo "$wanted" > "$stamp"
fi
