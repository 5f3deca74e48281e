"Shared by all tests: one thread a process, and a small trained-for-seconds run to evaluate and detect with."
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest
import torch

from nanodetr.cli import main

try: from hypothesis import settings
except ImportError: settings = None  # a machine that only runs tests/gpu

torch.set_num_threads(1)
if settings:
    settings.register_profile("ci", derandomize=True)  # a change must not fail for what an older one did; elsewhere it keeps searching
    if os.environ.get("CI"): settings.load_profile("ci")


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: runs where there is a CUDA GPU, and in the rehearsal of tests/gpu/run.sh")


# what shares one slow start (the built site, JupyterLab with its browser, a sweep in its own Python) stays in one process
SHARED = ("test_site", "test_browser", "test_explorers")
SLOW_FIRST = ("test_voc_notebook", "test_follow")  # so that no process ends with one long test while the other has none


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    "With `-n 2 --dist loadgroup`, tests that share a start run in one process, and long ones come first."
    for item in items:
        if item.path.stem in SHARED: item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=lambda item: item.path.stem not in SLOW_FIRST)  # stable: the rest keeps its order


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    "The folder of a short run on eight shapes."
    folder = tmp_path_factory.mktemp("runs") / "short"
    assert main(["train", "--overfit", "8", "--batch-size", "4", "--epochs", "3", "--quiet", "--out", str(folder)]) == 0
    return folder
