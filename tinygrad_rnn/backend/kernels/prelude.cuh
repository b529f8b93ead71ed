// What stands in front of every kernel: the two macros that a test on a CPU replaces, and the logistic function.
// REAL is float or double. COOPERATIVE is defined where blocks wait for each other.
#ifndef SHIM
#ifdef COOPERATIVE
#define _CG_LIMIT_INCLUDED_DEPENDENCIES  // NVIDIA's own: without it, compiling takes twice as long
#include <cooperative_groups.h>
#define GRID_SYNC() cooperative_groups::this_grid().sync()
#endif
#define DYN_SHARED(T, name) extern __shared__ __align__(16) unsigned char name##_bytes[]; T* name = (T*)name##_bytes
#endif

__device__ inline REAL sigmoid(REAL a) { return REAL(1) / (REAL(1) + exp(-a)); }
