"""A few kernels for the driver's own compiler, so that no CUDA toolkit is needed."""

from __future__ import annotations

from functools import cache
from typing import Any

_HEAD = """.version 6.3
.target sm_75
.address_size 64
"""
_KERNELS = {
    "write_nowhere": """.visible .entry write_nowhere() {
    .reg .u64 %a; .reg .u32 %v;
    mov.u64 %a, 0; mov.u32 %v, 1;
    st.global.u32 [%a], %v;
    ret;
}""",
    "write_askew": """.visible .entry write_askew() {
    .shared .align 8 .b8 there[16];
    .reg .u32 %a; .reg .u32 %v;
    mov.u32 %a, there; add.u32 %a, %a, 1; mov.u32 %v, 1;
    st.volatile.shared.u32 [%a], %v;
    ret;
}""",
    "trap": """.visible .entry trap() {
    trap;
    ret;
}""",
    # add_one(float *values, int count): one thread a value
    "add_one": """.visible .entry add_one(.param .u64 values, .param .u32 count) {
    .reg .u64 %p, %o; .reg .u32 %i, %b, %n, %c; .reg .f32 %x; .reg .pred %out;
    ld.param.u64 %p, [values]; ld.param.u32 %c, [count];
    mov.u32 %i, %tid.x; mov.u32 %b, %ctaid.x; mov.u32 %n, %ntid.x;
    mad.lo.u32 %i, %b, %n, %i;
    setp.ge.u32 %out, %i, %c;
    @%out bra DONE;
    cvta.to.global.u64 %p, %p;
    mul.wide.u32 %o, %i, 4; add.u64 %p, %p, %o;
    ld.global.f32 %x, [%p]; add.f32 %x, %x, 0f3F800000; st.global.f32 [%p], %x;
DONE:
    ret;
}""",
    # spin(unsigned cycles): every thread waits that many cycles of its multiprocessor
    "spin": """.visible .entry spin(.param .u64 cycles) {
    .reg .u64 %c, %s, %t; .reg .pred %on;
    ld.param.u64 %c, [cycles];
    mov.u64 %s, %clock64;
AGAIN:
    mov.u64 %t, %clock64; sub.u64 %t, %t, %s;
    setp.lt.u64 %on, %t, %c;
    @%on bra AGAIN;
    ret;
}""",
}


@cache
def _module(name: str) -> Any:
    import pycuda.driver as driver

    return driver.module_from_buffer((_HEAD + _KERNELS[name]).encode() + b"\0")


def kernel(name: str) -> Any:
    """pycuda's function ``name``; the GPU's context must be current."""
    return _module(name).get_function(name)
