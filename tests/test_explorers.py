"""Explorers' controls moved through their values (of some, and every week of all): on the versions installed here and, with NANODETR_ALL=1, on Colab's.

Colab's need an environment of their own, made by .ci/colab_env.sh and named by $NANODETR_COLAB. Without NANODETR_ALL it is
.ci/colab_check.py that moves the explorers of changed notebooks and of a sample there.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sweep import explorers

ROOT = Path(__file__).resolve().parent.parent
NO_COLAB = "no environment with Colab's versions: .ci/colab_env.sh DIR && export NANODETR_COLAB=DIR"


@pytest.fixture(scope="module", params=["here", "colab"] if os.environ.get("NANODETR_ALL") else ["here"])
def swept(request, tmp_path_factory):
    "What tests/sweep.py says, run by a Python of its own."
    python, out = sys.executable, tmp_path_factory.mktemp("sweep") / "told.json"
    if request.param == "colab":
        if not (folder := os.environ.get("NANODETR_COLAB")): pytest.skip(NO_COLAB)
        python = Path(folder) / "bin" / "python"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    ran = subprocess.run([python, ROOT / "tests" / "sweep.py", out], env={**os.environ, "PYTHONPATH": path, "IN_TEST": "1"},
                         capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr[-3000:]
    told = json.loads(out.read_text())
    if request.param == "colab": assert told["versions"] == {"ipywidgets": "7.7.1", "IPython": "7.34.0"}
    return told


@pytest.mark.parametrize("name", explorers())
def test_every_control_changes_the_picture(swept, name):
    assert isinstance(swept[name], dict), swept[name]
