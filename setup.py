"""The compiled kernels (blocks/native); all else is in pyproject.toml.

They are optional: where they do not compile, or the machine is another one, miniwin installs and works without them.
They are plain libraries, loaded with ctypes, that know nothing of Python: no header of it is needed, and one wheel is
for all its versions. OpenMP is not linked: its calls find torch's, loaded before, so that both share their threads.
"""

import platform
import sys
import zlib
from copy import copy
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FLAGS = ["-O3", "-g0", "-std=gnu11", "-fopenmp", "-fvisibility=hidden", "-mfma", "-mavx2"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
KINDS = {"_avx2": [], "_avx512": AVX512, "_amx": [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]}


SOURCES = sorted(path for path in Path("blocks/native").iterdir() if path.suffix in (".c", ".h"))
CHECKSUM = zlib.crc32(b"".join(path.read_bytes() for path in SOURCES))  # as in blocks/native/__init__.py


class BuildLibraries(build_ext):
    """All kinds at once, each with object files of its own, as they come from the same sources."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = True

    def build_extension(self, ext: Extension) -> None:
        own = copy(self)
        own.build_temp = str(Path(self.build_temp, ext.name))
        super(BuildLibraries, own).build_extension(ext)

    def get_ext_filename(self, name: str) -> str:
        return name.replace(".", "/") + ".so"


class PlatformWheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        tag: tuple[str, str, str] = super().get_tag()
        return "py3", "none", tag[2]


def extensions() -> list[Extension]:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return []
    return [
        Extension(
            f"miniwin.blocks.native.{name}",
            sources=[str(path) for path in SOURCES if path.suffix == ".c"],
            depends=[str(path) for path in SOURCES],
            define_macros=[("SOURCES", f"{CHECKSUM}u")],
            libraries=["m"],
            extra_compile_args=FLAGS + flags,
            optional=True,
        )
        for name, flags in KINDS.items()
    ]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildLibraries, "bdist_wheel": PlatformWheel})
