"""What the compiler made of the plugin's kernels: nothing in local memory, tensor instructions where they are meant,
tiles of products that share a multiprocessor as planned. And the report that says so."""
import doctest
import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest

import grpo

SOURCE = importlib.util.spec_from_file_location("registers",
                                                Path(__file__).resolve().parents[2] / "buildtools" / "registers.py")
registers = sys.modules["registers"] = importlib.util.module_from_spec(SOURCE)
SOURCE.loader.exec_module(registers)

# kernel: why it has local memory, whose bytes are known; all others have none
LOCAL = {
    r"_Z10rope_table": (40, "sine and cosine of any argument: CUDA's library reduces large ones by an array of digits"),
}
TENSOR = r"_Z\d+(gemm_kernel|attend|attend_dq|attend_dkv|decode_slot)[IP]"


@pytest.fixture(scope="module")
def kernels():
    plugin, cuobjdump = Path(grpo.__file__).parent / "_lib" / "libgrpo_cuda.so", registers.find_cuobjdump()
    if not plugin.exists() and os.environ.get("GRPO_CUDA") != "1":
        pytest.skip("built without CUDA (no nvcc, or GRPO_CUDA=0)")
    if cuobjdump is None:
        pytest.skip("no cuobjdump")
    found = registers.kernels(plugin, cuobjdump)
    assert len(found) > 100
    return found


def test_nothing_is_in_local_memory(kernels):
    for kernel in kernels:
        known = next((size for pattern, (size, _) in LOCAL.items() if re.match(pattern, kernel.name)), 0)
        assert kernel.local <= known, kernel


def test_tensor_instructions_are_where_they_are_meant(kernels):
    for kernel in kernels:
        if kernel.empty:
            assert kernel.registers < 16 and not kernel.hmma + kernel.hgmma, kernel
        elif kernel.tile and kernel.tile.wgmma:
            assert kernel.hgmma == 4 and not kernel.hmma, kernel             # 64 of k, 16 at a time
        else:
            assert not kernel.hgmma and (kernel.hmma > 0) == bool(re.match(TENSOR, kernel.name)), kernel


def test_tiles_share_a_multiprocessor_as_planned(kernels):
    """On 9.0, which they are made for; 8.0 has less shared memory, and one block of each must fit."""
    found = [kernel for kernel in kernels if kernel.blocks is not None and not kernel.empty]
    assert {kernel.tile.resident for kernel in found} >= {1, 2, 3}
    for kernel in found:
        assert kernel.blocks >= (kernel.tile.resident if kernel.arch.startswith("9") else 1), kernel


USAGE = """
Fatbin elf code:
================
arch = sm_80
 Function _Z6attendILi64EEv4call:
  REG:197 STACK:0 SHARED:1024 LOCAL:0 CONSTANT[0]:473 TEXTURE:0
 Function _Z11gemm_kernelIL11orientation0E4tileILi64ELi64ELi32ELi32ELi64ELi4ELi3ELb1EE4realEv7product:
  REG:128 STACK:16 SHARED:0 LOCAL:8 CONSTANT[0]:473
Fatbin elf code:
================
arch = sm_90a
 Function _Z6attendILi64EEv4call:
  REG:199 STACK:0 SHARED:2048 LOCAL:0
"""
SASS = """
	code for sm_80
		Function : _Z6attendILi64EEv4call
        /*0000*/                   HMMA.16816.F32.BF16 R4, R4, R8, RZ ;
        /*0010*/                   HMMA.16816.F32.BF16 R4, R4, R8, RZ ;
	code for sm_90a
		Function : _Z6attendILi64EEv4call
        /*0000*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4], !UPT ;
        /*0010*/                   MOV R1, c[0x0][0x28] ;
"""


def test_what_cuobjdump_prints_is_read():
    (arch, attend, *numbers), (_, gemm, *more), (newer, _, *others) = registers.resources(USAGE)
    assert (arch, newer, numbers, more, others) == ("80", "90a", [197, 1024, 0], [128, 0, 24], [199, 2048, 0])
    assert registers.tensor_instructions(SASS.splitlines()) == {("80", attend): (2, 0), ("90a", attend): (0, 1)}
    kernel = registers.Kernel(gemm, "80", 128, 0, 24, 32, 0)
    # by shared memory
    assert kernel.tile == registers.Tile(wgmma=False, threads=128, shared=65536, resident=3) and kernel.blocks == 2
    assert registers.Kernel(attend, "80", 197, 0, 0, 2, 0).blocks is None
    text = registers.table([kernel])
    assert "| 80 | 128 | 0 | 24 | 32 |  | 2, 3 |" in text


def test_examples_of_the_documentation():
    results = doctest.testmod(registers)
    assert results.attempted > 0 and results.failed == 0
