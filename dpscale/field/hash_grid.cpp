// Multi-resolution hash grid on the CPU: values, gradients and lazy Adam, all levels in one call.
//
// Same mathematics as hash_grid.py (Instant-NGP, Mueller et al. 2022, section 3), which documents and tests it. Compiled and called
// by hash_grid_cpu.py; tensors come in as pointers to contiguous memory:
//   points [S, D], table [rows, F] (all levels one after the other), features and their gradients [S, L * F].
// T is the type of points and features, V that of the table: (float, float), (double, double) or (float, bfloat16).
//
// No result depends on the number of threads: forward and point gradients work sample by sample, and the rows of a level belong to one
// thread, which visits the samples in order.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace {

constexpr int kBlock = 64;     // samples whose indices and weights lie in the first-level cache together
constexpr int kChunk = 1024;   // samples that a thread takes through all levels; fixed, so that results do not depend on threads
constexpr int kLine = 16;      // table elements that are checked for a gradient together

struct bfloat16 { uint16_t bits; };

inline float load(const float* p) { return *p; }
inline double load(const double* p) { return *p; }
inline float load(const bfloat16* p) {
    const uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// One row of the [L, 7] array that hash_grid_fused.py makes.
struct Level {
    int64_t resolution, first_row, rows, dense, stride[3];
};

template <typename T, int D>
struct Cells {
    uint32_t row[1 << D][kBlock];   // of each corner, within the level
    T weight[1 << D][kBlock];       // multilinear
    T fraction[D][kBlock];          // position inside the cell
    T inside[D][kBlock];            // 1 where the coordinate lies inside (0, 1), else 0: the slope of torch's clamp
};

// Corner k has bit a set where it is the upper end on axis a.
template <typename T, int D>
void locate(const T* points, int count, const Level& level, uint32_t mask, Cells<T, D>& cells) {
    uint32_t end[2][D][kBlock];
    const T resolution = static_cast<T>(level.resolution);
    const int last = static_cast<int>(level.resolution) - 1;
    for (int axis = 0; axis < D; ++axis) {
        const uint32_t stride = static_cast<uint32_t>(level.stride[axis]);
        for (int i = 0; i < count; ++i) {
            const T x = points[i * D + axis];
            const T scaled = (x < T(0) ? T(0) : (x > T(1) ? T(1) : x)) * resolution;
            const int cell = std::max(0, std::min(static_cast<int>(scaled), last));   // in bounds even for NaN
            cells.fraction[axis][i] = scaled - static_cast<T>(cell);
            cells.inside[axis][i] = x > T(0) && x < T(1) ? T(1) : T(0);
            end[0][axis][i] = static_cast<uint32_t>(cell) * stride;
            end[1][axis][i] = end[0][axis][i] + stride;
        }
    }
    for (int k = 0; k < 1 << D; ++k) {
        for (int i = 0; i < count; ++i) {
            uint32_t sum = end[k & 1][0][i], hash = sum;
            T weight = (k & 1) ? cells.fraction[0][i] : T(1) - cells.fraction[0][i];
            for (int axis = 1; axis < D; ++axis) {
                const uint32_t term = end[(k >> axis) & 1][axis][i];
                sum += term;
                hash ^= term;
                weight *= ((k >> axis) & 1) ? cells.fraction[axis][i] : T(1) - cells.fraction[axis][i];
            }
            cells.row[k][i] = level.dense ? sum : hash & mask;
            cells.weight[k][i] = weight;
        }
    }
}

// Rows are read at random: asking for all of a block's before the first is used lets the memory answer them together.
// Asked for to be written (kWrite), a line leaves the caches of the other threads, which mostly want it too.
template <int kWrite, typename T, int D, typename Element>
void prefetch(const Cells<T, D>& cells, int count, const Element* first, int width) {
    for (int k = 0; k < 1 << D; ++k) {
        for (int i = 0; i < count; ++i) __builtin_prefetch(first + static_cast<int64_t>(cells.row[k][i]) * width, kWrite);
    }
}

// Calls work(cells, first sample, count) for each block. While a block is worked on, the rows of the next one are on their way from memory.
template <int kWrite, typename T, int D, typename Element, typename Work>
void for_blocks(const T* points, int64_t begin, int64_t end, const Level& level, uint32_t mask, const Element* rows, int width, Work work) {
    Cells<T, D> both[2];
    int now = 0;
    const auto fetch = [&](int64_t s, Cells<T, D>& cells) {
        const int count = static_cast<int>(std::min<int64_t>(kBlock, end - s));
        locate<T, D>(points + s * D, count, level, mask, cells);
        prefetch<kWrite>(cells, count, rows, width);
    };
    if (begin < end) fetch(begin, both[now]);
    for (int64_t s = begin; s < end; s += kBlock, now = 1 - now) {
        if (s + kBlock < end) fetch(s + kBlock, both[1 - now]);
        work(both[now], s, static_cast<int>(std::min<int64_t>(kBlock, end - s)));
    }
}

// values[i * F + f] = feature f of row[i]. Two features are fetched as one number of their common size: half the gathers.
template <typename V, typename T, int F>
void gather(const V* table, const uint32_t* row, int count, int features, T* values) {
    if constexpr (F == 2) {
        typedef typename std::conditional<sizeof(V) == 4, uint64_t, uint32_t>::type Pair;
        if constexpr (sizeof(V) <= 4) {
            Pair pairs[kBlock];
            const char* bytes = reinterpret_cast<const char*>(table);
            for (int i = 0; i < count; ++i) {
                typedef Pair __attribute__((may_alias, aligned(2))) Loose;
                pairs[i] = reinterpret_cast<const Loose*>(bytes)[row[i]];
            }
            if constexpr (sizeof(V) == 4) {
                std::memcpy(values, pairs, sizeof(Pair) * count);
            } else {   // bfloat16 is the upper half of a float; the first of a pair is the lower half of its number
                uint32_t bits[2 * kBlock];
                for (int i = 0; i < count; ++i) bits[2 * i] = static_cast<uint32_t>(pairs[i]) << 16, bits[2 * i + 1] = pairs[i] & 0xFFFF0000u;
                std::memcpy(values, bits, 2 * sizeof(uint32_t) * count);
            }
            return;
        }
    }
    const int width = F > 0 ? F : features;
    for (int i = 0; i < count; ++i) {
        for (int f = 0; f < width; ++f) values[i * width + f] = load(table + (row[i] * width + f));
    }
}

constexpr int kMostFeatures = 8;   // HashGridConfig's bound

// F > 0: number of features, known when compiling; 0: `features`.
template <typename T, typename V, int D, int F>
void encode_block(const Cells<T, D>& cells, int count, const V* table, int features, T* out, int64_t out_stride) {
    T sum[kBlock * (F > 0 ? F : kMostFeatures)], values[kBlock * (F > 0 ? F : kMostFeatures)];
    const int width = F > 0 ? F : features;
    for (int e = 0; e < count * width; ++e) sum[e] = 0;
    for (int k = 0; k < 1 << D; ++k) {
        gather<V, T, F>(table, cells.row[k], count, features, values);
        for (int i = 0; i < count; ++i) {
            for (int f = 0; f < width; ++f) sum[i * width + f] += cells.weight[k][i] * values[i * width + f];
        }
    }
    for (int i = 0; i < count; ++i) {
        for (int f = 0; f < width; ++f) out[i * out_stride + f] = sum[i * width + f];
    }
}

template <typename T, typename V, int D, int F>
void encode(const T* points, int64_t samples, const V* table, const Level* levels, int num_levels, uint32_t mask, int features, T* out,
            int64_t out_stride, int threads) {
    const int width = F > 0 ? F : features;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t chunk = 0; chunk < samples; chunk += kChunk) {
        const int64_t end = std::min<int64_t>(samples, chunk + kChunk);
        for (int l = 0; l < num_levels; ++l) {
            const V* own = table + levels[l].first_row * width;
            for_blocks<0, T, D>(points, chunk, end, levels[l], mask, own, width, [&](const Cells<T, D>& cells, int64_t s, int count) {
                encode_block<T, V, D, F>(cells, count, own, features, out + s * out_stride + l * width, out_stride);
            });
        }
    }
}

// Where a sorted list of coordinates lies on one axis of a level: only the vertices that are needed are numbered.
template <typename T>
struct Ticks {
    std::vector<int> vertex, lower, upper;   // distinct vertices in order; of each coordinate, the numbers of both neighbours in that list
    std::vector<T> fraction;

    Ticks(const T* coordinates, int count, int64_t resolution) {
        for (int i = 0; i < count; ++i) {
            const T x = coordinates[i], scaled = (x < T(0) ? T(0) : (x > T(1) ? T(1) : x)) * static_cast<T>(resolution);
            const int cell = std::max(0, std::min(static_cast<int>(scaled), static_cast<int>(resolution) - 1));
            for (int end = cell; end <= cell + 1; ++end) {
                if (vertex.empty() || vertex.back() < end) vertex.push_back(end);
            }
            lower.push_back(static_cast<int>(vertex.size()) - (vertex.back() == cell ? 1 : 2));
            upper.push_back(lower.back() + 1);
            fraction.push_back(scaled - static_cast<T>(cell));
        }
    }
};

// One level at one third coordinate: the values on a row of vertices, both neighbours on the third axis blended. `x`: the columns' terms of
// the row index; `scratch`: room for two indices a column.
template <typename T, typename V, int F>
void vertex_line(const V* table, const Level& level, uint32_t mask, int features, const std::vector<uint32_t>& x, int row, int slice, T fraction,
                 uint32_t* scratch, T* line) {
    const int count = static_cast<int>(x.size()), width = F > 0 ? F : features;
    const uint32_t y = static_cast<uint32_t>(row) * static_cast<uint32_t>(level.stride[1]), z = static_cast<uint32_t>(slice);
    const uint32_t step = static_cast<uint32_t>(level.stride[2]);
    uint32_t *near = scratch, *far = scratch + count;
    if (level.dense) {
        for (int c = 0; c < count; ++c) near[c] = x[c] + y + z * step, far[c] = near[c] + step;
    } else {
        for (int c = 0; c < count; ++c) near[c] = (x[c] ^ y ^ (z * step)) & mask, far[c] = (x[c] ^ y ^ ((z + 1) * step)) & mask;
    }
    for (int c = 0; c < count; ++c) {
        for (int f = 0; f < width; ++f)
            line[c * width + f] = (T(1) - fraction) * load(table + (near[c] * width + f)) + fraction * load(table + (far[c] * width + f));
    }
}

// Pixel rows [begin, end) of a lattice: neighbouring pixels share vertices, and all of them the third coordinate.
template <typename T, typename V, int F>
void lattice_rows(const Ticks<T>& x, const Ticks<T>& y, const Ticks<T>& z, int begin, int end, const V* table, const Level& level, uint32_t mask,
                  int features, T* out, int64_t out_stride) {
    const int width = static_cast<int>(x.lower.size()), channels = F > 0 ? F : features, columns = static_cast<int>(x.vertex.size());
    std::vector<T> lines[2] = {std::vector<T>(columns * channels), std::vector<T>(columns * channels)}, blend(columns * channels);
    std::vector<uint32_t> terms(columns), scratch(2 * columns);
    for (int c = 0; c < columns; ++c) terms[c] = static_cast<uint32_t>(x.vertex[c]) * static_cast<uint32_t>(level.stride[0]);
    int held[2] = {-1, -1};
    for (int j = begin; j < end; ++j) {
        const int wanted[2] = {y.vertex[y.lower[j]], y.vertex[y.upper[j]]};
        if (held[1] == wanted[0]) {
            std::swap(lines[0], lines[1]);
            std::swap(held[0], held[1]);
        }
        for (int side = 0; side < 2; ++side) {
            if (held[side] == wanted[side]) continue;
            vertex_line<T, V, F>(table, level, mask, features, terms, wanted[side], z.vertex[0], z.fraction[0], scratch.data(), lines[side].data());
            held[side] = wanted[side];
        }
        const T fraction = y.fraction[j], *top = lines[0].data(), *bottom = lines[1].data();
        for (int c = 0; c < columns * channels; ++c) blend[c] = (T(1) - fraction) * top[c] + fraction * bottom[c];
        T* own = out + static_cast<int64_t>(j) * width * out_stride;
        const T *values = blend.data(), *along = x.fraction.data();
        const int* lower = x.lower.data();
        for (int i = 0; i < width; ++i) {
            const T* left = values + lower[i] * channels;
            for (int f = 0; f < channels; ++f) own[i * out_stride + f] = (T(1) - along[i]) * left[f] + along[i] * left[channels + f];
        }
    }
}

template <typename T, typename V>
void lattice(const T* xs, int width, const T* ys, int height, T z, const V* table, const Level* levels, int num_levels, uint32_t mask, int features,
             T* out, int threads) {
    constexpr int kRows = 32;
    const int64_t stride = static_cast<int64_t>(num_levels) * features;
    std::vector<Ticks<T>> x, y, slice;
    for (int l = 0; l < num_levels; ++l) {
        x.emplace_back(xs, width, levels[l].resolution);
        y.emplace_back(ys, height, levels[l].resolution);
        slice.emplace_back(&z, 1, levels[l].resolution);
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int begin = 0; begin < height; begin += kRows) {
        for (int l = 0; l < num_levels; ++l) {
            const auto rows = features == 2 ? lattice_rows<T, V, 2> : lattice_rows<T, V, 0>;
            rows(x[l], y[l], slice[l], begin, std::min(height, begin + kRows), table + levels[l].first_row * features, levels[l], mask, features,
                 out + l * features, stride);
        }
    }
}

// d out / d points, times `gradient`: the weight of corner k is a product, so its slope on one axis is the product of the others.
template <typename T, typename V, int D, int F>
void point_gradient(const T* points, int64_t samples, const V* table, const Level* levels, int num_levels, uint32_t mask, int features,
                    const T* gradient, int64_t stride, T* out, int threads) {
    const int width = F > 0 ? F : features;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t s = 0; s < samples; s += kBlock) {
        const int count = static_cast<int>(std::min<int64_t>(kBlock, samples - s));
        Cells<T, D> cells;
        T total[D][kBlock] = {}, corner[1 << D][kBlock];
        T slopes[kBlock * (F > 0 ? F : kMostFeatures)], values[kBlock * (F > 0 ? F : kMostFeatures)];
        for (int l = 0; l < num_levels; ++l) {
            const V* own = table + levels[l].first_row * width;
            locate<T, D>(points + s * D, count, levels[l], mask, cells);
            prefetch<0>(cells, count, own, width);
            for (int i = 0; i < count; ++i) {
                for (int f = 0; f < width; ++f) slopes[i * width + f] = gradient[(s + i) * stride + l * width + f];
            }
            for (int k = 0; k < 1 << D; ++k) {
                gather<V, T, F>(own, cells.row[k], count, features, values);
                for (int i = 0; i < count; ++i) {
                    corner[k][i] = 0;
                    for (int f = 0; f < width; ++f) corner[k][i] += slopes[i * width + f] * values[i * width + f];
                }
            }
            for (int axis = 0; axis < D; ++axis) {
                for (int k = 0; k < 1 << D; ++k) {
                    const T sign = (k >> axis) & 1 ? T(levels[l].resolution) : -T(levels[l].resolution);
                    for (int i = 0; i < count; ++i) {
                        T slope = sign;
                        for (int other = 0; other < D; ++other) {
                            if (other != axis) slope *= ((k >> other) & 1) ? cells.fraction[other][i] : T(1) - cells.fraction[other][i];
                        }
                        total[axis][i] += slope * corner[k][i];
                    }
                }
            }
        }
        for (int axis = 0; axis < D; ++axis) {
            for (int i = 0; i < count; ++i) out[(s + i) * D + axis] = total[axis][i] * cells.inside[axis][i];
        }
    }
}

// Adds one level's gradient to `sum` [rows, F]; `touched`, where given, gets a 1 for every kLine elements of it that were added to.
template <typename T, int D, int F>
void scatter(const T* points, int64_t samples, const Level& level, uint32_t mask, int features, const T* gradient, int64_t stride, T* sum,
             uint8_t* touched) {
    const int width = F > 0 ? F : features;
    for_blocks<1, T, D>(points, 0, samples, level, mask, sum, width, [&](const Cells<T, D>& cells, int64_t s, int count) {
        for (int i = 0; i < count; ++i) {
            const T* own = gradient + (s + i) * stride;
            for (int k = 0; k < 1 << D; ++k) {
                const int64_t first = static_cast<int64_t>(cells.row[k][i]) * width;
                const T weight = cells.weight[k][i];
                for (int f = 0; f < width; ++f) sum[first + f] += weight * own[f];
                if (touched) {
                    touched[first / kLine] = 1;
                    if (F != 1 && F != 2) touched[(first + width - 1) / kLine] = 1;   // a row may cross from one line to the next
                }
            }
        }
    });
}

struct Adam {
    double beta1, beta2, eps, step_size, root_correction;   // lr / (1 - beta1^t), sqrt(1 - beta2^t)
    uint32_t step;
};

inline void store(float* p, float value, uint32_t, uint32_t) { *p = value; }
inline void store(double* p, double value, uint32_t, uint32_t) { *p = value; }

// Stochastic rounding: the mean of the rounded value is the value. The random bits follow from element and step alone.
inline void store(bfloat16* p, float value, uint32_t element, uint32_t step) {
    uint32_t noise = element * 0x9E3779B1u + step * 0x85EBCA77u, bits;
    noise = (noise ^ (noise >> 16)) * 0x7FEB352Du;
    noise = (noise ^ (noise >> 15)) * 0x846CA68Bu;
    noise ^= noise >> 16;
    std::memcpy(&bits, &value, 4);
    p->bits = static_cast<uint16_t>((bits + (noise & 0xFFFFu)) >> 16);
}

// Elements with a gradient of exactly zero keep value and moments (tiny-cuda-nn's rule). Leaves `gradient` zero.
template <typename T, typename V>
inline void adam_line(V* value, T* mean, T* square, T* gradient, int count, const Adam& adam, uint32_t first) {
    const T rest1 = T(1 - adam.beta1), keep2 = T(adam.beta2), rest2 = T(1 - adam.beta2), eps = T(adam.eps), size = T(adam.step_size), root = T(1 / adam.root_correction);
    for (int i = 0; i < count; ++i) {
        const T g = gradient[i], m = mean[i] + (g - mean[i]) * rest1, v = keep2 * square[i] + rest2 * g * g;
        const T moved = load(value + i) - size * m / (std::sqrt(v) * root + eps);
        if (g != T(0)) {
            mean[i] = m;
            square[i] = v;
            store(value + i, moved, first + static_cast<uint32_t>(i), adam.step);
        }
        gradient[i] = 0;
    }
}

// The lines that begin at `lines`, of one level.
template <typename T, typename V>
void update_lines(V* table, T* mean, T* square, T* gradient, const std::vector<int64_t>& lines, int64_t elements, const Adam& adam, uint32_t first) {
    constexpr size_t kAhead = 12;
    for (size_t n = 0; n < lines.size(); ++n) {
        const int64_t at = lines[n], later = lines[std::min(n + kAhead, lines.size() - 1)];
        __builtin_prefetch(table + later, 1);
        __builtin_prefetch(mean + later, 1);
        __builtin_prefetch(square + later, 1);
        const uint32_t element = first + static_cast<uint32_t>(at);
        if (at + kLine <= elements) adam_line(table + at, mean + at, square + at, gradient + at, kLine, adam, element);
        else adam_line(table + at, mean + at, square + at, gradient + at, static_cast<int>(elements - at), adam, element);
    }
}

// Sums and marks are all zero between calls: every call clears what it touched.
template <typename T>
struct Scratch {
    std::vector<T> sum;
    std::vector<uint8_t> touched;
    std::vector<int64_t> lines;
    void reserve(int64_t elements) {
        if (static_cast<int64_t>(sum.size()) < elements) {
            sum.assign(elements + kLine, T(0));
            touched.assign(elements / kLine + 2, 0);
        }
    }
};

// Scatters one level after the other into a buffer of one level, and updates the lines of table and moments that were hit.
template <typename T, typename V, int D, int F>
void scatter_and_update(const T* points, int64_t samples, V* table, T* mean, T* square, const Level* levels, int num_levels, uint32_t mask,
                        int features, const T* gradient, int64_t stride, const Adam& adam, int threads) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int l = 0; l < num_levels; ++l) {
        static thread_local Scratch<T> scratch;
        const int64_t first = levels[l].first_row * features, elements = levels[l].rows * features;
        scratch.reserve(elements);
        scatter<T, D, F>(points, samples, levels[l], mask, features, gradient + l * features, stride, scratch.sum.data(), scratch.touched.data());
        scratch.lines.resize(elements / kLine + 1);
        size_t hit = 0;
        for (int64_t line = 0; line * kLine < elements; ++line) {   // without a branch: which lines were hit cannot be guessed
            scratch.lines[hit] = line * kLine;
            hit += scratch.touched[line];
            scratch.touched[line] = 0;
        }
        scratch.lines.resize(hit);
        update_lines(table + first, mean + first, square + first, scratch.sum.data(), scratch.lines, elements, adam, static_cast<uint32_t>(first));
    }
}

template <typename T, int D, int F>
void table_gradient(const T* points, int64_t samples, const Level* levels, int num_levels, uint32_t mask, int features, const T* gradient,
                    int64_t stride, T* out, int threads) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int l = 0; l < num_levels; ++l) {
        scatter<T, D, F>(points, samples, levels[l], mask, features, gradient + l * features, stride, out + levels[l].first_row * features, nullptr);
    }
}

}  // namespace

// Two features is what everybody uses: its loops are compiled for it.
#define DPSCALE_DISPATCH(FUNCTION, DIMS, FEATURES, TYPES, ...)                  \
    do {                                                                        \
        if ((DIMS) == 2 && (FEATURES) == 2) FUNCTION<TYPES, 2, 2>(__VA_ARGS__); \
        else if ((DIMS) == 2) FUNCTION<TYPES, 2, 0>(__VA_ARGS__);               \
        else if ((FEATURES) == 2) FUNCTION<TYPES, 3, 2>(__VA_ARGS__);           \
        else FUNCTION<TYPES, 3, 0>(__VA_ARGS__);                                \
    } while (0)
#define DPSCALE_PAIR(T, V) T, V

#define DPSCALE_EXPORT(NAME, T, V)                                                                                                             \
    extern "C" void dpscale_encode_##NAME(const T* points, int64_t samples, int dims, const V* table, const void* levels, int num_levels,      \
                                          uint32_t mask, int features, T* out, int64_t stride, int threads) {                                 \
        DPSCALE_DISPATCH(encode, dims, features, DPSCALE_PAIR(T, V), points, samples, table, static_cast<const Level*>(levels), num_levels,    \
                         mask, features, out, stride, threads);                                                                                \
    }                                                                                                                                          \
    extern "C" void dpscale_lattice_##NAME(const T* xs, int width, const T* ys, int height, double z, const V* table, const void* levels,      \
                                           int num_levels, uint32_t mask, int features, T* out, int threads) {                                 \
        lattice<T, V>(xs, width, ys, height, static_cast<T>(z), table, static_cast<const Level*>(levels), num_levels, mask, features, out,     \
                      threads);                                                                                                                \
    }                                                                                                                                          \
    extern "C" void dpscale_point_gradient_##NAME(const T* points, int64_t samples, int dims, const V* table, const void* levels,              \
                                                  int num_levels, uint32_t mask, int features, const T* gradient, int64_t stride, T* out,     \
                                                  int threads) {                                                                               \
        DPSCALE_DISPATCH(point_gradient, dims, features, DPSCALE_PAIR(T, V), points, samples, table, static_cast<const Level*>(levels),        \
                         num_levels, mask, features, gradient, stride, out, threads);                                                          \
    }                                                                                                                                          \
    extern "C" void dpscale_update_##NAME(const T* points, int64_t samples, int dims, V* table, T* mean, T* square, const void* levels,        \
                                          int num_levels, uint32_t mask, int features, const T* gradient, int64_t stride, double beta1,       \
                                          double beta2, double eps, double step_size, double root_correction, uint32_t step, int threads) {   \
        const Adam adam{beta1, beta2, eps, step_size, root_correction, step};                                                                  \
        DPSCALE_DISPATCH(scatter_and_update, dims, features, DPSCALE_PAIR(T, V), points, samples, table, mean, square,                         \
                         static_cast<const Level*>(levels), num_levels, mask, features, gradient, stride, adam, threads);                      \
    }

DPSCALE_EXPORT(float, float, float)
DPSCALE_EXPORT(double, double, double)
DPSCALE_EXPORT(bfloat16, float, bfloat16)

#define DPSCALE_EXPORT_GRADIENT(T)                                                                                                           \
    extern "C" void dpscale_table_gradient_##T(const T* points, int64_t samples, int dims, const void* levels, int num_levels, uint32_t mask, \
                                               int features, const T* gradient, int64_t stride, T* out, int threads) {                      \
        DPSCALE_DISPATCH(table_gradient, dims, features, T, points, samples, static_cast<const Level*>(levels), num_levels, mask, features,   \
                         gradient, stride, out, threads);                                                                                    \
    }

DPSCALE_EXPORT_GRADIENT(float)
DPSCALE_EXPORT_GRADIENT(double)

// Asks for huge pages: rows are read at random, and a table of 4 KiB pages misses the address cache at every read.
extern "C" void dpscale_advise_huge_pages(void* start, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const uintptr_t page = 2u << 20, from = (reinterpret_cast<uintptr_t>(start) + page - 1) / page * page;
    const uintptr_t to = (reinterpret_cast<uintptr_t>(start) + static_cast<uintptr_t>(bytes)) / page * page;
    if (to > from) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
#else
    (void)start, (void)bytes;
#endif
}
