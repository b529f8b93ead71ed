// The part of CUDA C++ that kernels of ours use, for g++: the same source runs on the CPU, and can be watched there.
//
// A kernel without barriers is a loop over its threads. One with barriers has a fiber for each thread: all of one
// block, blocks in turn, or all of the grid where GRID_SYNC is used. Fibers run in the order of their numbers, each to
// its next barrier, so that results repeat, and threads that wait for ever are an error. With SHIM_THREADS each is a
// thread of the system and all blocks run at once, for sanitizers. Shared memory starts as NaN and is checked for
// writes past its end. Not imitated: the memory model between multiprocessors (a barrier or a shuffle makes everything
// visible), warps in lockstep, limits of registers, rounding of the fast functions, flushing of denormal numbers.
#define SHIM 1

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <initializer_list>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef SHIM_THREADS
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#define SHIM_EACH static thread_local
#define SHIM_HOLD(lock) std::unique_lock<std::mutex> held(lock)
#else
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#define SHIM_EACH static
#define SHIM_HOLD(lock)
#endif

#undef INFINITY  // these macros of the C library are not there on a GPU
#undef NAN
#undef M_PI

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define DYN_SHARED(T, name) T* name = reinterpret_cast<T*>(shim::dynamic())
#define GRID_SYNC() shim::grid_sync()

struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
SHIM_EACH uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

namespace shim {

// -- who runs ---------------------------------------------------------------------------------------------------------

struct Barrier;
struct Block;
struct Warp;

struct Thread {  // one thread of CUDA
    uint3 index;
    int lane;
    Warp* warp;
    Block* block;
    const Barrier* at = nullptr;  // where it waits, for which turn
    unsigned turn = 0;
    bool done = false;
#ifndef SHIM_THREADS
    bool started = false;
    jmp_buf here;
#endif
};

SHIM_EACH Thread* self;
static Barrier* grid;

#ifdef SHIM_THREADS
[[noreturn]] inline void fail(const char* why)
{
    fprintf(stderr, "shim: %s\n", why);
    abort();
}
#else
static jmp_buf scheduler;
static const char* failure;

[[noreturn]] inline void fail(const char* why)
{
    failure = why;
    _longjmp(scheduler, 2);
}
#endif

struct Barrier {
    const char* name;
    int expected, arrived = 0;
    unsigned turn = 0;
    Barrier(const char* name, int expected) : name(name), expected(expected) {}

#ifdef SHIM_THREADS
    std::mutex mutex;
    std::condition_variable opened;
    void open() { arrived = 0, turn++, opened.notify_all(); }
#else
    void open() { arrived = 0, turn++; }
#endif

    void wait()
    {
        SHIM_HOLD(mutex);
        if (++arrived >= expected) return open();
#ifdef SHIM_THREADS
        unsigned mine = turn;
        opened.wait(held, [&] { return turn != mine; });
#else
        self->at = this, self->turn = turn;
        if (!_setjmp(self->here)) _longjmp(scheduler, 1);
#endif
    }

    unsigned coming()
    {
        SHIM_HOLD(mutex);
        return turn;
    }

    void leave()  // by a thread that returns: nobody waits for it any more
    {
        SHIM_HOLD(mutex);
        expected--;
        if (arrived && arrived >= expected) open();
    }
};

// Where the threads of one mask meet. By turns they use two rows of slots, so that one wait is enough for a shuffle.
struct Exchange {
    Barrier barrier;
    struct Slot { uint64_t bits; bool filled; unsigned turn; } slots[2][32] = {};
    Exchange(int expected) : barrier("a function of warps", expected) {}
};

struct Warp {
    unsigned alive = 0;
    std::map<std::pair<unsigned, char>, std::unique_ptr<Exchange>> exchanges;  // by mask and kind of function
#ifdef SHIM_THREADS
    std::mutex mutex;
#endif

    Exchange& exchange(unsigned mask, char kind)
    {
        if (!(mask >> self->lane & 1)) fail("a thread calls a function of warps with a mask that lacks itself");
        SHIM_HOLD(mutex);
        auto& found = exchanges[{mask, kind}];
        if (!found) found.reset(new Exchange(__builtin_popcount(mask & alive)));
        return *found;
    }

    void leave(int lane)
    {
        SHIM_HOLD(mutex);
        alive &= ~(1u << lane);
        for (auto& [key, exchange] : exchanges)
            if (key.first >> lane & 1) exchange->barrier.leave();
    }
};

struct Block {
    static constexpr size_t GUARD = 256;
    uint3 index;
    Barrier barrier;
    std::vector<Warp> warps;
    size_t bytes;
    std::unique_ptr<unsigned char[]> memory;  // the dynamic shared memory, then the guard
    std::map<int, std::unique_ptr<unsigned char[]>> arrays;  // the declared shared memory
#ifdef SHIM_THREADS
    std::mutex mutex;
    static constexpr size_t guard = 0;  // the sanitizer knows
#else
    static constexpr size_t guard = GUARD;
#endif

    Block(unsigned number, size_t bytes)
        : index{number % gridDim.x, number / gridDim.x % gridDim.y, number / gridDim.x / gridDim.y},
          barrier("__syncthreads", blockDim.x * blockDim.y * blockDim.z), warps((barrier.expected + 31) / 32),
          bytes(bytes), memory(new unsigned char[bytes + guard])
    {
        memset(memory.get(), 0xff, bytes);
        memset(memory.get() + bytes, 0xa5, guard);
        for (int k = 0; k < barrier.expected; k++) warps[k / 32].alive |= 1u << k % 32;
    }

    bool overrun() const
    {
        for (size_t k = 0; k < guard; k++)
            if (memory[bytes + k] != 0xa5) return true;
        return false;
    }
};

inline unsigned char* dynamic()
{
    if (!self->block->bytes) fail("dynamic shared memory is used, but the launch gave none");
    return self->block->memory.get();
}

template <class T>
T& fixed(int place)  // `__shared__ T name;` becomes a reference to this
{
    SHIM_HOLD(self->block->mutex);
    auto& found = self->block->arrays[place];
    if (!found) {
        found.reset(new unsigned char[sizeof(T)]);
        memset(found.get(), 0xff, sizeof(T));
    }
    return *reinterpret_cast<T*>(found.get());
}

inline void grid_sync() { grid->wait(); }

inline Thread placed(Block& block, int k)
{
    Thread thread{};
    thread.index = {k % blockDim.x, k / blockDim.x % blockDim.y, k / blockDim.x / blockDim.y};
    thread.lane = k % 32, thread.warp = &block.warps[k / 32], thread.block = &block;
    return thread;
}

inline void enter(Thread& thread) { self = &thread, threadIdx = thread.index, blockIdx = thread.block->index; }

inline void leave(Thread& thread)
{
    thread.done = true;
    thread.warp->leave(thread.lane);
    thread.block->barrier.leave();
}

// -- running ----------------------------------------------------------------------------------------------------------

typedef void (*Call)(void**);  // one thread of a kernel, with the arguments as CUDA has them: pointers to the values

#ifdef SHIM_THREADS

inline void run_threads(std::vector<Thread>& threads, Call call, void** args)
{
    std::vector<std::thread> running;
    for (auto& thread : threads)
        running.emplace_back([&] {
            enter(thread);
            call(args);
            leave(thread);
        });
    for (auto& each : running) each.join();
}

#else

constexpr size_t STACK = 128 << 10;
static Call calling;
static void** with;

inline void* stack(size_t k)
{
    static std::vector<void*> stacks;
    while (stacks.size() <= k) {
        void* made = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (made == MAP_FAILED) throw std::runtime_error("no memory for so many threads");
        stacks.push_back(made);
    }
    return stacks[k];
}

inline void fiber()
{
    calling(with);
    leave(*self);
    _longjmp(scheduler, 1);
}

inline std::string who_waits(const std::vector<Thread>& threads)
{
    std::string text = "the threads wait for ever:";
    std::map<std::string, std::pair<int, const Thread*>> places;
    for (auto& thread : threads) {
        auto& place = places[thread.done ? "its end" : thread.at->name];
        if (!place.first++) place.second = &thread;
    }
    for (auto& [name, place] : places) {
        const uint3 &t = place.second->index, &b = place.second->block->index;
        char line[200];
        snprintf(line, sizeof line, " %d at %s (first: thread %u,%u,%u of block %u,%u,%u);", place.first, name.c_str(),
                 t.x, t.y, t.z, b.x, b.y, b.z);
        text += line;
    }
    return text;
}

inline void run_threads(std::vector<Thread>& threads, Call call, void** args)
{
    calling = call, with = args;
    for (size_t left = threads.size(); left;) {
        bool moved = false;
        for (size_t k = 0; k < threads.size(); k++) {
            Thread& thread = threads[k];
            if (thread.done || (thread.at && thread.at->turn == thread.turn)) continue;
            moved = true;
            enter(thread);
            int back = _setjmp(scheduler);
            if (back == 2) throw std::runtime_error(failure);
            if (!back) {
                if (thread.started) _longjmp(thread.here, 1);
                thread.started = true;
                ucontext_t fresh;
                getcontext(&fresh);
                fresh.uc_stack.ss_sp = stack(k), fresh.uc_stack.ss_size = STACK, fresh.uc_link = nullptr;
                makecontext(&fresh, fiber, 0);
                setcontext(&fresh);
            }
            if (thread.done) left--;
        }
        if (!moved) throw std::runtime_error(who_waits(threads));
    }
}

#endif

inline void run_blocks(unsigned first, unsigned count, size_t bytes, Call call, void** args)
{
    std::vector<std::unique_ptr<Block>> blocks;
    std::vector<Thread> threads;
    int size = blockDim.x * blockDim.y * blockDim.z;
    for (unsigned b = first; b < first + count; b++) {
        blocks.emplace_back(new Block(b, bytes));
        for (int k = 0; k < size; k++) threads.push_back(placed(*blocks.back(), k));
    }
    Barrier all("GRID_SYNC", threads.size());
    grid = &all;
    run_threads(threads, call, args);
    for (auto& block : blocks)
        if (block->overrun()) throw std::runtime_error("a thread wrote past the end of the dynamic shared memory");
}

enum Way { LOOP, BLOCK, GRID };

inline void launch(Call call, void** args, int way, size_t bytes)
{
    unsigned blocks = gridDim.x * gridDim.y * gridDim.z, together = 1;
#ifdef SHIM_THREADS
    unsigned most = 2048 / (blockDim.x * blockDim.y * blockDim.z);
    together = way == GRID || most > blocks ? blocks : most ? most : 1;
#else
    if (way == LOOP) {
        for (blockIdx.z = 0; blockIdx.z < gridDim.z; blockIdx.z++)
            for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
                for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++)
                    for (threadIdx.z = 0; threadIdx.z < blockDim.z; threadIdx.z++)
                        for (threadIdx.y = 0; threadIdx.y < blockDim.y; threadIdx.y++)
                            for (threadIdx.x = 0; threadIdx.x < blockDim.x; threadIdx.x++) call(args);
        return;
    }
    if (way == GRID) together = blocks;
#endif
    for (unsigned b = 0; b < blocks; b += together)
        run_blocks(b, blocks - b < together ? blocks - b : together, bytes, call, args);
}

// -- what is known of a kernel; its signature is for whoever checks the arguments -------------------------------------

template <class T>
struct Fields {
    static void tell(std::string&) {}
};

template <class T>
void tell(std::string& text)
{
    if constexpr (std::is_pointer_v<T>) {
        using To = std::remove_pointer_t<T>;
        text += std::is_const_v<To> ? "*const " : "*";
        tell<std::remove_cv_t<To>>(text);
    } else if constexpr (std::is_void_v<T>)
        text += "void";
    else if constexpr (std::is_array_v<T>) {
        tell<std::remove_extent_t<T>>(text);
        text += "[" + std::to_string(std::extent_v<T>) + "]";
    } else if constexpr (std::is_same_v<T, bool>)
        text += "b1";
    else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
        text += std::is_floating_point_v<T> ? "f" : std::is_unsigned_v<T> ? "u" : "i";
        text += std::to_string(sizeof(T));
    } else {
        text += "V" + std::to_string(sizeof(T));
        Fields<T>::tell(text);
    }
}

template <class T>
void tell_field(std::string& text, const char* name, size_t offset)
{
    text += name;
    text += ":";
    tell<T>(text);
    text += "@" + std::to_string(offset);
}

struct Kernel {
    Call call;
    std::string signature;
};

inline std::map<std::string, Kernel>& kernels()
{
    static std::map<std::string, Kernel> found;
    return found;
}

inline void know(const char* name, Call call, std::initializer_list<void (*)(std::string&)> types)
{
    Kernel& kernel = kernels()[name];
    kernel.call = call;
    for (auto type : types) type(kernel.signature), kernel.signature += ";";
}

template <auto kernel>
struct Known;

template <class... P, void (*kernel)(P...)>
struct Known<kernel> {
    Known(const char* name) { know(name, call, {tell<std::remove_cv_t<P>>...}); }
    static void call(void** args) { call_with(args, std::index_sequence_for<P...>()); }
    template <size_t... I>
    static void call_with(void** args, std::index_sequence<I...>) { kernel(*static_cast<P*>(args[I])...); }
};

// -- what kernels call ------------------------------------------------------------------------------------------------

template <class T>
T exchanged(unsigned mask, char kind, T value, int source)
{
    static_assert(sizeof(T) <= 8);
    Exchange& at = self->warp->exchange(mask, kind);
    unsigned turn = at.barrier.coming();
    auto& slots = at.slots[turn & 1];
    slots[self->lane].filled = true, slots[self->lane].turn = turn;
    memcpy(&slots[self->lane].bits, &value, sizeof value);
    at.barrier.wait();
    const auto& from = slots[source];
    if (from.filled && from.turn == turn) memcpy(&value, &from.bits, sizeof value);
    else memset(&value, 0xff, sizeof value);  // of a thread that takes no part, which is undefined: NaN
    return value;
}

template <class T>
T up_to(int source, unsigned mask, T value, int width)
{
    int first = self->lane & ~(width - 1);
    return exchanged(mask, 's', value, source < first || source >= first + width ? self->lane : source);
}

}  // namespace shim

inline void __syncthreads() { shim::self->block->barrier.wait(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { shim::exchanged(mask, 'w', 0, 0); }

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32)
{
    return shim::up_to((shim::self->lane & ~(width - 1)) | (lane & (width - 1)), mask, value, width);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32)
{
    return shim::up_to(shim::self->lane - (int)delta, mask, value, width);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32)
{
    return shim::up_to(shim::self->lane + (int)delta, mask, value, width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32)
{
    return shim::up_to(shim::self->lane ^ bits, mask, value, width);
}

inline unsigned __ballot_sync(unsigned mask, int yes)
{
    unsigned votes = 0;
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) votes |= (shim::exchanged(mask, 'b', yes ? 1 : 0, lane) == 1 ? 1u : 0u) << lane;
    return votes;
}
inline int __any_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) != 0; }
inline int __all_sync(unsigned mask, int yes) { return __ballot_sync(mask, !yes) == 0; }

namespace shim {
template <class T, class F>
T changed(T* place, F change)
{
#ifdef SHIM_THREADS
    std::atomic_ref<T> shared(*place);
    T old = shared.load(std::memory_order_relaxed);
    while (!shared.compare_exchange_weak(old, change(old), std::memory_order_relaxed)) {}
    return old;
#else
    T old = *place;
    *place = change(old);
    return old;
#endif
}
}  // namespace shim

// The same types as in CUDA: a call with others finds no function, or more than one.
#define SHIM_ATOMIC(name, T, result) \
    inline T name(T* place, T x) { return shim::changed(place, [x](T old) -> T { return result; }); }
SHIM_ATOMIC(atomicAdd, int, old + x)
SHIM_ATOMIC(atomicAdd, unsigned, old + x)
SHIM_ATOMIC(atomicAdd, unsigned long long, old + x)
SHIM_ATOMIC(atomicAdd, float, old + x)
SHIM_ATOMIC(atomicAdd, double, old + x)
SHIM_ATOMIC(atomicMax, int, old > x ? old : x)
SHIM_ATOMIC(atomicMax, unsigned, old > x ? old : x)
SHIM_ATOMIC(atomicMin, int, old < x ? old : x)
SHIM_ATOMIC(atomicMin, unsigned, old < x ? old : x)
SHIM_ATOMIC(atomicOr, int, old | x)
SHIM_ATOMIC(atomicOr, unsigned, old | x)
SHIM_ATOMIC(atomicExch, int, (void(old), x))
SHIM_ATOMIC(atomicExch, unsigned, (void(old), x))
SHIM_ATOMIC(atomicExch, float, (void(old), x))
inline int atomicCAS(int* place, int if_, int x)
{
    return shim::changed(place, [=](int old) { return old == if_ ? x : old; });
}
inline unsigned atomicCAS(unsigned* place, unsigned if_, unsigned x)
{
    return shim::changed(place, [=](unsigned old) { return old == if_ ? x : old; });
}
inline unsigned long long atomicCAS(unsigned long long* place, unsigned long long if_, unsigned long long x)
{
    return shim::changed(place, [=](unsigned long long old) { return old == if_ ? x : old; });
}

inline void __threadfence() {}
inline void __threadfence_block() {}
template <class T> T __ldg(const T* place) { return *place; }
template <class T> T __ldcg(const T* place) { return *place; }
template <class T> T __ldcs(const T* place) { return *place; }
template <class T> void __stcg(T* place, T x) { *place = x; }
template <class T> void __stcs(T* place, T x) { *place = x; }

#define SHIM_LESSER(T, min, max)                     \
    inline T min(T a, T b) { return b < a ? b : a; } \
    inline T max(T a, T b) { return a < b ? b : a; }
SHIM_LESSER(int, min, max)
SHIM_LESSER(unsigned, min, max)
SHIM_LESSER(long long, min, max)
SHIM_LESSER(unsigned long long, min, max)
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float rsqrt(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1 : 0; }
inline float __int_as_float(int x) { float y; memcpy(&y, &x, 4); return y; }
inline int __float_as_int(float x) { int y; memcpy(&y, &x, 4); return y; }
#define __expf expf  // the C library has functions of these names
#define __logf logf
#define __powf powf
#define __sinf sinf
#define __cosf cosf

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

// -- the doors --------------------------------------------------------------------------------------------------------

extern "C" const char* shim_signature(const char* name)
{
    auto found = shim::kernels().find(name);
    return found == shim::kernels().end() ? nullptr : found->second.signature.c_str();
}

// sizes: of the grid, then of a block. Gives the error, or null.
extern "C" const char* shim_launch(const char* name, void** args, int way, const unsigned* sizes, size_t bytes)
{
    static std::string error;
    gridDim = dim3(sizes[0], sizes[1], sizes[2]), blockDim = dim3(sizes[3], sizes[4], sizes[5]);
    try {
        shim::launch(shim::kernels().at(name).call, args, way, bytes);
    } catch (const std::exception& caught) {
        error = caught.what();
        return error.c_str();
    }
    return nullptr;
}

#ifdef SHIM_MAIN
// main KERNEL WAY BYTES FILE: a launch whose arguments are in FILE, which afterwards has the memory as it is then.
// In numbers of 8 bytes: 6 sizes; how many pieces of memory, the size of each; how many arguments, for each the piece
// (-1: the null pointer, -2: a value) and the place in it or the size; then the memory, then the values.
int main(int, char** argv)
{
    FILE* file = fopen(argv[4], "r+b");
    auto number = [&] {
        int64_t x = 0;
        return fread(&x, sizeof x, 1, file) == 1 ? x : -3;
    };
    auto all = [&](void* to, size_t size) {
        if (fread(to, 1, size, file) != size) abort();
    };
    unsigned sizes[6];
    for (auto& size : sizes) size = number();
    std::vector<int64_t> lengths(number()), pieces, places;
    for (auto& length : lengths) length = number();
    pieces.resize(number()), places.resize(pieces.size());
    for (size_t k = 0; k < pieces.size(); k++) pieces[k] = number(), places[k] = number();
    long begin = ftell(file);
    std::vector<char*> memory;
    for (auto length : lengths) all(memory.emplace_back(static_cast<char*>(malloc(length))), length);
    std::vector<std::unique_ptr<char[]>> values(pieces.size());
    std::vector<void*> args;
    for (size_t k = 0; k < pieces.size(); k++) {
        bool value = pieces[k] == -2;
        values[k].reset(new char[value ? places[k] : sizeof(char*)]);
        char* pointer = pieces[k] < 0 ? nullptr : memory[pieces[k]] + places[k];
        if (value) all(values[k].get(), places[k]);
        else memcpy(values[k].get(), &pointer, sizeof pointer);
        args.push_back(values[k].get());
    }
    const char* error = shim_launch(argv[1], args.data(), atoi(argv[2]), sizes, atol(argv[3]));
    if (error) return fprintf(stderr, "shim: %s\n", error), 1;
    fseek(file, begin, SEEK_SET);
    for (size_t k = 0; k < memory.size(); k++) fwrite(memory[k], 1, lengths[k], file);
    return fclose(file);
}
#endif
