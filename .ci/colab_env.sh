#!/usr/bin/env bash
# An environment with Colab's versions of what draws and shows (IPython, ipywidgets, ipykernel, matplotlib, numpy):
#   .ci/colab_env.sh DIR
# Run it from the environment that has .[dev]: torch and the rest are borrowed from there rather than installed again (300 MB
# in place of 6 GB, half a minute). What DIR has of its own comes first on its path.
set -euo pipefail
(($# == 1)) || { echo "usage: .ci/colab_env.sh DIR" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
lender=$(python -c 'import sysconfig, torch; print(sysconfig.get_path("purelib"))') || {
  echo "no torch to borrow: first pip install -e '.[dev]', and activate that environment" >&2; exit 1; }
python -m venv "$1"
pip() { "$1/bin/python" -m pip install --quiet --disable-pip-version-check --retries 5 "${@:2}"; }
# Colab's versions, August 2026 (.ci/colab_check.py prints what came of them)
pip "$1" ipython==7.34.0 ipykernel==6.17.1 jupyter_client==7.4.9 traitlets==5.7.1 'matplotlib==3.10.*' 'numpy==2.1.*' 'fastcore>=2.2,<3' ipython_genutils
# without the classic notebook server, which is the other half of ipywidgets 7: no page is shown here
pip "$1" --no-deps ipywidgets==7.7.1
"$1/bin/python" - "$root" "$lender" <<'PY'
import sys, sysconfig
from pathlib import Path
Path(sysconfig.get_path("purelib"), "lender.pth").write_text("\n".join(sys.argv[1:]) + "\n")
PY
PYDEVD_DISABLE_FILE_VALIDATION=1 "$1/bin/python" -m ipykernel install --prefix "$1" --name colab --display-name "Colab's versions" > /dev/null
"$1/bin/python" -c 'import IPython, ipywidgets, torch, torchvision, nanodetr' && echo "$1: use it by  export NANODETR_COLAB=$(cd "$1" && pwd)"
