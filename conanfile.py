# SPDX-License-Identifier: MIT
"""A Conan 2 recipe: conan create . -o "heed/*:opencl=False". With the OpenCL wing it takes the loader and xxhash from Conan's own centre."""
import os
import re

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import load


class Heed(ConanFile):
    name = "heed"
    description = "attention for inference, on CPUs and OpenCL devices"
    license = "MIT"
    settings = "os", "compiler", "build_type", "arch"
    options = {"shared": [True, False], "opencl": [True, False]}
    default_options = {"shared": False, "opencl": True}
    exports_sources = "CMakeLists.txt", "LICENSE", "cmake/*", "include/*", "kernels/*", "script/*", "src/*"

    def set_version(self):
        text = load(self, os.path.join(self.recipe_folder, "CMakeLists.txt"))
        self.version = re.search(r"project\(heed VERSION ([0-9.]+)", text).group(1)

    def configure(self):
        self.settings.rm_safe("compiler.libcxx")
        self.settings.rm_safe("compiler.cppstd")

    def requirements(self):
        if self.options.opencl:
            self.requires("opencl-icd-loader/[>=2023]")
            self.requires("xxhash/[>=0.8]")

    def layout(self):
        cmake_layout(self)

    def generate(self):
        toolchain = CMakeToolchain(self)
        toolchain.cache_variables["HEED_OPENCL"] = bool(self.options.opencl)
        for name in ("HEED_BUILD_TOOLS", "HEED_BUILD_TESTS", "HEED_BUILD_EXAMPLES"):
            toolchain.cache_variables[name] = False
        toolchain.generate()
        CMakeDeps(self).generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        CMake(self).install()

    def package_info(self):
        self.cpp_info.libs = ["heed"]
        self.cpp_info.system_libs = ["m", "pthread"]
        self.cpp_info.set_property("cmake_file_name", "heed")
        self.cpp_info.set_property("cmake_target_name", "heed::heed")
        self.cpp_info.set_property("pkg_config_name", "heed")
