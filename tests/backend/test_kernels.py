"""Kernels of CUDA without a GPU: what runs and watches them here sees what it should, and all of ours compile."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fakecupy
import numpy as np
import nvrtc
import pytest
import shim

from tinygrad_rnn.backend import kernels
from tinygrad_rnn.backend.kernels import loader
from tinygrad_rnn.backend.kernels.sequence import CELLS

FLOAT = ("-std=c++17", "-DREAL=float")
needs_compiler = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))
needs_nvrtc = pytest.mark.skipif(nvrtc.available() is not None, reason=str(nvrtc.available()))

PRELUDE = """
#define LOWEST -__int_as_float(0x7f800000)
#ifndef SHIM
#define _CG_LIMIT_INCLUDED_DEPENDENCIES  // without the library of C++, which takes a second to read
#include <cooperative_groups.h>
#define GRID_SYNC() cooperative_groups::this_grid().sync()
#define DYN_SHARED(T, name) extern __shared__ T name[]
#endif
"""

ALONE = r"""
struct Scale {
    double by;
    const REAL* plus;  // one number
    int first, only[2];
};

// y = x * by + plus, from `first` on, where `mask` says so
extern "C" __global__ void __launch_bounds__(256) scaled(
    const REAL* __restrict__ x, REAL* y, const bool* mask, int n, float unused, bool on, long long far, Scale s)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < s.first || i >= n || !on || (mask && !mask[i])) return;
    y[i] = x[i] * (REAL)s.by + (s.plus ? *s.plus : REAL(0)) + (REAL)(unused * far);
}
"""

TOGETHER = r"""
__device__ inline REAL of_block(REAL x, bool largest)  // the sum or the largest, for all threads of a block
{
    __shared__ REAL parts[32];
    __shared__ REAL total;
#pragma unroll
    for (int d = 16; d; d >>= 1) {
        REAL other = __shfl_xor_sync(0xffffffffu, x, d);
        x = largest ? max(x, other) : x + other;
    }
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();  // A
    if (threadIdx.x < 32) {
        x = threadIdx.x < blockDim.x / 32 ? parts[threadIdx.x] : largest ? LOWEST : REAL(0);
        for (int d = 16; d; d >>= 1) {
            REAL other = __shfl_down_sync(0xffffffffu, x, d);
            x = largest ? max(x, other) : x + other;
        }
        if (threadIdx.x == 0) total = x;
    }
    __syncthreads();  // B
    return total;
}

// a block per row: its softmax, and the sum of log(sum(exp)) of all rows
extern "C" __global__ void softmax(const REAL* x, REAL* y, REAL* sum, int n)
{
    DYN_SHARED(REAL, row);
    x += (long long)blockIdx.x * n, y += (long long)blockIdx.x * n;
    REAL top = LOWEST, total = 0;
    for (int k = threadIdx.x; k < n; k += blockDim.x) row[k] = x[k], top = max(top, x[k]);
    top = of_block(top, true);
    for (int k = threadIdx.x; k < n; k += blockDim.x) total += row[k] = exp(row[k] - top);
    total = of_block(total, false);
    for (int k = threadIdx.x; k < n; k += blockDim.x) y[k] = row[k] / total;
    if (threadIdx.x == 0) atomicAdd(sum, log(total) + top);
}

// every element becomes, `steps` times, the sum of its two neighbours on the other side
extern "C" __global__ void neighbours(REAL* a, REAL* b, int n, int steps)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    for (int t = 0; t < steps; t++) {
        const REAL* from = t % 2 ? b : a;
        if (i < n) (t % 2 ? a : b)[i] = __ldcg(from + (i + 1) % n) + __ldcg(from + (i + n - 1) % n);
        GRID_SYNC();
    }
}
"""

SOURCE = PRELUDE + ALONE + TOGETHER

SCALE = np.dtype([("by", "f8"), ("plus", np.uintp), ("first", "i4"), ("only", "i4", 2)], align=True)
i32, f32, i64 = np.int32, np.float32, np.int64


def scale(by: float, plus: int = 0, first: int = 0) -> np.ndarray:
    return np.array((by, plus, first, (0, 0)), SCALE)


def softmax(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True), (np.log(e.sum(1)) + x.max(1)).sum()


def rows(n: int, k: int, dtype: Any = f32) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, k)).astype(dtype)


# -- running --------------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("real", ["float", "double"])
def test_a_kernel_without_barriers(real: str) -> None:
    kernel = shim.compiled(SOURCE, ("-std=c++17", f"-DREAL={real}"))["scaled"]
    assert kernel.way == shim.LOOP and kernel.names[:4] == ("x", "y", "mask", "n")
    x = rows(300, 400, real.replace("float", "f4").replace("double", "f8")).ravel()
    y, mask, plus = np.zeros_like(x), x > 0, np.full(1, 3, x.dtype)
    args = (i32(x.size), f32(0), np.True_, i64(2**40), scale(2.0, plus.ctypes.data, 5))
    kernel((469,), (256,), (x, y, mask, *args))
    want = np.where(mask, x * x.dtype.type(2) + 3, 0)
    want[:5] = 0
    np.testing.assert_allclose(y, want, rtol=1e-6)
    kernel((469,), (256,), (x, y, None, *args))
    np.testing.assert_allclose(y[5:], x[5:] * 2 + 3, rtol=1e-6, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("threads", [32, 96, 256])
def test_blocks_meet_at_barriers_and_exchange_among_warps(threads: int) -> None:
    kernel = shim.compiled(SOURCE, FLOAT)["softmax"]
    assert kernel.way == shim.BLOCK
    x = rows(5, 133)
    y, total = np.zeros_like(x), np.zeros(1, f32)
    kernel((5,), (threads,), (x, y, total, i32(133)), 133 * 4)
    want, sums = softmax(x.astype(float))
    np.testing.assert_allclose(y, want, rtol=2e-6)
    np.testing.assert_allclose(total[0], sums, rtol=2e-6)


@needs_compiler
def test_all_blocks_meet() -> None:
    kernel = shim.compiled(SOURCE, FLOAT)["neighbours"]
    assert kernel.way == shim.GRID
    a, want = np.arange(90, dtype=f32) % 7, np.arange(90, dtype=float) % 7
    b = np.zeros_like(a)
    kernel((2,), (64,), (a, b, i32(90), i32(5)))
    for _ in range(5):
        want = np.roll(want, 1) + np.roll(want, -1)
    np.testing.assert_array_equal(b, want)


@needs_compiler
def test_arrays_with_gaps_are_their_first_element() -> None:
    kernel = shim.compiled(SOURCE, FLOAT)["scaled"]
    x, y = rows(4, 6), np.zeros((4, 6), f32)
    kernel((1,), (2,), (x[1:, 2:4], y[2:, 1::2], None, i32(2), f32(0), np.True_, i64(0), scale(1.0)))
    np.testing.assert_array_equal(y[2, 1:3], x[1, 2:4])
    assert np.count_nonzero(y) == 2


STUCK = (
    PRELUDE
    + r"""
extern "C" __global__ void divided(float* x)
{
    if (threadIdx.x < 7) __syncthreads();
    else x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
}
extern "C" __global__ void gone(float* x) { if (threadIdx.x || blockIdx.x) GRID_SYNC(); }
extern "C" __global__ void partly(float* x)
{
    if (threadIdx.x < 40) x[threadIdx.x] = __shfl_down_sync(0xffffffffu, x[threadIdx.x], 1);
}
extern "C" __global__ void past(float* x)
{
    DYN_SHARED(float, s);
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = s[2 * threadIdx.x];
}
extern "C" __global__ void alone(float* x)
{
    if (threadIdx.x == 3) x[3] = __shfl_sync(4u, x[3], 1);
}
"""
)


@needs_compiler
def test_threads_that_wait_for_ever_are_told_from_a_slow_test() -> None:
    kernels, x = shim.compiled(STUCK), np.zeros(64, f32)
    with pytest.raises(
        RuntimeError, match=r"divided: .* for ever: 7 at __syncthreads \(first: thread 0,0,0 of block 0"
    ):
        kernels["divided"]((1,), (32,), (x,))
    with pytest.raises(
        RuntimeError, match=r"gone: .* 63 at GRID_SYNC \(first: thread 1,0,0 of block 0,0,0\); 1 at its"
    ):
        kernels["gone"]((2,), (32,), (x,))


@needs_compiler
def test_what_cuda_leaves_undefined_is_nan_or_an_error() -> None:
    kernels, x = shim.compiled(STUCK), np.ones(64, f32)
    kernels["partly"]((1,), (48,), (x,))
    assert np.isnan(x).tolist() == [k == 39 for k in range(64)]  # the others of its warp are at their end
    x[:] = 1
    kernels["past"]((1,), (64,), (x,), 128 * 4)
    assert np.isnan(x).tolist() == [k >= 32 for k in range(64)]  # nobody wrote there
    with pytest.raises(RuntimeError, match="past the end of the dynamic shared memory"):
        kernels["past"]((1,), (64,), (np.ones(64, f32),), 63 * 4)
    with pytest.raises(RuntimeError, match="but the launch gave none"):
        kernels["past"]((1,), (64,), (x,))
    with pytest.raises(RuntimeError, match="a mask that lacks itself"):
        kernels["alone"]((1,), (32,), (x,))


# -- refusing -------------------------------------------------------------------------------------------------------

X, Y = np.ones(8, f32), np.ones(8, f32)
GOOD = (X, Y, None, i32(8), f32(0), np.True_, i64(0), scale(1.0))
BAD = {
    "x is a pointer to float32, not to float64": (0, X.astype(float)),
    "x is a pointer to float32, which takes an array or None, not 0": (0, 0),
    "y is a pointer to float32 that is written to": (1, np.broadcast_to(f32(0), 8)),
    "mask is a pointer to bool, not to uint8": (2, np.ones(8, np.uint8)),
    "n is int32, which takes np.int32, not 8": (3, 8),
    r"n is int32, not .*\(int64\)": (3, i64(8)),
    "n is int32, which takes np.int32, not None": (3, None),
    "unused is float32, which takes np.float32, not 0.0": (4, 0.0),
    "unused is float32, not": (4, np.float64(0)),
    "on is bool, which takes np.bool, not True": (5, True),
    "far is int64, which takes np.int64, not 1": (6, 1),
    "s is a structure of 32 bytes, which takes an array of one": (7, 1.0),
    "s is a structure of 32 bytes by:f8@0,plus:": (7, scale(1.0).view("V32")),
    r"s is a structure of 32 bytes .*first:i4@16,only:i4\[2\]@20": (
        7, np.zeros(1, [("by", "f8"), ("plus", np.uintp), ("only", "i4", 2), ("first", "i4"), ("_", "i4")])
    ),
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("message", BAD)
def test_an_argument_that_a_gpu_would_misread_is_refused(message: str) -> None:
    place, wrong = BAD[message]
    args = list(GOOD)
    args[place] = wrong
    with pytest.raises(TypeError, match="scaled: " + message):
        shim.compiled(SOURCE, FLOAT)["scaled"]((1,), (8,), tuple(args))


@needs_compiler
def test_numbers_and_sizes_of_a_launch() -> None:
    kernel = shim.compiled(SOURCE, FLOAT)["scaled"]
    with pytest.raises(TypeError, match=r"scaled takes 8 arguments \(x, y, mask, n, unused, on, far, s\), not 7"):
        kernel((1,), (8,), GOOD[:-1])
    for grid, block, message in [
        ((1,), (257,), "a block of 257 threads, but it can have 256"),
        ((0,), (8,), "the grid is"),
        (1, (8,), "the grid is 1"),
        ((1,), (8, 0), "the block is"),
    ]:
        with pytest.raises(ValueError, match=message):
            kernel(grid, block, GOOD)


@needs_compiler
def test_sources_that_do_not_fit_are_explained() -> None:
    with pytest.raises(shim.CompileError, match=r"kernels\.cu:3:\d+: error: 'tanhff' was not declared"):
        shim.compiled('extern "C" __global__ void f(float* x)\n{\n    x[0] = tanhff(x[1]);\n}')
    with pytest.raises(shim.CompileError, match='f is not extern "C"'):
        shim.compiled("__global__ void f(float* x) {}")
    with pytest.raises(shim.CompileError, match="one array or number for each __shared__"):
        shim.compiled('extern "C" __global__ void f(float* x) { __shared__ float a[3], b[3]; }')


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shim.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match=r"there is no g\+\+|on Linux only"):
        fakecupy.RawModule(code="// nothing").get_function("f")


# -- as CuPy --------------------------------------------------------------------------------------------------------


@needs_compiler
def test_the_fake_runs_kernels_and_counts_launches() -> None:
    kernel = fakecupy.RawModule(code=SOURCE, options=FLOAT).get_function("softmax")
    x, y, total = fakecupy.array(rows(3, 40)), fakecupy.zeros((3, 40), f32), fakecupy.zeros(1, f32)
    with fakecupy.counting() as count:
        kernel((3,), (64,), (x, y, total, i32(40)), shared_mem=160)
    assert {what: n for what, n in count.items() if n} == {"launches": 1}
    np.testing.assert_allclose(y.get(), softmax(x.get())[0], rtol=2e-6)


@needs_compiler
def test_the_fake_refuses_what_a_gpu_cannot_take() -> None:
    module = fakecupy.RawModule(code=SOURCE, options=FLOAT)
    kernel, x = module.get_function("softmax"), fakecupy.zeros((1, 40), f32)
    with pytest.raises(TypeError, match=r"pass a numpy.ndarray of shape \(1, 40\)"):
        kernel((1,), (32,), (x.get(), x, x, i32(40)), shared_mem=160)
    with pytest.raises(TypeError, match="takes 4 arguments"):
        kernel((1,), (32,), (x, x, x, i32(40), x), shared_mem=160)
    with fakecupy.Device(1), pytest.raises(ValueError, match="on GPU 1 gets an array that lies on GPU 0"):
        kernel((1,), (32,), (x, x, x, i32(40)), shared_mem=160)
    with pytest.raises(fakecupy.CUDADriverError, match="60000 bytes of shared memory, of 49152"):
        kernel((1,), (32,), (x, x, x, i32(40)), shared_mem=60000)
    kernel.max_dynamic_shared_size_bytes = 60000
    kernel((1,), (32,), (x, x, x, i32(40)), shared_mem=60000)
    with pytest.raises(fakecupy.CUDADriverError, match="invalid argument"):
        kernel.max_dynamic_shared_size_bytes = fakecupy.SHARED_MEMORY + 1
    with pytest.raises(fakecupy.CUDADriverError, match="named symbol not found"):
        module.get_function("softmaxx")
    with pytest.raises(fakecupy.CompileException, match=r"kernels\.cu:1"):
        fakecupy.RawModule(code="nonsense").get_function("f")


@needs_compiler
def test_the_fake_launches_together_only_what_fits_at_once() -> None:
    a, b = fakecupy.ones(40, f32), fakecupy.ones(40, f32)
    kernel = fakecupy.RawModule(code=SOURCE, options=FLOAT).get_function("neighbours")
    with pytest.raises(ValueError, match="not launched as a cooperative one"):
        kernel((2,), (32,), (a, b, i32(40), i32(1)))
    module = fakecupy.RawModule(code=SOURCE, options=FLOAT, enable_cooperative_groups=True)
    kernel, most = module.get_function("neighbours"), fakecupy.Device().attributes["MultiProcessorCount"]
    kernel.max_dynamic_shared_size_bytes = fakecupy.SHARED_MEMORY
    kernel((2 * most,), (32,), (a, b, i32(40), i32(1)))
    assert b.get().tolist() == [2.0] * 40
    with pytest.raises(ValueError, match=rf"grid size \({2 * most + 1},\) exceeds the limit \({2 * most}\)"):
        kernel((2 * most + 1,), (32,), (a, b, i32(40), i32(1)))
    with pytest.raises(ValueError, match="exceeds the limit"):
        kernel((most + 1,), (32,), (a, b, i32(40), i32(1)), shared_mem=fakecupy.SHARED_MEMORY)


# -- sanitizers -----------------------------------------------------------------------------------------------------


BROKEN = {
    "a barrier in front of the sum": ("thread", "softmax", "__syncthreads();  // A", "", "data race"),
    "a barrier behind the sum": ("thread", "softmax", "__syncthreads();  // B", "", "data race"),
    "an atomic function": ("thread", "softmax", "atomicAdd(sum, log(total) + top)", "*sum += total", "data race"),
    "a meeting of blocks": ("thread", "neighbours", "GRID_SYNC();", "__syncthreads();", "data race"),
    "a bound": ("address", "neighbours", "if (i < n) (t", "if (i <= n) (t", "heap-buffer-overflow"),
    "room in shared memory": ("address", "softmax", "row[k] = x[k]", "row[k + 1] = x[k]", "heap-buffer-overflow"),
    "a place in an array": ("address", "softmax", "parts[threadIdx.x / 32]", "parts[threadIdx.x]", "index 32 out of"),
    "a shift": ("address", "softmax", "d >>= 1", "d = d >> (d == 1 ? 40 : 1)", "shift exponent 40 is too large"),
}


def with_broken(kind: str) -> str:
    """The kernels whose threads meet, and behind them the broken ones, each under a name with its number."""
    text = PRELUDE + TOGETHER
    for number, (own, _, old, new, _) in enumerate(BROKEN.values()):
        assert old in TOGETHER
        if own == kind:
            text += re.sub(r"\b(of_block|softmax|neighbours)\b", rf"\1_{number}", TOGETHER.replace(old, new))
    return text


def launch(kind: str, kernel: str) -> tuple[str, np.ndarray]:
    """The report of a small launch, and what it computed."""
    source = with_broken(kind)
    if kernel.startswith("softmax"):
        x = rows(2, 70)
        y, total = np.zeros_like(x), np.zeros(1, f32)
        return shim.sanitized(source, FLOAT, kind, kernel, (2,), (64,), (x, y, total, i32(70)), 70 * 4), y
    a = np.arange(60, dtype=f32) % 7
    b = np.zeros_like(a)
    return shim.sanitized(source, FLOAT, kind, kernel, (2,), (32,), (a, b, i32(60), i32(3))), b


@needs_compiler
@pytest.mark.parametrize("kind", shim.SANITIZERS)
def test_sanitizers_find_nothing_in_what_is_right(kind: str) -> None:
    report, y = launch(kind, "softmax")
    assert report == ""
    np.testing.assert_allclose(y, softmax(rows(2, 70))[0], rtol=2e-6)
    report, b = launch(kind, "neighbours")
    assert report == "" and b[:3].tolist() == [16, 12, 20]


@needs_compiler
@pytest.mark.parametrize("missing", BROKEN)
def test_sanitizers_find_what_is_missing(missing: str) -> None:
    kind, kernel, _, _, words = BROKEN[missing]
    report, _ = launch(kind, f"{kernel}_{[*BROKEN].index(missing)}")
    assert re.search(words, report) and "kernels.cu" in report


# -- NVIDIA's compiler ----------------------------------------------------------------------------------------------


@needs_nvrtc
@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_nvrtc_takes_the_same_source(architecture: int) -> None:
    found = nvrtc.compiled_for(architecture, SOURCE, FLOAT)
    assert found.keys() == {"scaled", "softmax", "neighbours"}
    assert all(0 < usage.registers < 64 and not usage.spilled for usage in found.values())
    assert found["softmax"].shared >= 33 * 4


@needs_nvrtc
def test_nvrtc_says_where_a_mistake_is() -> None:
    with pytest.raises(nvrtc.CompileError, match=r'kernels\.cu\(2\): error: identifier "tanhff" is undefined'):
        nvrtc.compiled_for(90, 'extern "C" __global__ void f(float* x) {\n    x[0] = tanhff(x[1]);\n}')


# -- our own kernels ------------------------------------------------------------------------------------------------

FILES = sorted(path.stem for path in Path(kernels.__file__).parent.glob("*.cuh") if path.stem != "prelude")
VARIANTS = [
    (file, real, cell)
    for file in FILES
    for real in ("float", "double")
    for cell in (range(len(CELLS)) if file == "sequence" else [None])
]
SOME = [variant for variant in VARIANTS if variant[0] != "sequence"] + [
    ("sequence", "float", 4)
]  # the others take long


def options_of(real: str, cell: int | None) -> tuple[str, ...]:
    return ("-std=c++17", f"-DREAL={real}", *([] if cell is None else ["-DCOOPERATIVE", f"-DCELL={cell}"]))


@needs_compiler
@pytest.mark.parametrize(("file", "real", "cell"), VARIANTS)
def test_ours_compile_for_the_cpu(file: str, real: str, cell: int | None) -> None:
    found = shim.compiled(loader.source(file), options_of(real, cell)).kernels
    assert found and all(len(kernel.names) == len(kernel.codes) for kernel in found.values())
    assert (shim.GRID in {kernel.way for kernel in found.values()}) == (file == "sequence")


@needs_nvrtc
@pytest.mark.parametrize(
    ("file", "real", "cell"),
    [pytest.param(*variant, marks=[] if variant in SOME else pytest.mark.slow) for variant in VARIANTS],
)
def test_ours_compile_for_gpus(file: str, real: str, cell: int | None) -> None:
    """Down to machine code, with everything in registers."""
    for architecture in nvrtc.ARCHITECTURES:
        for name, usage in nvrtc.compiled_for(architecture, loader.source(file), options_of(real, cell)).items():
            assert not usage.spilled, (architecture, name, usage)
