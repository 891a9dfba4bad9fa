"""Builds grpo._core from csrc/ and, where nvcc is, the CUDA plugin. Switches: GRPO_DEBUG=1 (-O0 -g), GRPO_SANITIZE=1
(ASan + UBSan), GRPO_WERROR=1 (CI), GRPO_BUILD_JOBS; of the plugin: buildtools/cuda.py."""
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))                          # pip does not put it there

from buildtools import cuda  # noqa: E402

PLUGIN = os.path.join(*cuda.NAME.split(".")) + ".so"


def flags():
    compile_, link = ["-std=gnu11", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=off", "-Wall", "-Wextra",
                      "-Wpointer-arith"], []
    debug, sanitize = (os.environ.get(name) == "1" for name in ("GRPO_DEBUG", "GRPO_SANITIZE"))
    compile_ += ["-O0", "-g"] if debug else ["-O1"] if sanitize else ["-O3", "-g0"]
    compile_ += ["-UNDEBUG" if debug or sanitize else "-DNDEBUG"]                # assert() of the core's invariants
    if sanitize:
        compile_ += ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-g"]
        link += ["-fsanitize=address,undefined"]
    if os.environ.get("GRPO_WERROR") == "1":
        compile_ += ["-Werror"]
    return compile_, link


class BuildExt(build_ext):
    def finalize_options(self):
        super().finalize_options()
        self.jobs = int(os.environ.get("GRPO_BUILD_JOBS") or os.environ.get("MAX_JOBS") or os.cpu_count() or 1)

    def run(self):
        self.nvcc = cuda.find_nvcc()
        if not self.nvcc:                                            # nor shall an older build's be found
            self.extensions = [ext for ext in self.extensions if ext.name != cuda.NAME]
            for folder in (Path(self.build_lib), ROOT if self.inplace else Path(self.build_lib)):
                (folder / PLUGIN).unlink(missing_ok=True)
        super().run()

    def copy_extensions_to_source(self):
        if self.nvcc:
            (ROOT / PLUGIN).parent.mkdir(exist_ok=True)
        super().copy_extensions_to_source()

    def get_ext_filename(self, fullname):
        if not cuda.NAME.endswith(fullname):
            return super().get_ext_filename(fullname)
        return os.path.join(*fullname.split(".")) + ".so"            # a plain library: no Python version in its name

    def build_extension(self, ext):
        if ext.name == cuda.NAME:
            cuda.build(self.nvcc, ext.sources, Path(self.get_ext_fullpath(ext.name)), Path(self.build_temp), ROOT,
                       self.jobs)
        else:
            self.build_core(ext)

    def build_core(self, ext):
        import numpy

        ext.include_dirs += [numpy.get_include(), str(ROOT / "csrc")]
        compile_one = self.compiler.compile

        def compile_many(sources, *args, **kwargs):
            with ThreadPoolExecutor(self.jobs) as pool:
                return [obj for objs in pool.map(lambda s: compile_one([s], *args, **kwargs), sources) for obj in objs]

        self.compiler.compile = compile_many
        try:
            super().build_extension(ext)
        except Exception as error:
            raise SystemExit(f"grpo: building the C core failed: {error}\nIt needs a C11 compiler and Python's headers "
                             "(Debian/Ubuntu: apt install gcc python3-dev).") from error


compile_args, link_args = flags()
sources = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.c"))
headers = sorted(str(p.relative_to(ROOT)) for ext in ("*.h", "*.def", "*.inc") for p in (ROOT / "csrc").rglob(ext))
setup(
    ext_modules=[Extension("grpo._core", sources, depends=headers, libraries=["m", "pthread"],
                           extra_compile_args=compile_args, extra_link_args=link_args), cuda.CudaLibrary(ROOT)],
    cmdclass={"build_ext": BuildExt},
)
