"""cuBLASLt: our declarations are the library's, it is found where people have it, and its absence is explained."""
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cuda_plugin

ROOT = Path(__file__).resolve().parents[2]
PLACES = [*(Path(entry or ".") / "nvidia" / package for entry in sys.path for package in ("cu13", "cu12", "cublas")),
          Path("/usr/local/cuda"), Path("/usr")]
ENUMERATORS = {
    "R_32F": "CUDA_R_32F", "R_16BF": "CUDA_R_16BF", "COMPUTE_32F": "CUBLAS_COMPUTE_32F", "OP_N": "CUBLAS_OP_N",
    "OP_T": "CUBLAS_OP_T",
    "DESC_TRANSA": "CUBLASLT_MATMUL_DESC_TRANSA", "DESC_TRANSB": "CUBLASLT_MATMUL_DESC_TRANSB",
    "DESC_EPILOGUE": "CUBLASLT_MATMUL_DESC_EPILOGUE", "DESC_BIAS_POINTER": "CUBLASLT_MATMUL_DESC_BIAS_POINTER",
    "EPILOGUE_BIAS": "CUBLASLT_EPILOGUE_BIAS", "LAYOUT_COLS": "CUBLASLT_MATRIX_LAYOUT_COLS",
    "PREF_MAX_WORKSPACE_BYTES": "CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES",
    "PREF_REDUCTION_SCHEME_MASK": "CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK",
    "PREF_MIN_ALIGNMENT_A_BYTES": "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES",
    "PREF_MIN_ALIGNMENT_D_BYTES": "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES",
    "REDUCTION_SCHEME_NONE": "CUBLASLT_REDUCTION_SCHEME_NONE", "SUCCESS": "CUBLAS_STATUS_SUCCESS",
    "NOT_SUPPORTED": "CUBLAS_STATUS_NOT_SUPPORTED",
}
COMPARE = """
#include <cublasLt.h>
#include "cuda/cublaslt.h"
template <typename R, typename... P>
constexpr bool sizes(R (*)(P...), std::size_t r, std::initializer_list<std::size_t> p) {
    std::size_t own[] = {sizeof(P)..., 0}, i = 0;
    if (sizeof(R) != r || sizeof...(P) != p.size()) return false;
    for (std::size_t s : p) if (own[i++] != s) return false;
    return true;
}
template <typename R, typename... P> constexpr bool same(R (*real)(P...), auto *own) {
    return sizes(own, sizeof(R), {sizeof(P)...});
}
#define CHECK(name, parameters) static_assert(same(&cublasLt##name, (int (*) parameters)nullptr), #name);
BLASLT_FUNCTIONS(CHECK)
static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(blaslt_algo));
static_assert(sizeof(cublasLtMatmulHeuristicResult_t) == sizeof(blaslt_choice));
static_assert(offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize) == offsetof(blaslt_choice, workspace));
static_assert(offsetof(cublasLtMatmulHeuristicResult_t, state) == offsetof(blaslt_choice, status));
static_assert(sizeof cublasLtGetVersion() == sizeof(size_t));
"""


def test_our_declarations_are_the_librarys(tmp_path):
    header = next((place / "include" for place in PLACES if (place / "include" / "cublasLt.h").exists()), None)
    cuda = next((place / "include" for place in [Path("/usr/local/cuda"), *PLACES]
                 if (place / "include" / "cuda_runtime_api.h").exists()), None)
    if not header or not cuda or not shutil.which("g++"):
        pytest.skip("cublasLt.h is not installed (pip install nvidia-cublas), or CUDA's headers or g++ are not")
    declared = set(re.findall(r"BLASLT_(\w+) = ", (ROOT / "csrc/cuda/cublaslt.h").read_text()))
    assert declared == set(ENUMERATORS)
    source = tmp_path / "compare.cpp"
    source.write_text("#include <cstddef>\n#include <initializer_list>\n" + COMPARE
                      + "".join(f"static_assert((int)BLASLT_{own} == (int){real});\n"
                                for own, real in ENUMERATORS.items()))
    result = subprocess.run(["g++", "-std=c++20", "-fsyntax-only", "-w", f"-I{header}", f"-I{cuda}", f"-I{ROOT}/csrc",
                             source], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def fresh(code: str) -> str:
    """What a new process prints."""
    result = subprocess.run([sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{code}"],
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def found(plugin: Path, folders: str = "", **environment: str) -> str:
    """What a new process finds."""
    environment = {"GRPO_CUDA_LIBRARY": str(plugin), "CUDA_HOME": "", "CONDA_PREFIX": ""} | environment
    return fresh(f"import os; os.environ.update({environment!r})\n"
                 f"from grpo import _core; _core.cuda_search({folders!r}); print(_core.cuda_blas())")


@pytest.fixture(scope="module")
def library(emulated_plugin) -> Path:
    return cuda_plugin.build_cublaslt()


@pytest.mark.parametrize("how", ["named", "package", "conda", "toolkit"])
def test_where_the_library_is_found(emulated_plugin, library, tmp_path, how):
    folder = tmp_path / {"named": "", "package": "", "conda": "lib", "toolkit": "lib64"}[how]
    folder.mkdir(exist_ok=True)
    shutil.copy(library, folder / "libcublasLt.so.13")
    environment = {"named": {"GRPO_CUBLAS": f"{folder}/libcublasLt.so.13"}, "conda": {"CONDA_PREFIX": str(tmp_path)},
                   "toolkit": {"CUDA_HOME": str(tmp_path)}}
    assert (found(emulated_plugin, f"/nowhere:{folder}" if how == "package" else "", **environment.get(how, {}))
            == f"{folder}/libcublasLt.so.13 (13.1.0)")


def test_a_library_that_is_not_there(emulated_plugin):
    text = found(emulated_plugin, "/nowhere/lib", GRPO_CUBLAS="/nowhere/libcublasLt.so.13")
    assert text == "none (tried /nowhere/libcublasLt.so.13)"


def test_a_library_that_is_none(emulated_plugin, library, tmp_path):
    other = tmp_path / "libcublasLt.so.13"
    (tmp_path / "x.c").write_text("int x;")
    subprocess.run(["cc", "-shared", tmp_path / "x.c", "-o", other], check=True)
    assert "has no cublasLt" in found(emulated_plugin, GRPO_CUBLAS=str(other))


@pytest.mark.parametrize("mode, said", [("fast", "auto, own or cublaslt"), ("cublaslt", "pip install nvidia-cublas")])
def test_what_cannot_be_is_an_error(emulated_plugin, mode, said):
    code = f"""
import os
os.environ.update(GRPO_CUDA_LIBRARY={str(emulated_plugin)!r}, GRPO_CUDA_GEMM={mode!r}, GRPO_CUBLAS="/nowhere")
import numpy as np
from grpo import _core
try: _core.Ops("cuda").linear_dx(np.ones((2, 16), np.float32), np.ones((16, 8), np.float32))
except Exception as error: print(error)"""
    assert said in fresh(code)


BEGIN = """
import os, ctypes; os.environ.update(GRPO_CUDA_LIBRARY={plugin!r}, GRPO_CUBLAS={library!r}, GRPO_CUDA_GEMM={mode!r})
import numpy as np
from grpo import _core
rng = np.random.default_rng(0)
counts = (ctypes.c_int * 2)()
library = ctypes.CDLL({library!r})
def used():
    library.fake_counts(ctypes.byref(counts, 0), ctypes.byref(counts, 4))
    return tuple(counts)
"""

PRODUCTS = BEGIN + """
from op_statements import bf16
ref, ops = _core.Ops("ref"), _core.Ops("cuda")
def whole(*shape):
    'Products and sums of such numbers every rounding leaves alone.'
    return rng.integers(-3, 4, shape).astype(np.float32)
for C, O in ((24, 40), (40, 24), (21, 8)):
    for N in (1, 5, 70):
        x, dy, W, y, dW, db = whole(N, C), whole(N, O), whole(O, C), whole(N, O), whole(O, C), whole(O)
        assert (ops.linear(x, W) == bf16(ref.linear(x, W))).all()
        assert (ops.linear_add(y, x, W, None) == bf16(ref.linear_add(y, x, W, None))).all()
        assert (ops.linear(x, W, db) == bf16(ref.linear(x, W, db))).all()
        assert (ops.linear_add(y, x, W, db) == bf16(ref.linear_add(y, x, W, db))).all()
        assert (ops.linear_dx(dy, W) == bf16(ref.linear_dx(dy, W))).all()
        for got, want in zip(ops.linear_dw(dW, db, dy, x), ref.linear_dw(dW, db, dy, x)):
            assert (got == want).all()
print(*used())
"""


@pytest.mark.parametrize("mode, counts", [("own", "0 0"), ("auto", "2 6"), ("cublaslt", "12 36")])
def test_products(emulated_plugin, library, mode, counts):
    """One choice for each shape of weight, whatever the rows; widths that are no multiple of 8 go to our own
    kernels."""
    assert fresh(PRODUCTS.format(plugin=str(emulated_plugin), library=str(library), mode=mode)) == counts


@pytest.mark.parametrize("mode, counts", [("auto", "2 2"), ("cublaslt", "12 12")])
def test_rows_that_an_algorithm_refuses(emulated_plugin, library, monkeypatch, mode, counts):
    """Our own kernels compute them, and whatever comes later for that weight."""
    monkeypatch.setenv("FAKE_REFUSES", "5")
    assert fresh(PRODUCTS.format(plugin=str(emulated_plugin), library=str(library), mode=mode)) == counts


MODEL = BEGIN + """
from tiny_models import build, config
model = build(config("qwen2", d=16, heads=(2, 1), D=16, F=24, V=97, L=2), "cuda")
prompts = [np.arange(5, dtype=np.int32), np.arange(9, 50, dtype=np.int32)]
out, chosen = model.generate(prompts, 2, 6), [used()[0]]
completions = np.split(out["tokens"], np.cumsum(out["lengths"])[:-1])
logps, entropies = _core.Trainer(model).accumulate(prompts, completions, np.array([0, 0, 1, 1], np.int32),
                                                   np.ones(len(out["tokens"]), np.float32))
assert (logps == out["policy_logprobs"]).all()
print(*chosen, *used())
"""


@pytest.mark.parametrize("mode, counts", [("own", "0 0 0"), ("auto", "4 4 8"), ("cublaslt", "24 24")])
def test_plans_are_made_before_the_first_step(emulated_plugin, library, mode, counts):
    """A rollout finds those of training made too, for the four weights of a layer: linear with and without bias and
    addition, its gradients."""
    said = fresh(MODEL.format(plugin=str(emulated_plugin), library=str(library), mode=mode))
    assert said.startswith(counts) and (mode == "own" or int(said.split()[-1]) >= 8)


ROWS = BEGIN + """
from checks.gemm import check_rows
check_rows(_core.Ops("cuda"), rng, 300, 96, 136)
assert used()[1]
"""


def test_rows_alone_and_in_a_batch(emulated_plugin, library):
    """What tests/gpu/test_gpu_cublaslt.py asks of the real library."""
    fresh(ROWS.format(plugin=str(emulated_plugin), library=str(library), mode="cublaslt"))
