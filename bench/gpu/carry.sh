#!/usr/bin/env bash
# What a machine with a GPU but without a network lacks, into one folder (build/gpu unless named): OpenCL's headers and loader, the headers and static libraries that the
# heed command is built with, and, where it is built, the command itself. All from this machine's Debian packages (script/bootstrap). The OpenCL
# implementation belongs to the driver of that machine and cannot be carried. There: bench/gpu/first.sh.
#   bench/gpu/carry.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/../.."
to=${1:-build/gpu}
rm -rf "$to/third"
mkdir -p "$to/third/include" "$to/third/lib"
cp -rL /usr/include/CL "$to/third/include/"
cp -L /usr/include/jansson.h /usr/include/xxhash.h "$to/third/include/"
find /usr/include -name jansson_config.h -exec cp -L {} "$to/third/include/" \;
for library in libjansson.a libxxhash.a; do cp -L "$(gcc -print-file-name=$library)" "$to/third/lib/"; done
cp -L "$(gcc -print-file-name=libOpenCL.so)" "$to/third/lib/libOpenCL.so.1"
ln -sf libOpenCL.so.1 "$to/third/lib/libOpenCL.so"
for program in heed kernel_source; do
  if [ -x build/release/$program ]; then cp build/release/$program "$to/"; fi
done
du -sh "$to"
