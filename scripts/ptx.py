#!/usr/bin/env python3
"""Makes native/transport/cuda/kernels_ptx.h of kernels.cu with NVRTC 11.8, so that the PTX is version 7.8 and every
driver since CUDA 11.8 takes it. Needs no GPU and no toolkit:

    pip download --no-deps -d /tmp/nvrtc nvidia-cuda-nvrtc-cu11==11.8.89 && unzip -d /tmp/nvrtc /tmp/nvrtc/*.whl
    python3 scripts/ptx.py /tmp/nvrtc/nvidia/cuda_nvrtc/lib/libnvrtc.so.11.2
"""
import ctypes
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "native" / "transport" / "cuda"
OPTIONS = [b"--gpu-architecture=compute_80", b"--std=c++17", b"--use_fast_math", b"-default-device"]


def main() -> None:
    nvrtc = ctypes.CDLL(sys.argv[1])
    program = ctypes.c_void_p()
    source = (FOLDER / "kernels.cu").read_bytes()

    def call(name, *arguments):
        result = getattr(nvrtc, name)(*arguments)
        if result != 0:
            size = ctypes.c_size_t()
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            sys.exit(f"{name}: {result}\n{log.value.decode()}")

    call("nvrtcCreateProgram", ctypes.byref(program), source, b"kernels.cu", 0, None, None)
    call("nvrtcCompileProgram", program, len(OPTIONS), (ctypes.c_char_p * len(OPTIONS))(*OPTIONS))
    size = ctypes.c_size_t()
    call("nvrtcGetPTXSize", program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    call("nvrtcGetPTX", program, ptx)
    # Compilers take literals of 64 KiB; comments say nothing that the source does not.
    lines = [line for line in ptx.value.decode().splitlines() if line.strip() and not line.lstrip().startswith("//")]
    text = "\n".join(lines)
    header = (
        "// Made by scripts/ptx.py of kernels.cu. Not to be edited.\n#pragma once\n\n"
        "namespace mooncake::cuda {\n\n"
        f'inline constexpr char KERNELS[] = R"ptx({text}\n)ptx";\n\n'
        "}  // namespace mooncake::cuda\n"
    )
    (FOLDER / "kernels_ptx.h").write_text(header)


if __name__ == "__main__":
    main()
