from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import monai_fetalkd  # noqa: F401, before a test imports onnxruntime, whose telemetry this switches off

# the networks here are so small that a second thread costs more than it brings, ten times more on a busy machine;
# torch reads this when it is imported, here and in each process that a test starts
os.environ.setdefault("OMP_NUM_THREADS", "1")

if find_spec("torch"):  # the runtime is tested without it too, see noxfile.py
    import cloudpickle
    import ignite.distributed as idist
    import torch


def pytest_collection_finish() -> None:
    """What has been imported stays, so no search for garbage needs to look through it again (0.4 s each)."""
    gc.collect()
    gc.freeze()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Files in bytes are numbered: some hold a time or a number drawn, and a test must keep its name."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session", autouse=True)
def names_searched_once() -> Iterator[None]:
    """MONAI searches all of its modules for the names in each config that it reads; here once for the same modules."""
    if "monai.bundle" not in sys.modules:
        yield
        return
    locator = sys.modules["monai.bundle"].ComponentLocator
    search, tables = locator._find_classes_or_functions, {}

    def search_once(self: Any, modules: Sequence[str]) -> dict[str, list[str]]:
        key = tuple(modules)
        if key not in tables:
            tables[key] = search(self, key)
        return tables[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locator, "_find_classes_or_functions", search_once)
        yield


@pytest.fixture(scope="session")
def project_dir() -> Path:
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_dir(project_dir: Path) -> Path:
    """Real frames and schemas, which are not part of the project; CI must have them, a fork need not."""
    folder = project_dir.parent / "shared"
    if not folder.is_dir():
        absent = "there is no folder 'shared' beside the checkout"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{absent}, and CI tests on what is in it")
        pytest.skip(absent)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium by playwright: by module, as its event loop must not run beside other tests."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    options = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync"]
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=options)
        yield found
        found.close()


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def processes() -> Any:
    """Starts processes that are forked from a server, which has imported torch and MONAI and runs no thread.

    So they begin as a new interpreter does, in a moment. This process may have threads of torch, ONNX Runtime or
    OpenVINO, and a fork of it might wait for a lock that one of them held.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["pytest", "torch._dynamo", "monai.bundle", "monai_fetalkd.engines", "tests.conftest"]
    )
    return context


def _run_rank(rank: int, size: int, store: str, payload: bytes, answers: Any) -> None:
    os.environ.update(LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size))
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(store, size), rank=rank, world_size=size
    )
    idist.sync()
    try:
        function, args = cloudpickle.loads(payload)
        answers.put((rank, function(*args), None))
    except BaseException:
        answers.put((rank, None, traceback.format_exc()))


@pytest.fixture
def in_ranks(tmp_path: Path, processes: Any) -> Callable:
    """Call a function on several ranks, each a process with a gloo group, and return what it returns on each.

    What they return is pickled, tensors as numpy arrays. ``survivors`` is the number of ranks that live to return
    something.
    """

    def call(function: Callable, *args: Any, size: int = 2, survivors: int | None = None) -> list[Any]:
        answers = processes.Queue()
        store = str(tmp_path / f"ranks-{len(list(tmp_path.glob('ranks-*')))}")
        payload = cloudpickle.dumps((function, args))  # which takes functions within functions too
        ranks = [
            processes.Process(target=_run_rank, args=(rank, size, store, payload, answers), daemon=True)
            for rank in range(size)
        ]
        for rank in ranks:
            rank.start()
        try:
            told = sorted((answers.get(timeout=240) for _ in range(survivors or size)), key=lambda answer: answer[0])
        finally:
            for rank in ranks:
                rank.join(timeout=5)
                rank.kill()
        for number, _, error in told:
            assert error is None, f"rank {number}: {error}"
        return [answer for _, answer, _ in told]

    return call
