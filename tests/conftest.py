"Shared by all tests: one thread a process, and a small trained-for-seconds run to evaluate and detect with."
import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest
import torch

from nanodetr.cli import main

try: from hypothesis import settings
except ImportError: settings = None  # a machine that only runs tests/gpu

torch.set_num_threads(1)
# a shell in the background and nohup have these ignored; here it is tested what they do
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN: signal.signal(signal.SIGHUP, signal.SIG_DFL)
if settings:
    settings.register_profile("ci", derandomize=True)  # a change must not fail for what an older one did; elsewhere it keeps searching
    if os.environ.get("CI"): settings.load_profile("ci")


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: runs where there is a CUDA GPU, and in the rehearsal of tests/gpu/run.sh")
    config.addinivalue_line("markers", "weekly: a kind that another test shows on every change; with NANODETR_SLOW=1 it runs, too")


# with `-n 2 --dist loadfile --no-loadscope-reorder` a file's tests share one process, and its slow starts (a site, a browser, a group
# of processes): the longest files first, so that no process ends with a long one while the other has none
SLOW_FIRST = ("test_follow", "test_browser", "test_parallel", "test_export", "test_site", "test_explorers", "test_faults")


def pytest_collection_modifyitems(items):
    if "NANODETR_SLOW" not in os.environ:
        for item in items:
            if item.get_closest_marker("weekly"): item.add_marker(pytest.mark.skip(reason="NANODETR_SLOW=1 runs it"))
    order = {name: k for k, name in enumerate(SLOW_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))  # stable: the rest keeps its order


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    "The folder of a short run on eight shapes."
    folder = tmp_path_factory.mktemp("runs") / "short"
    assert main(["train", "--overfit", "8", "--batch-size", "4", "--epochs", "3", "--quiet", "--out", str(folder)]) == 0
    return folder
