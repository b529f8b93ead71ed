// A whole layer in one launch: the weights stay in shared memory, and all blocks take the steps together.
//
// A block has `units` hidden units of all sequences: for these it keeps the columns of U (forward) or the rows (back).
// Each step stages the rows that all blocks have written in the step before, a few sequences (`rows`) at a time, takes
// their products with the block's weights, one warp for a few rows and one unit, and finishes its own units. What one
// step writes and the next one reads crosses the chip: those reads go past the first cache, which is not coherent.
//
// The arithmetic of a unit is that of gates.cuh, which stands in front of this text; CELL says whose. Arrays point to
// the first step that is taken; `_step` numbers lie between two steps, negative ones where the walk is a reverse one.

#define RNN 0
#define MINIMAL_GRU 1
#define GRU 2
#define GRU_AFTER 3
#define LSTM 4

#if CELL == RNN
#define GATE_COUNT 1
#elif CELL == MINIMAL_GRU
#define GATE_COUNT 2
#elif CELL == LSTM
#define GATE_COUNT 4
#else
#define GATE_COUNT 3
#endif

// sums[(r * units + s) * C + c] = the products of staged row r with the weights of unit s, C for each.
template <int C, int R>
__device__ void products_of(const REAL* staged, int count, int K, const REAL* weights, int units, int apart, REAL* sums)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, groups = (count + R - 1) / R;
    for (int task = warp; task < groups * units; task += warps) {
        int s = task % units, r = task / units * R;
        const REAL* w = weights + (long long)s * apart;
        REAL sum[R][C];
        const REAL* row[R];
#pragma unroll
        for (int b = 0; b < R; b++) {
            row[b] = staged + (long long)(r + b < count ? r + b : count - 1) * K;
#pragma unroll
            for (int c = 0; c < C; c++) sum[b][c] = 0;
        }
        for (int k = lane; k < K; k += 32) {
            REAL y[C];
#pragma unroll
            for (int c = 0; c < C; c++) y[c] = w[c * K + k];
#pragma unroll
            for (int b = 0; b < R; b++) {
                REAL x = row[b][k];
#pragma unroll
                for (int c = 0; c < C; c++) sum[b][c] += x * y[c];
            }
        }
#pragma unroll
        for (int b = 0; b < R; b++)
#pragma unroll
            for (int c = 0; c < C; c++) {
                REAL total = sum[b][c];
                for (int away = 16; away; away >>= 1) total += __shfl_down_sync(0xffffffffu, total, away);
                if (lane == 0 && r + b < count) sums[((r + b) * units + s) * C + c] = total;
            }
    }
}

// Stage `count` rows of K numbers, `apart` numbers from row to row, and take their products.
template <int C>
__device__ void products(
    const REAL* from, int apart, int count, int K, const REAL* weights, int units, int between, REAL* staged, REAL* sums)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    bool wide = sizeof(REAL) == 4 && K % 4 == 0 && apart % 4 == 0 && (size_t)from % 16 == 0 && (size_t)staged % 16 == 0;
    for (int r = warp; r < count; r += warps) {
        const REAL* source = from + (long long)r * apart;
        REAL* target = staged + (long long)r * K;
        if (wide) {
#pragma unroll 4
            for (int k = lane; k < K / 4; k += 32) ((float4*)target)[k] = __ldcg((const float4*)source + k);
        } else {
#pragma unroll 4
            for (int k = lane; k < K; k += 32) target[k] = __ldcg(source + k);
        }
    }
    __syncthreads();
    if (count == 1) products_of<C, 1>(staged, count, K, weights, units, between, sums);
    else if (count * units <= 2 * warps) products_of<C, 2>(staged, count, K, weights, units, between, sums);
    else if (count * units < 16 * warps || sizeof(REAL) > 4)  // eight rows of doubles would not fit the registers
        products_of<C, 4>(staged, count, K, weights, units, between, sums);
    else products_of<C, 8>(staged, count, K, weights, units, between, sums);
    __syncthreads();
}

// For every unit of this block in `count` rows from `first` on: row n, unit j, its place i in an array (N, H), its sums.
#define FOR_UNITS(C)                                                                            \
    for (int at = threadIdx.x; at < count * units; at += blockDim.x)                            \
        if (int n = first + at / units, j = unit + at % units, over = outside && outside[n]; j < H) \
            if (long long i = (long long)n * H + j; true)                                       \
                if (const REAL* sum = sums + at * C; true)

extern "C" __global__ void __launch_bounds__(512, 1) sequence_forward(
    int T, int N, int H, int units, int rows, int option, REAL* a, int a_row, long long a_step, const REAL* U,
    const REAL* b, const REAL* inner, REAL* h, long long h_step, REAL* c, REAL* reset, const bool* outside_from, long long outside_step)
{
    DYN_SHARED(REAL, weights);
    REAL* staged = weights + (long long)units * GATE_COUNT * H;
    REAL* sums = staged + (long long)rows * H;
    int unit = blockIdx.x * units;
    for (int k = threadIdx.x; k < units * GATE_COUNT * H; k += blockDim.x) {
        int j = unit + k % units, from = k / units % H, gate = k / units / H;
        weights[((long long)(k % units) * GATE_COUNT + gate) * H + from]
            = j < H ? U[(long long)from * GATE_COUNT * H + gate * H + j] : REAL(0);
    }
    __syncthreads();
    for (int t = 0; t < T; t++, a += a_step, h += h_step, c += h_step) {
        const bool* outside = outside_from ? outside_from + t * outside_step : outside_from;
        REAL *next = h + h_step, *next_c = c + h_step;
        for (int first = 0; first < N; first += rows) {
            int count = min(rows, N - first);
#if CELL == GRU
            products<2>(h + (long long)first * H, H, count, H, weights, units, 3 * H, staged, sums);
            FOR_UNITS(2) gru_reset_unit(H, GATES, sum, 1, BIASES, __ldcg(h + i), reset + i, over);
        }
        GRID_SYNC();
        for (int first = 0; first < N; first += rows) {
            int count = min(rows, N - first);
            products<1>(reset + (long long)first * H, H, count, H, weights + 2 * H, units, 3 * H, staged, sums);
            FOR_UNITS(1) gru_candidate_unit(H, option, GATES, sum[0], BIASES, __ldcg(h + i), next + i, over);
#else
            products<GATE_COUNT>(h + (long long)first * H, H, count, H, weights, units, GATE_COUNT * H, staged, sums);
            FOR_UNITS(GATE_COUNT) {
#if CELL == RNN
                rnn_unit(option, GATES, sum, BIASES, __ldcg(h + i), next + i, over);
#elif CELL == MINIMAL_GRU
                minimal_gru_unit(H, GATES, sum, 1, BIASES, __ldcg(h + i), next + i, over);
#elif CELL == GRU_AFTER
                gru_after_unit(H, option, GATES, sum, 1, BIASES, inner ? inner[j] : REAL(0), __ldcg(h + i), next + i, over);
#else
                lstm_unit(H, GATES, sum, 1, BIASES, __ldcg(h + i), c[i], next + i, next_c + i, over);
#endif
            }
#endif
            __syncthreads();
        }
        GRID_SYNC();
    }
}

// dh and dc are those after the last step at first; in the end, dh lacks what the first step's d brings back through U.
extern "C" __global__ void __launch_bounds__(512, 1) sequence_backward(
    int T, int N, int H, int units, int rows, const REAL* a, int a_row, long long a_step, REAL* d, int d_row,
    long long d_step, const REAL* U, const REAL* keep, const REAL* g, long long step, REAL* dh, REAL* dc,
    const bool* outside_from, long long outside_step)
{
    // Of a GRU with its reset gate before the product, two parts of U are taken by turns.
    DYN_SHARED(REAL, weights);
    REAL* staged = weights + (long long)units * GATE_COUNT * H;
    REAL* sums = staged + (long long)rows * GATE_COUNT * H;
    int unit = blockIdx.x * units, wide = CELL == GRU ? 2 * H : GATE_COUNT * H, lead = CELL == GRU_AFTER ? H : 0;
    for (int k = threadIdx.x; k < units * GATE_COUNT * H; k += blockDim.x) {
        int j = unit + k / (GATE_COUNT * H);
        weights[k] = j < H ? U[(long long)unit * GATE_COUNT * H + k] : REAL(0);
    }
    __syncthreads();
    for (int t = 0; t < T; t++, a += a_step, d += d_step, keep += step, g += step) {
        const bool* outside = outside_from ? outside_from + t * outside_step : outside_from;
        for (int first = 0; first < N; first += rows) {
            int count = min(rows, N - first);
            if (t) products<1>(d - d_step + lead + (long long)first * d_row, d_row, count, wide, weights, units,
                               GATE_COUNT * H, staged, sums);
            FOR_UNITS(1) {
                if (t) dh[i] += sum[0];
#if CELL == GRU
                gru_unit_backward(H, GRADIENTS, g[i], dh + i, over);
#elif CELL == LSTM
                lstm_unit_backward(H, GATES, GRADIENTS, keep[i], g[i], dh + i, dc + i, over);
#else
                linear_unit_backward(H, CELL == GRU_AFTER ? 4 : GATE_COUNT, GRADIENTS, CELL == RNN ? 0 : keep + i, g[i],
                                     dh + i, over);
#endif
            }
            __syncthreads();
        }
        GRID_SYNC();
#if CELL == GRU
        for (int first = 0; first < N; first += rows) {
            int count = min(rows, N - first);
            products<1>(d + 2 * H + (long long)first * d_row, d_row, count, H, weights + 2 * H, units, 3 * H, staged, sums);
            FOR_UNITS(1) gru_reset_unit_backward(H, GATES, GRADIENTS, keep[i], sum[0], dh + i, over);
            __syncthreads();
        }
        GRID_SYNC();
#endif
    }
}
