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
    static constexpr int kPasses = kExtent * 4 / TileT::kThreads;
    static constexpr int kRowsPerPass = TileT::kThreads / 4;
    static_assert(kRowsPerPass % 8 == 0, "every pass permutes chunks alike");

    // Offset in elements.
    static __device__ __forceinline__ int at(int row, int chunk) {
        return row * TileT::kStep + (chunk ^ (row >> 1 & 3)) * TileT::kLanes;
    }
    static __device__ __forceinline__ int row(int pass) { return threadIdx.x / 4 + pass * kRowsPerPass; }
    static __device__ __forceinline__ int chunk() { return threadIdx.x % 4; }
    static __device__ __forceinline__ int first_slot() { return at(row(0), chunk()); }
    static __device__ __forceinline__ int slot(int first, int pass) { return first + pass * kRowsPerPass * TileT::kStep; }
};

// kStep depths, each with the chunks of kExtent rows or columns.
template <class TileT, int kExtent>
struct Wide {
    static constexpr int kChunks = kExtent / TileT::kLanes;
    static constexpr int kPasses = TileT::kStep * kChunks / TileT::kThreads;
    static constexpr int kDepthsPerPass = TileT::kThreads / kChunks;
    static_assert(kDepthsPerPass % 4 == 0, "passes permute chunks alike, or every other in bit 2");

    static __device__ __forceinline__ int at(int depth, int chunk) {
        return depth * kExtent + (chunk ^ (depth & 7)) * TileT::kLanes;
    }
    static __device__ __forceinline__ int depth(int pass) { return threadIdx.x / kChunks + pass * kDepthsPerPass; }
    static __device__ __forceinline__ int chunk() { return threadIdx.x % kChunks; }
    static __device__ __forceinline__ int first_slot() { return at(depth(0), chunk()); }
    static __device__ __forceinline__ int slot(int first, int pass) {
        const int flipped = (pass * kDepthsPerPass & 4) * TileT::kLanes;
        return (first ^ flipped) + pass * kDepthsPerPass * kExtent;
    }
};

// ---- Sources: a thread's chunks of an operand, step after step ------------------------------------------------------
//
// For each pass: inside() says whether the chunk is not padding, address() where it lies if so; next() goes on to the next
// pass, next_step() to the next step. element() loads one element of a chunk, padding or not; whole() says whether chunks are
// padding or not as a whole, and aligned. What the loop needs is advanced
// by additions; only where a tap ends is it computed anew.

// A filter tap and a channel, in the order in which depth runs over them.
struct Tap {
    int r, s, c;

    __device__ __forceinline__ Tap(int depth, int taps_w, int channels) {
        const int tap = depth / channels;
        r = tap / taps_w;
        s = tap % taps_w;
        c = depth % channels;
    }
    __device__ __forceinline__ void wrap(int taps_w, int channels) {
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

// Outside every image, also after another one of it is added.
constexpr int kOutside = -(1 << 30);

__device__ __forceinline__ bool within(int i, int extent) { return static_cast<unsigned>(i) < static_cast<unsigned>(extent); }

// Deep: rows are grid points of images, depth is (r, s, c).
template <class TileT>
struct Pixels {
    using T = typename TileT::Element;
    using Layout = Deep<TileT, TileT::kRows>;

    const T* images;  // from the first row's image on
    Window window;
    int offset[Layout::kPasses], h[Layout::kPasses], w[Layout::kPasses];
    Tap tap;
    unsigned shift;        // of the tap, in elements
    int shift_h, shift_w;  // and in pixels

    __device__ __forceinline__ Pixels(const T* images_, const Window& window_, int row0, int rows, int depth0)
        : window(window_), tap(depth0 + Layout::chunk() * TileT::kLanes, window_.taps_w, window_.c) {
        const int n0 = row0 / (window.grid_h * window.grid_w);
        images = images_ + static_cast<int64_t>(n0) * window.h * window.w * window.c;
#pragma unroll
        for (int pass = 0; pass < Layout::kPasses; ++pass) {
            const int row = row0 + Layout::row(pass);
            const int line = row / window.grid_w;
            const int n = line / window.grid_h;
            w[pass] = window.origin_w + (row - line * window.grid_w) * window.stride;
            h[pass] = window.origin_h + (line - n * window.grid_h) * window.stride;
            // 32 bits suffice for the images that a tile meets: the launch checks it.
            offset[pass] = (((n - n0) * window.h + h[pass]) * window.w + w[pass]) * window.c;
            if (row >= rows) h[pass] = kOutside;
        }
        place();
    }
    __device__ __forceinline__ void place() {
        shift_h = tap.r < window.taps_h ? tap.r * window.tap_step : kOutside;
        shift_w = tap.s * window.tap_step;
        // Unsigned, since beyond the last tap it may overflow; then it addresses nothing.
        shift = static_cast<unsigned>(tap.r * window.w + tap.s) * window.tap_step * window.c + tap.c;
    }
    __device__ __forceinline__ bool whole() const { return window.c % TileT::kLanes == 0; }
    __device__ __forceinline__ bool inside(int pass) const {
        return within(h[pass] + shift_h, window.h) && within(w[pass] + shift_w, window.w);
    }
    __device__ __forceinline__ const T* address(int pass) const { return images + static_cast<int>(offset[pass] + shift); }
    __device__ __forceinline__ T element(int pass, int e) const {
        Pixels at = *this;
        at.advance(e);
        return at.inside(pass) ? *at.address(pass) : from_float<T>(0.0f);
    }
    __device__ __forceinline__ void advance(int by) {
        tap.c += by;
        shift += by;
        if (tap.c >= window.c) {
            tap.wrap(window.taps_w, window.c);
            place();
        }
    }
    __device__ __forceinline__ void next(int) {}
    __device__ __forceinline__ void next_step() { advance(TileT::kStep); }
};

// Deep: columns are the filter's output channels, depth is (r, s, c) as it lies in memory.
template <class TileT>
struct FilterRows {
    using T = typename TileT::Element;
    using Layout = Deep<TileT, TileT::kColumns>;

    const T* at;  // the first pass's chunk
    int columns;  // from the first pass's on
    int depth, depth_left;

    __device__ __forceinline__ FilterRows(const T* filter, int column0, int columns_, int depth0, int depth_) : depth(depth_) {
        const int column = column0 + Layout::row(0);
        const int begin = depth0 + Layout::chunk() * TileT::kLanes;
        at = filter + (static_cast<int64_t>(column) * depth + begin);
        columns = columns_ - column;
        depth_left = depth - begin;
    }
    __device__ __forceinline__ bool whole() const { return depth % TileT::kLanes == 0; }
    __device__ __forceinline__ bool inside(int pass) const { return pass * Layout::kRowsPerPass < columns && depth_left > 0; }
    __device__ __forceinline__ const T* address(int pass) const {
        return at + static_cast<int64_t>(pass * Layout::kRowsPerPass) * depth;
    }
    __device__ __forceinline__ T element(int pass, int e) const {
        const bool real = pass * Layout::kRowsPerPass < columns && e < depth_left;
        return real ? address(pass)[e] : from_float<T>(0.0f);
    }
    __device__ __forceinline__ void next(int) {}
    __device__ __forceinline__ void next_step() {
        at += TileT::kStep;
        depth_left -= TileT::kStep;
    }
};

// Wide: columns are the filter's input channels, depth is (r, s, k) over every tap_stride-th tap from (r0, s0) on.
template <class TileT>
struct FilterTaps {
    using T = typename TileT::Element;
    using Layout = Wide<TileT, TileT::kColumns>;

    const T* filter;  // from the first tap and this thread's columns on
    int channels, taps_w, columns, end_r;
    int pitch, tap_h, tap_w;  // elements from an output channel, and from a tap, to the next
    Tap tap;                  // its c is an output channel
    unsigned offset;          // beyond the last tap it may overflow; then it addresses nothing

    __device__ __forceinline__ FilterTaps(const T* filter_, const Conv2d& conv, const Window& window, int r0, int s0,
                                          int tap_stride, int column0, int depth0)
        : channels(conv.k), taps_w(window.taps_w), tap(depth0 + Layout::depth(0), window.taps_w, conv.k) {
        const int column = column0 + Layout::chunk() * TileT::kLanes;
        filter = filter_ + ((r0 * conv.s + s0) * conv.c + column);
        columns = conv.c - column;
        end_r = columns > 0 ? window.taps_h : 0;
        pitch = conv.r * conv.s * conv.c;
        tap_h = tap_stride * conv.s * conv.c;
        tap_w = tap_stride * conv.c;
        place();
    }
    __device__ __forceinline__ void place() { offset = tap.c * pitch + tap.r * tap_h + tap.s * tap_w; }
    __device__ __forceinline__ bool whole() const { return columns % TileT::kLanes == 0; }
    __device__ __forceinline__ bool inside(int) const { return tap.r < end_r; }
    __device__ __forceinline__ const T* address(int) const { return filter + offset; }
    __device__ __forceinline__ T element(int, int e) const {
        return tap.r < end_r && e < columns ? filter[offset + e] : from_float<T>(0.0f);
    }
    __device__ __forceinline__ void next(int) {
        tap.c += Layout::kDepthsPerPass;
        if (tap.c >= channels) {
            tap.wrap(taps_w, channels);
            if (tap.r < end_r) place();
        } else {
            offset += static_cast<unsigned>(Layout::kDepthsPerPass) * pitch;
        }
    }
    __device__ __forceinline__ void next_step() {}
};

// Wide: rows are the output's channels, depth is its pixels.
template <class TileT>
struct PixelChannels {
    using T = typename TileT::Element;
    using Layout = Wide<TileT, TileT::kRows>;

    const T* at;
    int pixels_left;  // none if there is no channel
    int channels;     // from this thread's on
    int pitch;

    __device__ __forceinline__ PixelChannels(const T* pixels, int begin, int end, int channel0, int channels_)
        : pitch(channels_) {
        const int pixel = begin + Layout::depth(0), channel = channel0 + Layout::chunk() * TileT::kLanes;
        at = pixels + (static_cast<int64_t>(pixel) * pitch + channel);
        channels = pitch - channel;
        pixels_left = channels > 0 ? end - pixel : 0;
    }
    __device__ __forceinline__ bool whole() const { return pitch % TileT::kLanes == 0; }
    __device__ __forceinline__ bool inside(int) const { return pixels_left > 0; }
    __device__ __forceinline__ const T* address(int) const { return at; }
    __device__ __forceinline__ T element(int, int e) const {
        return pixels_left > 0 && e < channels ? at[e] : from_float<T>(0.0f);
    }
    __device__ __forceinline__ void next(int) {
        at += static_cast<int64_t>(Layout::kDepthsPerPass) * pitch;
        pixels_left -= Layout::kDepthsPerPass;
    }
    __device__ __forceinline__ void next_step() {}
};

// Wide: columns are (r, s, c), depth is the output's pixels (n, p, q); elements are the input's under the tap.
template <class TileT>
struct PixelTaps {
    using T = typename TileT::Element;
    using Layout = Wide<TileT, TileT::kColumns>;

    const T* at;
    int pixels_left;                  // none if there is no tap
    int h, w, image_h, image_w;       // the pixel under the tap, and the image's extents
    int end_h, end_w;                 // where p = P and q = Q meet the tap
    int step_h, step_w;               // a pass further
    int wrap_w, wrap_h, stride;       // what h and w lose at the end of an image and of a line, and h gains then
    int64_t step, wrap_line, wrap_n;  // the same in elements
    Tap tap;
    int dilation, taps_w, taps_h, channels;

    __device__ __forceinline__ PixelTaps(const T* images, const Conv2d& conv, int begin, int end, int column0)
        : image_h(conv.h),
          image_w(conv.w),
          stride(conv.stride),
          tap(column0 + Layout::chunk() * TileT::kLanes, conv.s, conv.c),
          dilation(conv.dilation),
          taps_w(conv.s),
          taps_h(conv.r),
          channels(conv.c) {
        const int pixel = begin + Layout::depth(0);
        pixels_left = tap.r < conv.r ? end - pixel : 0;
        const int line = pixel / conv.q;
        const int n = line / conv.p;
        const int origin_h = tap.r * dilation - conv.pad, origin_w = tap.s * dilation - conv.pad;
        h = (line - n * conv.p) * stride + origin_h;
        w = (pixel - line * conv.q) * stride + origin_w;
        wrap_h = conv.p * stride;
        wrap_w = conv.q * stride;
        end_h = origin_h + wrap_h;
        end_w = origin_w + wrap_w;
        const int64_t row = static_cast<int64_t>(conv.w) * conv.c;
        at = images + ((static_cast<int64_t>(n) * conv.h + h) * row + static_cast<int64_t>(w) * conv.c + tap.c);
        const int lines = Layout::kDepthsPerPass / conv.q;
        const int step_n = lines / conv.p;
        step_w = (Layout::kDepthsPerPass - lines * conv.q) * stride;
        step_h = (lines - step_n * conv.p) * stride;
        step = (static_cast<int64_t>(step_n) * conv.h + step_h) * row + static_cast<int64_t>(step_w) * conv.c;
        wrap_line = stride * row - static_cast<int64_t>(wrap_w) * conv.c;
        wrap_n = (conv.h - wrap_h) * row;
    }
    __device__ __forceinline__ bool whole() const { return channels % TileT::kLanes == 0; }
    __device__ __forceinline__ bool inside(int) const { return pixels_left > 0 && within(h, image_h) && within(w, image_w); }
    __device__ __forceinline__ const T* address(int) const { return at; }
    __device__ __forceinline__ T element(int, int e) const {
        Tap t = tap;
        t.c += e;
        t.wrap(taps_w, channels);
        const int shift_h = (t.r - tap.r) * dilation, shift_w = (t.s - tap.s) * dilation;
        const bool real = pixels_left > 0 && t.r < taps_h && within(h + shift_h, image_h) && within(w + shift_w, image_w);
        const int64_t shift = (static_cast<int64_t>(shift_h) * image_w + shift_w) * channels + (t.c - tap.c);
        return real ? at[shift] : from_float<T>(0.0f);
    }
    __device__ __forceinline__ void next(int) {
        pixels_left -= Layout::kDepthsPerPass;
        at += step;
        h += step_h;
        w += step_w;
        if (w >= end_w) {
            w -= wrap_w;
            h += stride;
            at += wrap_line;
        }
        if (h >= end_h) {
            h -= wrap_h;
            at += wrap_n;
        }
    }
    __device__ __forceinline__ void next_step() {}
};

// ---- The walk along the depth ---------------------------------------------------------------------------------------

template <class Source>
__device__ __forceinline__ void load_step(Source& source, typename Source::T* tile, int first_slot) {
#pragma unroll
    for (int pass = 0; pass < Source::Layout::kPasses; ++pass) {
        // Padding is not read, whatever its address.
        cp_async_16(tile + Source::Layout::slot(first_slot, pass), source.address(pass), source.inside(pass) ? 16 : 0);
        source.next(pass);
    }
    source.next_step();
}

// A thread's chunks of a step, in registers while the block computes.
template <class Source>
struct Gathered {
    using T = typename Source::T;
    Pack<T> chunk[Source::Layout::kPasses];

    __device__ __forceinline__ void load(Source& source) {
#pragma unroll
        for (int pass = 0; pass < Source::Layout::kPasses; ++pass) {
            if (source.whole()) {
                if (source.inside(pass)) {
                    chunk[pass] = *reinterpret_cast<const Pack<T>*>(source.address(pass));
                } else {
#pragma unroll
                    for (int e = 0; e < Pack<T>::kLen; ++e) chunk[pass].at[e] = from_float<T>(0.0f);
                }
            } else {
#pragma unroll
                for (int e = 0; e < Pack<T>::kLen; ++e) chunk[pass].at[e] = source.element(pass, e);
            }
            source.next(pass);
        }
        source.next_step();
    }
    __device__ __forceinline__ void store(T* tile, int first_slot) const {
#pragma unroll
        for (int pass = 0; pass < Source::Layout::kPasses; ++pass) {
            *reinterpret_cast<Pack<T>*>(tile + Source::Layout::slot(first_slot, pass)) = chunk[pass];
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
    const int slot_a = SourceA::Layout::first_slot(), slot_b = SourceB::Layout::first_slot();
    if constexpr (TileT::kGather) {
        Gathered<SourceA> next_a;
        Gathered<SourceB> next_b;
        if (steps > 0) {
            next_a.load(a);
            next_b.load(b);
            next_a.store(tiles_a, slot_a);
            next_b.store(tiles_b, slot_b);
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
                next_a.store(tiles_a + (1 - stage) * kTileA, slot_a);
                next_b.store(tiles_b + (1 - stage) * kTileB, slot_b);
            }
        }
    } else {
#pragma unroll
        for (int stage = 0; stage < kStages - 1; ++stage) {
            if (stage < steps) {
                load_step(a, tiles_a + stage * kTileA, slot_a);
                load_step(b, tiles_b + stage * kTileB, slot_b);
            }
            cp_async_commit();
        }
        int stage = 0, free = kStages - 1;
        for (int step = 0; step < steps; ++step) {
            cp_async_wait<kStages - 2>();
            // The step's tile is whole, and everyone is done with the one before, whose place is filled next.
            __syncthreads();
            if (step + kStages - 1 < steps) {
                load_step(a, tiles_a + free * kTileA, slot_a);
                load_step(b, tiles_b + free * kTileB, slot_b);
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
