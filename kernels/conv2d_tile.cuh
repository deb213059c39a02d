// conv2d_tile.cuh: the operands of a convolution's matrix product, from global to shared memory
//
// A block computes kRows x kColumns of the result and walks along the summed extent ("depth") in steps of 64 bytes. An
// operand's tile of one step lies in shared memory as it lies in global memory, in 16-byte chunks: "deep" with a row's
// step of 64 bytes together, or "wide" with the rows (or columns) of one depth together. Chunks are permuted so that eight
// that are read at once lie in different banks.
#pragma once

#include "common.cuh"
#include "ptx.cuh"

// What a block computes. kGather loads single elements, for extents that do not fill chunks.
template <class T, int kRows_, int kColumns_, int kThreads_, bool kGather_>
struct Tile {
    using Element = T;
    static constexpr int kRows = kRows_;
    static constexpr int kColumns = kColumns_;
    static constexpr int kThreads = kThreads_;
    static constexpr bool kGather = kGather_;
    static constexpr int kLanes = 16 / sizeof(T);  // elements of a chunk
    static constexpr int kStep = 64 / sizeof(T);   // depth of a step
    static constexpr int kStages = kGather ? 2 : sizeof(T) == 2 ? 4 : 3;
};

// Extents of the convolution, as the kernels take them.
struct Conv2d {
    int c, h, w, k, r, s, p, q, stride, pad, dilation;
};

__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

// ---- Where chunks lie in shared memory, and which of them a thread loads --------------------------------------------

// kExtent rows, each with the four chunks of its step.
template <class TileT, int kExtent>
struct Deep {
    using T = typename TileT::Element;
    static constexpr int kPasses = kExtent * 4 / TileT::kThreads;
    static constexpr int kRowsPerPass = TileT::kThreads / 4;

    // Offset in elements.
    static __device__ __forceinline__ int at(int row, int chunk) {
        return row * TileT::kStep + (chunk ^ (row >> 1 & 3)) * TileT::kLanes;
    }
    static __device__ __forceinline__ int row(int pass) { return threadIdx.x / 4 + pass * kRowsPerPass; }
    static __device__ __forceinline__ int chunk() { return threadIdx.x % 4; }
    static __device__ __forceinline__ int slot(int pass) { return at(row(pass), chunk()); }
};

// kStep depths, each with the chunks of kExtent rows or columns.
template <class TileT, int kExtent>
struct Wide {
    using T = typename TileT::Element;
    static constexpr int kChunks = kExtent / TileT::kLanes;
    static constexpr int kPasses = TileT::kStep * kChunks / TileT::kThreads;
    static constexpr int kDepthsPerPass = TileT::kThreads / kChunks;

    static __device__ __forceinline__ int at(int depth, int chunk) {
        return depth * kExtent + (chunk ^ (depth & 7)) * TileT::kLanes;
    }
    static __device__ __forceinline__ int depth(int pass) { return threadIdx.x / kChunks + pass * kDepthsPerPass; }
    static __device__ __forceinline__ int chunk() { return threadIdx.x % kChunks; }
    static __device__ __forceinline__ int slot(int pass) { return at(depth(pass), chunk()); }
};

// ---- Sources: a thread's chunks of an operand, step after step ------------------------------------------------------
//
// at(pass) is the address of a chunk, null if it is all padding; element(pass, e) loads one of its elements. next(pass)
// and next_step() are called after each pass and each step.

// A filter tap and a channel, in the order in which depth runs over them.
struct Tap {
    int r, s, c;

    static __device__ __forceinline__ Tap of(int depth, int taps_w, int channels) {
        const int tap = depth / channels;
        return {tap / taps_w, tap % taps_w, depth % channels};
    }
    __device__ __forceinline__ void advance(int by, int taps_w, int channels) {
        c += by;
        while (c >= channels) {
            c -= channels;
            if (++s == taps_w) {
                s = 0;
                ++r;
            }
        }
    }
};

// How an image of h x w pixels is read: grid point (i, j) meets tap (r, s) at pixel (origin_h + i * stride + r * tap_step,
// and likewise along w).
struct Window {
    int grid_h, grid_w, stride, origin_h, origin_w;
    int taps_h, taps_w, tap_step;
    int h, w, c;
};

// Deep: rows are grid points of images, depth is (r, s, c).
template <class TileT>
struct Pixels {
    using T = typename TileT::Element;
    using Layout = Deep<TileT, TileT::kRows>;

    const T* images;  // from the first row's image on
    Window window;
    int offset[Layout::kPasses], h[Layout::kPasses], w[Layout::kPasses];
    Tap tap;

    __device__ __forceinline__ Pixels(const T* images_, const Window& window_, int row0, int rows, int depth0)
        : window(window_) {
        const int n0 = row0 / (window.grid_h * window.grid_w);
        images = images_ + static_cast<int64_t>(n0) * window.h * window.w * window.c;
        tap = Tap::of(depth0 + Layout::chunk() * TileT::kLanes, window.taps_w, window.c);
#pragma unroll
        for (int pass = 0; pass < Layout::kPasses; ++pass) {
            const int row = row0 + Layout::row(pass);
            const int line = row / window.grid_w;
            const int n = line / window.grid_h;
            w[pass] = window.origin_w + (row - line * window.grid_w) * window.stride;
            h[pass] = window.origin_h + (line - n * window.grid_h) * window.stride;
            // 32 bits suffice for the images that a tile meets: the launch checks it.
            offset[pass] = (((n - n0) * window.h + h[pass]) * window.w + w[pass]) * window.c;
            // No tap brings a row beyond the end into its image.
            if (row >= rows) h[pass] = -(1 << 30);
        }
    }
    __device__ __forceinline__ bool inside(int pass, const Tap& t) const {
        const int y = h[pass] + t.r * window.tap_step;
        const int x = w[pass] + t.s * window.tap_step;
        return t.r < window.taps_h && static_cast<unsigned>(y) < static_cast<unsigned>(window.h) &&
               static_cast<unsigned>(x) < static_cast<unsigned>(window.w);
    }
    __device__ __forceinline__ int shift(const Tap& t) const {
        return (t.r * window.w + t.s) * window.tap_step * window.c + t.c;
    }
    __device__ __forceinline__ const T* any() const { return images; }
    __device__ __forceinline__ const T* at(int pass) const {
        return inside(pass, tap) ? images + (offset[pass] + shift(tap)) : nullptr;
    }
    __device__ __forceinline__ T element(int pass, int e) const {
        Tap t = tap;
        t.advance(e, window.taps_w, window.c);
        return inside(pass, t) ? images[offset[pass] + shift(t)] : from_float<T>(0.0f);
    }
    __device__ __forceinline__ void next(int) {}
    __device__ __forceinline__ void next_step() { tap.advance(TileT::kStep, window.taps_w, window.c); }
};

// Deep: columns are the filter's output channels, depth is (r, s, c) as it lies in memory.
template <class TileT>
struct FilterRows {
    using T = typename TileT::Element;
    using Layout = Deep<TileT, TileT::kColumns>;

    const T* filter;
    int column0, columns, at_depth, depth;

    __device__ __forceinline__ FilterRows(const T* filter_, int column0_, int columns_, int depth0, int depth_)
        : filter(filter_),
          column0(column0_),
          columns(columns_),
          at_depth(depth0 + Layout::chunk() * TileT::kLanes),
          depth(depth_) {}
    __device__ __forceinline__ const T* any() const { return filter; }
    __device__ __forceinline__ const T* at(int pass) const {
        const int column = column0 + Layout::row(pass);
        return column < columns && at_depth < depth ? filter + (static_cast<int64_t>(column) * depth + at_depth) : nullptr;
    }
    __device__ __forceinline__ T element(int pass, int e) const {
        const int column = column0 + Layout::row(pass);
        const bool inside = column < columns && at_depth + e < depth;
        return inside ? filter[static_cast<int64_t>(column) * depth + at_depth + e] : from_float<T>(0.0f);
    }
    __device__ __forceinline__ void next(int) {}
    __device__ __forceinline__ void next_step() { at_depth += TileT::kStep; }
};

// Wide: columns are the filter's input channels, depth is (r, s, k) over every tap_stride-th tap from (r0, s0) on.
template <class TileT>
struct FilterTaps {
    using T = typename TileT::Element;
    using Layout = Wide<TileT, TileT::kColumns>;

    const T* filter;
    Conv2d conv;
    int r0, s0, tap_stride, taps_h, taps_w, column;
    Tap tap;  // its c is an output channel

    __device__ __forceinline__ FilterTaps(const T* filter_, const Conv2d& conv_, const Window& window, int r0_, int s0_,
                                          int tap_stride_, int column0, int depth0)
        : filter(filter_),
          conv(conv_),
          r0(r0_),
          s0(s0_),
          tap_stride(tap_stride_),
          taps_h(window.taps_h),
          taps_w(window.taps_w),
          column(column0 + Layout::chunk() * TileT::kLanes),
          tap(Tap::of(depth0 + Layout::depth(0), window.taps_w, conv_.k)) {}
    __device__ __forceinline__ int64_t offset() const {
        const int r = r0 + tap.r * tap_stride, s = s0 + tap.s * tap_stride;
        return (static_cast<int64_t>(tap.c * conv.r + r) * conv.s + s) * conv.c + column;
    }
    __device__ __forceinline__ const T* any() const { return filter; }
    __device__ __forceinline__ const T* at(int) const {
        return tap.r < taps_h && column < conv.c ? filter + offset() : nullptr;
    }
    __device__ __forceinline__ T element(int, int e) const {
        return tap.r < taps_h && column + e < conv.c ? filter[offset() + e] : from_float<T>(0.0f);
    }
    __device__ __forceinline__ void next(int) { tap.advance(Layout::kDepthsPerPass, taps_w, conv.k); }
    __device__ __forceinline__ void next_step() {}
};

// Wide: rows are the output's channels, depth is its pixels.
template <class TileT>
struct PixelChannels {
    using T = typename TileT::Element;
    using Layout = Wide<TileT, TileT::kRows>;

    const T* pixels;
    int pixel, end, channel, channels;

    __device__ __forceinline__ PixelChannels(const T* pixels_, int begin, int end_, int channel0, int channels_)
        : pixels(pixels_),
          pixel(begin + Layout::depth(0)),
          end(end_),
          channel(channel0 + Layout::chunk() * TileT::kLanes),
          channels(channels_) {}
    __device__ __forceinline__ const T* any() const { return pixels; }
    __device__ __forceinline__ const T* at(int) const {
        return pixel < end && channel < channels ? pixels + (static_cast<int64_t>(pixel) * channels + channel) : nullptr;
    }
    __device__ __forceinline__ T element(int, int e) const {
        const bool inside = pixel < end && channel + e < channels;
        return inside ? pixels[static_cast<int64_t>(pixel) * channels + channel + e] : from_float<T>(0.0f);
    }
    __device__ __forceinline__ void next(int) { pixel += Layout::kDepthsPerPass; }
    __device__ __forceinline__ void next_step() {}
};

// Wide: columns are (r, s, c), depth is the output's pixels (n, p, q); elements are the input's under the tap.
template <class TileT>
struct PixelTaps {
    using T = typename TileT::Element;
    using Layout = Wide<TileT, TileT::kColumns>;

    const T* images;
    Conv2d conv;
    int pixel, end, n, p, q;
    int step_n, step_p, step_q;  // a pass further
    Tap tap;

    __device__ __forceinline__ PixelTaps(const T* images_, const Conv2d& conv_, int begin, int end_, int column0)
        : images(images_), conv(conv_), pixel(begin + Layout::depth(0)), end(end_) {
        const int line = pixel / conv.q;
        q = pixel - line * conv.q;
        n = line / conv.p;
        p = line - n * conv.p;
        const int lines = Layout::kDepthsPerPass / conv.q;
        step_q = Layout::kDepthsPerPass - lines * conv.q;
        step_n = lines / conv.p;
        step_p = lines - step_n * conv.p;
        tap = Tap::of(column0 + Layout::chunk() * TileT::kLanes, conv.s, conv.c);
    }
    __device__ __forceinline__ const T* under(const Tap& t) const {
        const int h = p * conv.stride - conv.pad + t.r * conv.dilation;
        const int w = q * conv.stride - conv.pad + t.s * conv.dilation;
        const bool inside = pixel < end && t.r < conv.r && static_cast<unsigned>(h) < static_cast<unsigned>(conv.h) &&
                            static_cast<unsigned>(w) < static_cast<unsigned>(conv.w);
        return inside ? images + (((static_cast<int64_t>(n) * conv.h + h) * conv.w + w) * conv.c + t.c) : nullptr;
    }
    __device__ __forceinline__ const T* any() const { return images; }
    __device__ __forceinline__ const T* at(int) const { return under(tap); }
    __device__ __forceinline__ T element(int, int e) const {
        Tap t = tap;
        t.advance(e, conv.s, conv.c);
        const T* from = under(t);
        return from != nullptr ? *from : from_float<T>(0.0f);
    }
    __device__ __forceinline__ void next(int) {
        pixel += Layout::kDepthsPerPass;
        q += step_q;
        p += step_p;
        n += step_n;
        if (q >= conv.q) {
            q -= conv.q;
            ++p;
        }
        if (p >= conv.p) {
            p -= conv.p;
            ++n;
        }
    }
    __device__ __forceinline__ void next_step() {}
};

// ---- The walk along the depth ---------------------------------------------------------------------------------------

template <class Source>
__device__ __forceinline__ void load_step(Source& source, typename Source::T* tile) {
#pragma unroll
    for (int pass = 0; pass < Source::Layout::kPasses; ++pass) {
        const typename Source::T* from = source.at(pass);
        cp_async_16(tile + Source::Layout::slot(pass), from != nullptr ? from : source.any(), from != nullptr ? 16 : 0);
        source.next(pass);
    }
    source.next_step();
}

// A thread's chunks of a step, in registers while the block computes.
template <class Source>
struct Gathered {
    using T = typename Source::T;
    static constexpr int kLen = Pack<T>::kLen;
    Pack<T> chunk[Source::Layout::kPasses];

    __device__ __forceinline__ void load(Source& source) {
#pragma unroll
        for (int pass = 0; pass < Source::Layout::kPasses; ++pass) {
#pragma unroll
            for (int e = 0; e < kLen; ++e) chunk[pass].at[e] = source.element(pass, e);
            source.next(pass);
        }
        source.next_step();
    }
    __device__ __forceinline__ void store(T* tile) const {
#pragma unroll
        for (int pass = 0; pass < Source::Layout::kPasses; ++pass) {
            *reinterpret_cast<Pack<T>*>(tile + Source::Layout::slot(pass)) = chunk[pass];
        }
    }
};

// Adds the products of `steps` steps to `math`. Ends with a barrier: shared memory is free then.
template <class TileT, class Math, class SourceA, class SourceB>
__device__ __forceinline__ void multiply(Math& math, SourceA& a, SourceB& b, int steps, unsigned char* shared) {
    using T = typename TileT::Element;
    constexpr int kStages = TileT::kStages;
    constexpr int kTileA = TileT::kRows * TileT::kStep, kTileB = TileT::kColumns * TileT::kStep;
    T* const tiles_a = reinterpret_cast<T*>(shared);
    T* const tiles_b = tiles_a + kStages * kTileA;
    if constexpr (TileT::kGather) {
        Gathered<SourceA> next_a;
        Gathered<SourceB> next_b;
        if (steps > 0) {
            next_a.load(a);
            next_b.load(b);
            next_a.store(tiles_a);
            next_b.store(tiles_b);
        }
        for (int step = 0; step < steps; ++step) {
            const int stage = step % 2;
            __syncthreads();
            const bool more = step + 1 < steps;
            if (more) {
                next_a.load(a);
                next_b.load(b);
            }
            math.multiply(tiles_a + stage * kTileA, tiles_b + stage * kTileB);
            if (more) {
                next_a.store(tiles_a + (1 - stage) * kTileA);
                next_b.store(tiles_b + (1 - stage) * kTileB);
            }
        }
    } else {
#pragma unroll
        for (int stage = 0; stage < kStages - 1; ++stage) {
            if (stage < steps) {
                load_step(a, tiles_a + stage * kTileA);
                load_step(b, tiles_b + stage * kTileB);
            }
            cp_async_commit();
        }
        int stage = 0, free = kStages - 1;
        for (int step = 0; step < steps; ++step) {
            cp_async_wait<kStages - 2>();
            // The step's tile is whole, and everyone is done with the one before, whose place is filled next.
            __syncthreads();
            if (step + kStages - 1 < steps) {
                load_step(a, tiles_a + free * kTileA);
                load_step(b, tiles_b + free * kTileB);
            }
            cp_async_commit();
            math.multiply(tiles_a + stage * kTileA, tiles_b + stage * kTileB);
            stage = stage + 1 == kStages ? 0 : stage + 1;
            free = free + 1 == kStages ? 0 : free + 1;
        }
        cp_async_wait<0>();
    }
    __syncthreads();
}
