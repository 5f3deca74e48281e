"Shared by all tests: one thread a process, and a small trained-for-seconds run to evaluate and detect with."
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest
import torch
from hypothesis import settings

from nanodetr.cli import main

torch.set_num_threads(1)
settings.register_profile("ci", derandomize=True)  # a change must not fail for what an older one did; elsewhere it keeps searching
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    "The folder of a short run on eight shapes."
    folder = tmp_path_factory.mktemp("runs") / "short"
    assert main(["train", "--overfit", "8", "--batch-size", "4", "--epochs", "3", "--quiet", "--out", str(folder)]) == 0
    return folder
