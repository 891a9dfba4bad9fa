"""The emulator that the CUDA tests lean on finds what it is there to find."""
import ctypes
import functools
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cuda_plugin
from op_statements import bf16, normal

HERE = Path(__file__).resolve().parent


def load(name, *flags):
    if not shutil.which("g++"):
        pytest.skip("no g++")
    library = ctypes.CDLL(str(cuda_plugin.build(name, [HERE / "emulator" / "mistakes.cu"], flags)))
    library.explain.restype = ctypes.c_char_p
    return library


@pytest.fixture(scope="module")
def library():
    return load("libmistakes")


@pytest.fixture(scope="module")
def races():
    """The same kernels, compiled so that races are found."""
    return load("libmistakes_races", *cuda_plugin.RACES)


def call(library, name, x, mode="d"):
    """x after the kernel, the error, its text."""
    x = np.ascontiguousarray(x, np.float32).copy()
    error = library.run(name.encode(), x.ctypes.data_as(ctypes.c_void_p), x.size, ctypes.c_char(mode.encode()))
    return x, error, library.explain(error).decode()


@pytest.fixture
def run(library):
    return functools.partial(call, library)


X = np.arange(1, 65, dtype=np.float32)


@pytest.mark.parametrize("order", ["forward", "reverse", "1", "2"])
def test_barriers_order_what_threads_do(run, monkeypatch, order):
    monkeypatch.setenv("GRPO_CUDA_HOST_ORDER", order)
    x, error, _ = run("rotate", X)
    assert not error and (x == np.roll(X, -32)).all()


def test_a_missing_barrier_shows_in_some_order(run, monkeypatch):
    results = []
    for order in ("forward", "reverse"):
        monkeypatch.setenv("GRPO_CUDA_HOST_ORDER", order)
        results.append((run("rotate without a barrier", X)[0] == np.roll(X, -32)).all())
    assert not all(results)


@pytest.mark.parametrize("when, name, right",
                         [("late", "copy", True), ("early", "copy", True), ("late", "copy without a wait", False)])
def test_copies_land_when_they_are_waited_for(run, monkeypatch, when, name, right):
    monkeypatch.setenv("GRPO_CUDA_HOST_COPY", when)
    x, error, _ = run(name, X)
    assert not error and (x[:32] == X[:32]).all() == right
    assert not right or not x[32:].any()                    # copies that are not valid are zeros


@pytest.mark.parametrize("name, said", [
    ("a warp that diverged", "a warp diverged: thread 1 does shuffle_xor, thread 0 has ended"),
    ("a warp that does different things", "a warp diverged"),
    ("different barriers", "threads are at different barriers: thread 0 is at barrier .*mistakes.cu"),
    ("beyond the end", "beyond the end of 252 bytes"),
    ("a crooked copy", "not 16-byte aligned"), ("wgmma without a fence", "without wgmma_fence"),
    ("wgmma of a crooked operand", "128-byte swizzles"),
    ("wgmma of a copy", "copied without fence_shared_for_wgmma"),
])
def test_mistakes_are_errors(run, name, said):
    _, error, text = run(name,
                         {"beyond the end": X[:63]}.get(name, np.zeros(6144, np.float32) if "wgmma" in name else X))
    assert error == 719
    assert re.search(said, text)
    assert not run("rotate", X)[1]                          # and the next kernel runs


@pytest.mark.parametrize("name, said", [
    ("rotate without a barrier",
     "(reads|writes) byte .* of static shared memory, which thread .* uses: a race in .*rotate.*mistakes.cu:"),
    ("copy without a wait", "thread 0 reads byte 0 of dynamic shared memory, which a copy under way uses"),
    ("disagree", "writes something else to byte . of device memory"),
    ("blocks that disagree", "something else to byte . of device memory"),
    ("swap lanes without a wait", "static shared memory, which thread . uses"),
    ("refill without a barrier", "static shared memory"),
    ("read another block", "of device memory, which another block uses"),
])
def test_races_are_errors(races, name, said):
    _, error, text = call(races, name, X)
    assert error == 719
    assert re.search(said, text), text


@pytest.mark.parametrize("name", ["rotate", "copy", "agree", "swap lanes", "refill", "products by ldmatrix"])
@pytest.mark.parametrize("when", ["late", "early"])
def test_what_is_ordered_is_no_race(races, monkeypatch, when, name):
    monkeypatch.setenv("GRPO_CUDA_HOST_COPY", when)
    _, error, text = call(races, name, np.zeros(512, np.float32))
    assert not error, text


@pytest.mark.parametrize("name, mode, error", [("rotate", "h", 700), ("rotate", "s", 1), ("half a warp", "d", 9)])
def test_launches_that_a_gpu_refuses(run, name, mode, error):
    assert run(name, X, mode)[1] == error


def test_memory_of_the_device_is_out_of_the_hosts_reach(library):
    code = f"import ctypes; ctypes.CDLL({library._name!r}).peek()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGSEGV


@pytest.mark.parametrize("launches", [0, 1, 2, 3])
def test_a_graph_runs_when_it_is_launched(library, launches):
    x = X.copy()
    assert library.run_graph(b"", x.ctypes.data_as(ctypes.c_void_p), launches) == 0
    assert (x == np.roll(X, -32 * launches)).all()


@pytest.mark.parametrize("mistake",
                         ["waiting", "cudaMalloc", "cudaFree", "a copy from or to the host", "work on another stream"])
def test_what_a_graph_cannot_hold(library, run, mistake):
    error = library.run_graph(mistake.encode(), X.copy().ctypes.data_as(ctypes.c_void_p), 1)
    assert error == 901 and f"{mistake} while a stream is captured" in library.explain(error).decode()
    assert not run("rotate", X)[1]


@pytest.mark.parametrize("name", ["products", "products by ldmatrix"])
def test_tensor_core_products(run, rng, name):
    a, b = bf16(normal(rng, 16, 16)), bf16(normal(rng, 16, 8))
    x, error, _ = run(name, np.concatenate([a.ravel(), b.ravel(), np.zeros(128, np.float32)]))
    assert not error
    np.testing.assert_allclose(x[384:].reshape(16, 8), a @ b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["wgmma along k", "wgmma along rows"])
@pytest.mark.parametrize("when", ["late", "early"])
def test_products_of_warpgroups(run, rng, monkeypatch, when, name):
    monkeypatch.setenv("GRPO_CUDA_HOST_COPY", when)
    a, b = bf16(normal(rng, 64, 16)), bf16(normal(rng, 16, 64))
    x, error, text = run(name, np.concatenate([a.ravel(), b.ravel(), np.zeros(4096, np.float32)]))
    assert not error, text
    np.testing.assert_allclose(x[2048:].reshape(64, 64), a @ b, rtol=1e-5, atol=1e-5)
