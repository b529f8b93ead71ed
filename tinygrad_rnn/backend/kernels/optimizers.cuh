// Adam, and clipping by the norm, for many parameters in one launch; what they compute is said by optim/.
//
// A launch takes a table of up to TABLE arrays by value. blockIdx.y is the array, the blocks of x share its elements.

#define TABLE 40
#define ELEMENTS(size)                                                              \
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < (size); \
         i += (long long)gridDim.x * blockDim.x)

struct Weights {
    const REAL *p, *g;
    REAL *mean, *square, *next;
    long long size;
    double pace, eps;  // lr sqrt(1 - b2^t) / (1 - b1^t), and eps sqrt(1 - b2^t)
};

struct WeightsTable { Weights of[TABLE]; };

// decay: what is added to the gradient for each p. shrink: what p is multiplied with first.
extern "C" __global__ void adam(WeightsTable table, REAL b1, REAL rest1, REAL b2, REAL rest2, REAL decay, REAL shrink)
{
    const Weights& w = table.of[blockIdx.y];
    REAL pace = REAL(w.pace), eps = REAL(w.eps);
    ELEMENTS(w.size) {
        REAL p = w.p[i] * shrink, g = w.g[i] + decay * w.p[i];
        REAL m = b1 * w.mean[i] + rest1 * g, v = b2 * w.square[i] + rest2 * (g * g);
        w.mean[i] = m, w.square[i] = v;
        w.next[i] = p - pace * (m / (sqrt(v) + eps));
    }
}

struct Gradient {
    const REAL* g;
    REAL* out;
    long long size;
};

struct GradientTable { Gradient of[TABLE]; };

// The sum over a block, which all of its threads get.
__device__ inline REAL sum_of_block(REAL x)
{
    __shared__ REAL parts[32];
    for (int away = 16; away; away >>= 1) x += __shfl_xor_sync(0xffffffffu, x, away);
    __syncthreads();
    if ((threadIdx.x & 31) == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = (threadIdx.x & 31) < blockDim.x / 32 ? parts[threadIdx.x & 31] : REAL(0);
    for (int away = 16; away; away >>= 1) x += __shfl_xor_sync(0xffffffffu, x, away);
    return x;
}

// sums: one number for each block.
extern "C" __global__ void squares(GradientTable table, REAL* sums)
{
    const Gradient& w = table.of[blockIdx.y];
    REAL sum = 0;
    ELEMENTS(w.size) sum += w.g[i] * w.g[i];
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) sums[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// Every block adds up all `count` sums by itself, in the same order: the norm, and the factor for all gradients.
extern "C" __global__ void shortened(GradientTable table, const REAL* sums, int count, REAL longest, REAL* norm)
{
    const Gradient& w = table.of[blockIdx.y];
    REAL sum = 0;
    for (int k = threadIdx.x; k < count; k += blockDim.x) sum += sums[k];
    REAL length = sqrt(sum_of_block(sum)), wanted = longest / (length + REAL(1e-6));
    REAL factor = wanted < 1 || wanted != wanted ? wanted : REAL(1);
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) *norm = length;
    ELEMENTS(w.size) w.out[i] = w.g[i] * factor;
}
