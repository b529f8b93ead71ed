// Cross entropy of the softmax, one warp for each row of V logits; what it computes is said by nn/losses.py.

__device__ inline REAL largest_of_warp(REAL x)
{
    for (int away = 16; away; away >>= 1) x = max(x, __shfl_xor_sync(0xffffffffu, x, away));
    return x;
}

__device__ inline REAL sum_of_warp(REAL x)
{
    for (int away = 16; away; away >>= 1) x += __shfl_xor_sync(0xffffffffu, x, away);
    return x;
}

// An index past either end wraps around, as it does in CuPy.
__device__ inline int wrapped(long long index, int V)
{
    long long rest = index % V;
    return (int)(rest < 0 ? rest + V : rest);
}

// The largest logit of a row, and the sum of exp(logit - largest). A NaN anywhere makes the sum one.
__device__ inline void row_of(const REAL* row, int V, int lane, REAL* top, REAL* total)
{
    REAL most = row[lane < V ? lane : 0], sum = 0;
    for (int v = lane + 32; v < V; v += 32) most = max(most, row[v]);
    *top = most = largest_of_warp(most);
    for (int v = lane; v < V; v += 32) sum += exp(row[v] - most);
    *total = sum_of_warp(sum);
}

extern "C" __global__ void softmax_cross_entropy(
    long long rows, int V, const REAL* logits, const long long* targets, REAL* loss)
{
    int lane = threadIdx.x & 31;
    for (long long m = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; m < rows;
         m += (long long)gridDim.x * (blockDim.x / 32)) {
        const REAL* row = logits + m * V;
        REAL top, total;
        row_of(row, V, lane, &top, &total);
        if (lane == 0) loss[m] = log(total) - (row[wrapped(targets[m], V)] - top);
    }
}

// slope = scale * (softmax(logits) - 1 at the target)
extern "C" __global__ void cross_entropy_slope(
    long long rows, int V, const REAL* scale, const REAL* logits, const long long* targets, REAL* slope)
{
    int lane = threadIdx.x & 31;
    for (long long m = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; m < rows;
         m += (long long)gridDim.x * (blockDim.x / 32)) {
        const REAL* row = logits + m * V;
        REAL top, total;
        row_of(row, V, lane, &top, &total);
        REAL share = scale[m] / total;
        int target = wrapped(targets[m], V);
        for (int v = lane; v < V; v += 32)
            slope[m * V + v] = exp(row[v] - top) * share - (v == target ? scale[m] : REAL(0));
    }
}
