"""What the compiler made of every kernel of the CUDA plugin: registers, shared and local memory, tensor instructions,
blocks that share a multiprocessor. Needs no GPU, but cuobjdump (of CUDA's toolkit, or of the package triton).

    python buildtools/registers.py [PLUGIN]       # default: grpo/_lib/libgrpo_cuda.so; a table in Markdown, a minute
"""
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# of a multiprocessor: registers, and bytes of shared memory (of which a block takes RESERVED besides its own)
REGISTERS, SHARED, RESERVED = 65536, {"80": 164 << 10, "90": 228 << 10}, 1 << 10


@dataclass(frozen=True)
class Tile:
    """Of a product's kernel, from the name that the compiler gave it: csrc/cuda/gemm80.cuh and gemm90.cuh."""

    wgmma: bool
    threads: int
    shared: int                                # bytes of its ring of stages
    resident: int                              # blocks that shall share a multiprocessor

    @classmethod
    def of(cls, mangled: str) -> "Tile | None":
        """
        >>> Tile.of("_Z11gemm_kernelIL11orientation0E6tile90ILi64ELi16ELi7ELi3ELb0EE12sums_to_realEv7productT1_")
        Tile(wgmma=True, threads=128, shared=71680, resident=3)
        """
        found = re.search(r"\dtile(90)?I((?:Li\d+E)+)", mangled)
        if not found:
            return None
        numbers = [int(n) for n in re.findall(r"Li(\d+)E", found[2])]
        if found[1]:
            M, N, stages, resident = numbers
            return cls(True, 2 * M, 2 * stages * (M + N) * 64, resident)
        M, N, warp_m, warp_n, K, stages, resident = numbers
        return cls(False, 32 * (M // warp_m) * (N // warp_n), 2 * stages * (M + N) * K, resident)


@dataclass(frozen=True)
class Kernel:
    """registers: of a thread; shared: bytes of a block beside what a launch asks for; local: bytes of a thread's local
    memory, for spilled registers or for arrays that are indexed; hmma, hgmma: instructions of mma.sync and of wgmma."""

    name: str
    arch: str
    registers: int
    shared: int
    local: int
    hmma: int
    hgmma: int

    @property
    def tile(self) -> Tile | None:
        return Tile.of(self.name)

    @property
    def empty(self) -> bool:
        """A kernel for another architecture, which returns at once."""
        return self.tile is not None and self.tile.wgmma and self.arch != "90a"

    @property
    def blocks(self) -> int | None:
        """Of a product's kernel: blocks that fit a multiprocessor by registers, which warps get in eights a thread, and
        shared memory."""
        limit = SHARED.get(self.arch.rstrip("a"))
        if self.tile is None or limit is None:
            return None
        by_registers = REGISTERS // (self.tile.threads * (self.registers + 7 & ~7))
        return min(by_registers, limit // (self.tile.shared + max(self.shared, RESERVED)))


def find_cuobjdump() -> str | None:
    parts = ("triton/backends/nvidia/bin", "nvidia/cu13/bin")
    folders = [Path("/usr/local/cuda/bin"), *(Path(entry or ".") / part for entry in sys.path for part in parts)]
    there = (str(folder / "cuobjdump") for folder in folders if (folder / "cuobjdump").exists())
    return shutil.which("cuobjdump") or next(there, None)


def kernels(plugin: Path, cuobjdump: str) -> list[Kernel]:
    """Of all architectures."""
    usage = subprocess.run([cuobjdump, "-res-usage", str(plugin)], capture_output=True, text=True, check=True).stdout
    with subprocess.Popen([cuobjdump, "-sass", str(plugin)], stdout=subprocess.PIPE, text=True) as dump:
        counts = tensor_instructions(dump.stdout)
    return [Kernel(name, arch, *numbers, *counts.get((arch, name), (0, 0)))
            for arch, name, *numbers in resources(usage)]


def resources(text: str) -> Iterable[tuple[str, str, int, int, int]]:
    """(architecture, kernel, registers, shared, local) of what cuobjdump -res-usage prints."""
    for section in text.split("Fatbin elf code:")[1:]:
        arch = re.search(r"arch = sm_(\w+)", section)[1]
        for name, values in re.findall(r"Function (\S+):\s+(REG:.*)", section):
            numbers = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", values)}
            yield arch, name, numbers["REG"], numbers["SHARED"], numbers["STACK"] + numbers["LOCAL"]


def tensor_instructions(lines: Iterable[str]) -> dict[tuple[str, str], tuple[int, int]]:
    """{(architecture, kernel): (HMMA, HGMMA)} of what cuobjdump -sass prints."""
    counts, arch, name = {}, "", ""
    for line in lines:
        if "code for sm_" in line:
            arch = line.split("sm_")[1].strip()
        elif "Function :" in line:
            name = line.split(":")[1].strip()
            counts[arch, name] = (0, 0)
        elif " HMMA." in line or " HGMMA." in line:
            hmma, hgmma = counts[arch, name]
            counts[arch, name] = (hmma + 1, hgmma) if " HMMA." in line else (hmma, hgmma + 1)
    return counts


def readable(names: list[str]) -> list[str]:
    """As the source has them, where c++filt is installed."""
    if not shutil.which("c++filt"):
        return names
    found = subprocess.run(["c++filt", "-p"], input="\n".join(names), capture_output=True, text=True, check=True)
    return [re.sub(r"\((orientation|gelu_kind)\)", "", name) for name in found.stdout.splitlines()]


def table(found: list[Kernel]) -> str:
    lines = ["| kernel | sm | registers | shared | local | HMMA | HGMMA | blocks that fit, meant |",
             "|---|---|---|---|---|---|---|---|"]
    for kernel, name in zip(found, readable([kernel.name for kernel in found]), strict=True):
        blocks = "" if kernel.blocks is None else f"{kernel.blocks}, {kernel.tile.resident}"
        if not kernel.empty:
            lines.append(f"| {name} | {kernel.arch} | {kernel.registers} | {kernel.shared} | {kernel.local} | "
                         f"{kernel.hmma or ''} | {kernel.hgmma or ''} | {blocks} |")
    return "\n".join(lines)


def main() -> None:
    built = Path(__file__).parent.parent / "grpo" / "_lib" / "libgrpo_cuda.so"
    plugin = Path(sys.argv[1]) if len(sys.argv) > 1 else built
    cuobjdump = find_cuobjdump()
    if not plugin.exists() or cuobjdump is None:
        raise SystemExit("no cuobjdump: it comes with CUDA's toolkit" if plugin.exists()
                         else f"{plugin}: no plugin; build it with GRPO_CUDA=1")
    print(table(kernels(plugin, cuobjdump)))


if __name__ == "__main__":
    main()
