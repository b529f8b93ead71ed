// The gate arithmetic of the four cells, one launch per time step; what it computes is said by nn/gates.py.
//
// A thread has one hidden unit of one sequence: row n of N, column j of H. `a` and `d` hold the gates of a row side by
// side, H numbers apart, and `a_row` and `d_row` numbers lie between two rows; p = h U is in the same order, without
// gaps. All else is (N, H). outside[n] says that sequence n is over: its states, and their gradients, stand still; it
// may be null. `b` are the biases of all gates of a row, or null. The device functions have one unit: `a`, `p`, `d`, `b`
// point to its first gate there, and `step` numbers of p lie between two gates.

#define UNIT                                                        \
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; \
    if (i >= (long long)N * H) return;                              \
    int n = (int)(i / H), j = (int)(i % H);                         \
    bool over = outside && outside[n];

// -- forward ----------------------------------------------------------------------------------------------------------

__device__ inline REAL bias(const REAL* b, int at) { return b ? b[at] : REAL(0); }

__device__ inline REAL mixed(REAL z, REAL candidate, REAL h, int old)
{
    return old ? candidate + z * (h - candidate) : h + z * (candidate - h);
}

__device__ inline void rnn_unit(int relu, const REAL* a, const REAL* p, const REAL* b, REAL h, REAL* next, bool over)
{
    REAL s = a[0] + p[0] + bias(b, 0);
    *next = over ? h : relu ? (s > 0 || s != s ? s : REAL(0)) : tanh(s);
}

__device__ inline void minimal_gru_unit(
    int H, REAL* a, const REAL* p, int step, const REAL* b, REAL h, REAL* next, bool over)
{
    a[0] = sigmoid(a[0] + p[0] + bias(b, 0)), a[H] = tanh(a[H] + p[step] + bias(b, H));
    *next = over ? h : mixed(a[0], a[H], h, 0);
}

// reset = r * h, which the second product takes.
__device__ inline void gru_reset_unit(
    int H, REAL* a, const REAL* p, int step, const REAL* b, REAL h, REAL* reset, bool over)
{
    a[0] = sigmoid(a[0] + p[0] + bias(b, 0)), a[H] = sigmoid(a[H] + p[step] + bias(b, H));
    *reset = over ? REAL(0) : a[H] * h;
}

__device__ inline void gru_candidate_unit(
    int H, int old, REAL* a, REAL p, const REAL* b, REAL h, REAL* next, bool over)
{
    a[2 * H] = tanh(a[2 * H] + p + bias(b, 2 * H));
    *next = over ? h : mixed(a[0], a[2 * H], h, old);
}

// A fourth block keeps r * (h U_n + c).
__device__ inline void gru_after_unit(
    int H, int old, REAL* a, const REAL* p, int step, const REAL* b, REAL inner, REAL h, REAL* next, bool over)
{
    REAL r = sigmoid(a[H] + p[step] + bias(b, H)), gated = r * (p[2 * step] + inner);
    a[0] = sigmoid(a[0] + p[0] + bias(b, 0)), a[H] = r, a[2 * H] = tanh(a[2 * H] + gated + bias(b, 2 * H));
    a[3 * H] = gated;
    *next = over ? h : mixed(a[0], a[2 * H], h, old);
}

__device__ inline void lstm_unit(
    int H, REAL* a, const REAL* p, int step, const REAL* b, REAL h, REAL c, REAL* next, REAL* next_c, bool over)
{
    REAL in = sigmoid(a[0] + p[0] + bias(b, 0)), f = sigmoid(a[H] + p[step] + bias(b, H));
    REAL g = tanh(a[2 * H] + p[2 * step] + bias(b, 2 * H)), o = sigmoid(a[3 * H] + p[3 * step] + bias(b, 3 * H));
    REAL fresh = f * c + in * g;
    a[0] = in, a[H] = f, a[2 * H] = g, a[3 * H] = o;
    *next_c = over ? c : fresh;
    *next = over ? h : o * tanh(fresh);
}

#define GATES a + (long long)n * a_row + j
#define BIASES b ? b + j : b

extern "C" __global__ void rnn_forward(
    int N, int H, int relu, const REAL* a, int a_row, const REAL* p, const REAL* b, const REAL* h, REAL* next,
    const bool* outside)
{
    UNIT
    rnn_unit(relu, GATES, p + i, BIASES, h[i], next + i, over);
}

extern "C" __global__ void minimal_gru_forward(
    int N, int H, REAL* a, int a_row, const REAL* p, const REAL* b, const REAL* h, REAL* next, const bool* outside)
{
    UNIT
    minimal_gru_unit(H, GATES, p + (long long)n * 2 * H + j, H, BIASES, h[i], next + i, over);
}

extern "C" __global__ void gru_reset(
    int N, int H, REAL* a, int a_row, const REAL* p, const REAL* b, const REAL* h, REAL* reset, const bool* outside)
{
    UNIT
    gru_reset_unit(H, GATES, p + (long long)n * 3 * H + j, H, BIASES, h[i], reset + i, over);
}

extern "C" __global__ void gru_candidate(
    int N, int H, int old, REAL* a, int a_row, const REAL* p, const REAL* b, const REAL* h, REAL* next, const bool* outside)
{
    UNIT
    gru_candidate_unit(H, old, GATES, p[((long long)n * 3 + 2) * H + j], BIASES, h[i], next + i, over);
}

extern "C" __global__ void gru_after_forward(
    int N, int H, int old, REAL* a, int a_row, const REAL* p, const REAL* b, const REAL* inner, const REAL* h, REAL* next,
    const bool* outside)
{
    UNIT
    gru_after_unit(H, old, GATES, p + (long long)n * 3 * H + j, H, BIASES, inner ? inner[j] : REAL(0), h[i], next + i, over);
}

extern "C" __global__ void lstm_forward(
    int N, int H, REAL* a, int a_row, const REAL* p, const REAL* b, const REAL* h, const REAL* c, REAL* next, REAL* next_c,
    const bool* outside)
{
    UNIT
    lstm_unit(H, GATES, p + (long long)n * 4 * H + j, H, BIASES, h[i], c[i], next + i, next_c + i, over);
}

// -- slopes: for all steps at once, so that N stands for T * N here ---------------------------------------------------

#define UNIT_OF_ALL             \
    const bool* outside = 0;    \
    UNIT                        \
    (void)over, (void)n, (void)j;

// What the candidate, the update gate and the old state get of a gradient.
__device__ inline void mixed_slopes(REAL z, REAL candidate, REAL h, int old, REAL* dz, REAL* dn, REAL* keep)
{
    REAL rest = 1 - z;
    *dn = (1 - candidate * candidate) * (old ? rest : z);
    *dz = (old ? h - candidate : candidate - h) * z * rest;
    *keep = old ? z : rest;
}

extern "C" __global__ void rnn_slopes(int N, int H, int relu, const REAL* after, REAL* d, int d_row)
{
    UNIT_OF_ALL
    d[(long long)n * d_row + j] = relu ? REAL(after[i] > 0) : 1 - after[i] * after[i];
}

#define SLOPES                                          \
    const REAL* from = a + (long long)n * a_row + j;    \
    REAL* to = d + (long long)n * d_row + j;

extern "C" __global__ void minimal_gru_slopes(
    int N, int H, const REAL* a, int a_row, const REAL* before, REAL* d, int d_row, REAL* keep)
{
    UNIT_OF_ALL
    SLOPES
    mixed_slopes(from[0], from[H], before[i], 0, to, to + H, keep + i);
}

extern "C" __global__ void gru_slopes(
    int N, int H, int old, const REAL* a, int a_row, const REAL* before, REAL* d, int d_row, REAL* keep)
{
    UNIT_OF_ALL
    SLOPES
    REAL r = from[H];
    mixed_slopes(from[0], from[2 * H], before[i], old, to, to + 2 * H, keep + i);
    to[H] = before[i] * r * (1 - r);
}

// d is in the order n, z, r, q.
extern "C" __global__ void gru_after_slopes(
    int N, int H, int old, const REAL* a, int a_row, const REAL* before, REAL* d, int d_row, REAL* keep)
{
    UNIT_OF_ALL
    SLOPES
    REAL r = from[H], gated = from[3 * H];
    mixed_slopes(from[0], from[2 * H], before[i], old, to + H, to, keep + i);
    to[2 * H] = to[0] * gated * (1 - r);
    to[3 * H] = to[0] * r;
}

extern "C" __global__ void lstm_slopes(
    int N, int H, const REAL* a, int a_row, const REAL* before_c, const REAL* after_c, REAL* d, int d_row, REAL* keep)
{
    UNIT_OF_ALL
    SLOPES
    REAL in = from[0], f = from[H], g = from[2 * H], o = from[3 * H], t = tanh(after_c[i]);
    to[0] = g * in * (1 - in);
    to[H] = before_c[i] * f * (1 - f);
    to[2 * H] = in * (1 - g * g);
    to[3 * H] = t * o * (1 - o);
    keep[i] = o * (1 - t * t);
}

// -- a step of the way back: d becomes gradients; a product then adds what comes back through U to dh -----------------

// Of every cell whose gates all take the gradient of h: S blocks of d. Without `keep`, h has no other way.
__device__ inline void linear_unit_backward(
    int H, int S, REAL* d, const REAL* keep, REAL g, REAL* dh, bool over)
{
    REAL total = *dh + g;
    for (int s = 0; s < S; s++) d[s * H] = over ? REAL(0) : d[s * H] * total;
    *dh = over ? total : keep ? total * *keep : REAL(0);
}

// Of a GRU with its reset gate before the product: what does not wait for the gradient of r * h, and what does.
__device__ inline void gru_unit_backward(int H, REAL* d, REAL g, REAL* dh, bool over)
{
    REAL total = *dh + g;
    d[0] = over ? REAL(0) : d[0] * total, d[2 * H] = over ? REAL(0) : d[2 * H] * total;
    *dh = total;
}

__device__ inline void gru_reset_unit_backward(
    int H, const REAL* a, REAL* d, REAL keep, REAL reset, REAL* dh, bool over)
{
    d[H] = over ? REAL(0) : d[H] * reset;
    if (!over) *dh = *dh * keep + a[H] * reset;
}

__device__ inline void lstm_unit_backward(
    int H, const REAL* a, REAL* d, REAL keep, REAL g, REAL* dh, REAL* dc, bool over)
{
    REAL total = *dh + g, of_c = *dc + total * keep;
    for (int s = 0; s < 3; s++) d[s * H] = over ? REAL(0) : d[s * H] * of_c;
    d[3 * H] = over ? REAL(0) : d[3 * H] * total;
    *dh = over ? total : REAL(0);
    if (!over) *dc = of_c * a[H];
}

#define GRADIENTS d + (long long)n * d_row + j

extern "C" __global__ void linear_backward(
    int N, int H, int S, REAL* d, int d_row, const REAL* keep, const REAL* g, REAL* dh, const bool* outside)
{
    UNIT
    linear_unit_backward(H, S, GRADIENTS, keep ? keep + i : keep, g[i], dh + i, over);
}

extern "C" __global__ void gru_backward(
    int N, int H, REAL* d, int d_row, const REAL* g, REAL* dh, const bool* outside)
{
    UNIT
    gru_unit_backward(H, GRADIENTS, g[i], dh + i, over);
}

extern "C" __global__ void gru_reset_backward(
    int N, int H, const REAL* a, int a_row, REAL* d, int d_row, const REAL* keep, const REAL* reset, REAL* dh,
    const bool* outside)
{
    UNIT
    gru_reset_unit_backward(H, GATES, GRADIENTS, keep[i], reset[i], dh + i, over);
}

extern "C" __global__ void lstm_backward(
    int N, int H, const REAL* a, int a_row, REAL* d, int d_row, const REAL* keep, const REAL* g, REAL* dh, REAL* dc,
    const bool* outside)
{
    UNIT
    lstm_unit_backward(H, GATES, GRADIENTS, keep[i], g[i], dh + i, dc + i, over);
}
