// Narrow multilayer perceptrons on the CPU: values and gradients of a block of samples pass all layers inside the second-level cache.
//
// Same mathematics as the nn.Sequential of mlp.py, which documents and tests it. Forward leaves the activations of each block behind for
// backward, in one piece, so that they are written and read at the memory's full speed. All arrays are sample-major.
//
// No result depends on the number of threads: samples are split into kGroups groups, whose gradients are added in order.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int kBlock = 128;   // samples that pass all layers together
constexpr int kGroups = 16;   // sums of gradients

// Vectors as wide as the processor's registers: wider ones compile to code that is many times slower. A tile is kTile x 2 of them, all in registers.
#if defined(__AVX512F__)
constexpr int kBytes = 64;
constexpr int kTile = 8;      // rows of a product that one pass over its inner dimension computes
#elif defined(__AVX__)
constexpr int kBytes = 32;
constexpr int kTile = 4;
#else
constexpr int kBytes = 16;
constexpr int kTile = 4;
#endif

template <typename T> struct Vector;
template <> struct Vector<float> { typedef float type __attribute__((vector_size(kBytes), aligned(4), may_alias)); };
template <> struct Vector<double> { typedef double type __attribute__((vector_size(kBytes), aligned(8), may_alias)); };
template <typename T> constexpr int kLanes = kBytes / sizeof(T);

// To whole vectors and whole tiles: widths are columns of one product and rows of another.
template <typename T> int padded(int width) {
    constexpr int unit = std::max(kLanes<T>, kTile);
    return (width + unit - 1) / unit * unit;
}

enum class Start { kZero, kBias, kSum };
enum class End { kPlain, kClip, kGate };   // ReLU's value, and its slope

// C[kTile, V vectors] = start + A B, where A's element (m, k) is a[m * row + k * column]. `beside`: the bias, or kGate's array, which lies as C does.
template <typename T, int V>
inline void tile(const T* a, int64_t row, int64_t column, const T* b, int64_t b_row, T* c, int64_t c_row, int inner, Start start, End end,
                 const T* beside) {
    using vector = typename Vector<T>::type;
    vector sum[kTile][V];
#pragma GCC unroll 8
    for (int m = 0; m < kTile; ++m) {
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) {
            if (start == Start::kZero) sum[m][v] = vector{};
            else sum[m][v] = *reinterpret_cast<const vector*>((start == Start::kBias ? beside : c + m * c_row) + v * kLanes<T>);
        }
    }
    for (int k = 0; k < inner; ++k) {
        vector right[V];
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) right[v] = *reinterpret_cast<const vector*>(b + k * b_row + v * kLanes<T>);
#pragma GCC unroll 8
        for (int m = 0; m < kTile; ++m) {
            const T left = a[m * row + k * column];
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) sum[m][v] += left * right[v];
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < kTile; ++m) {
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) {
            vector value = sum[m][v];
            if (end == End::kClip) value = value < T(0) ? vector{} : value;   // keeps NaN
            if (end == End::kGate) value = *reinterpret_cast<const vector*>(beside + m * c_row + v * kLanes<T>) > T(0) ? value : vector{};
            *reinterpret_cast<vector*>(c + m * c_row + v * kLanes<T>) = value;
        }
    }
}

// C [rows, columns] = start + A B; rows a multiple of kTile, columns of kLanes.
template <typename T>
void product(const T* a, int64_t row, int64_t column, const T* b, int64_t b_row, T* c, int64_t c_row, int rows, int columns, int inner, Start start,
             End end, const T* beside) {
    for (int n = 0; n < columns;) {
        const bool pair = n + 2 * kLanes<T> <= columns;
        for (int m = 0; m < rows; m += kTile) {
            const T* left = a + m * row;
            T* out = c + m * c_row + n;
            const T* own = beside ? beside + n + (end == End::kGate ? m * c_row : 0) : nullptr;
            if (pair) tile<T, 2>(left, row, column, b + n, b_row, out, c_row, inner, start, end, own);
            else tile<T, 1>(left, row, column, b + n, b_row, out, c_row, inner, start, end, own);
        }
        n += pair ? 2 * kLanes<T> : kLanes<T>;
    }
}

// Weights as the products want them: padded with zeros to whole vectors.
template <typename T>
struct Layer {
    int in, out, in_pad, out_pad;
    std::vector<T> weight, transposed, bias;   // [out_pad, in_pad], [in_pad, out_pad], [out_pad]

    Layer(int in, int out, const T* weights, const T* biases)
        : in(in), out(out), in_pad(padded<T>(in)), out_pad(padded<T>(out)), weight(out_pad * in_pad), transposed(out_pad * in_pad), bias(out_pad) {
        for (int o = 0; o < out; ++o) {
            bias[o] = biases[o];
            for (int i = 0; i < in; ++i) weight[o * in_pad + i] = transposed[i * out_pad + o] = weights[o * in + i];
        }
    }
};

template <typename T>
std::vector<Layer<T>> layers_of(int num_layers, const int64_t* sizes, const int64_t* weights, const int64_t* biases) {
    std::vector<Layer<T>> layers;
    for (int l = 0; l < num_layers; ++l) {
        layers.emplace_back(static_cast<int>(sizes[l]), static_cast<int>(sizes[l + 1]), reinterpret_cast<const T*>(weights[l]),
                            reinterpret_cast<const T*>(biases[l]));
    }
    return layers;
}

// The network's input is the columns of several arrays side by side.
template <typename T>
struct Inputs {
    int count;
    const int64_t* pointers;
    const int64_t* widths;

    void read(int64_t first, int samples, T* block, int row) const {
        std::memset(block, 0, sizeof(T) * kBlock * row);
        int at = 0;
        for (int n = 0; n < count; ++n) {
            const T* source = reinterpret_cast<const T*>(pointers[n]) + first * widths[n];
            for (int s = 0; s < samples; ++s) std::memcpy(block + s * row + at, source + s * widths[n], sizeof(T) * widths[n]);
            at += static_cast<int>(widths[n]);
        }
    }
};

// Numbers that enter the layers, for one block.
template <typename T>
int64_t block_size(const std::vector<Layer<T>>& layers) {
    int64_t size = 0;
    for (const Layer<T>& layer : layers) size += kBlock * layer.in_pad;
    return size;
}

// What enters each layer, for one block, one after the other from `memory` on.
template <typename T>
std::vector<T*> activations_at(T* memory, const std::vector<Layer<T>>& layers) {
    std::vector<T*> of;
    for (const Layer<T>& layer : layers) {
        of.push_back(memory);
        memory += kBlock * layer.in_pad;
    }
    return of;
}

// `kept`, where it is not null, gets what enters each layer, block after block.
template <typename T>
void forward(const Inputs<T>& inputs, int64_t samples, const std::vector<Layer<T>>& layers, T* out, T* kept, int threads) {
    const Layer<T>& last = layers.back();
    const int64_t size = block_size(layers);
#pragma omp parallel num_threads(threads)
    {
        std::vector<T> own(kept ? 0 : size), result(kBlock * last.out_pad);
#pragma omp for schedule(static)
        for (int64_t first = 0; first < samples; first += kBlock) {
            const int count = static_cast<int>(std::min<int64_t>(kBlock, samples - first));
            const std::vector<T*> entering = activations_at(kept ? kept + first / kBlock * size : own.data(), layers);
            inputs.read(first, count, entering[0], layers[0].in_pad);
            for (size_t l = 0; l < layers.size(); ++l) {
                const Layer<T>& layer = layers[l];
                const bool hidden = l + 1 < layers.size();
                product<T>(entering[l], layer.in_pad, 1, layer.transposed.data(), layer.out_pad, hidden ? entering[l + 1] : result.data(), layer.out_pad,
                           kBlock, layer.out_pad, layer.in, Start::kBias, hidden ? End::kClip : End::kPlain, layer.bias.data());
            }
            for (int s = 0; s < count; ++s) std::memcpy(out + (first + s) * last.out, result.data() + s * last.out_pad, sizeof(T) * last.out);
        }
    }
}

template <typename T>
struct Gradients {
    std::vector<std::vector<T>> weight, bias;   // padded like the layers

    explicit Gradients(const std::vector<Layer<T>>& layers) {
        for (const Layer<T>& layer : layers) {
            weight.emplace_back(layer.out_pad * layer.in_pad);
            bias.emplace_back(layer.out_pad);
        }
    }
};

// sum += the rows of a block, `width` wide, a vector of columns at a time: the sums stay in registers.
template <typename T>
void add_rows(const T* block, int width, T* sum) {
    using vector = typename Vector<T>::type;
    for (int o = 0; o < width; o += kLanes<T>) {
        vector part[4] = {};
        for (int s = 0; s < kBlock; s += 4) {
            for (int n = 0; n < 4; ++n) part[n] += *reinterpret_cast<const vector*>(block + (s + n) * width + o);
        }
        *reinterpret_cast<vector*>(sum + o) += (part[0] + part[1]) + (part[2] + part[3]);
    }
}

// `slope` holds d loss / d (last layer's output) of a block; ends with that of the network's input. `other` is of the same size.
template <typename T>
void backward_block(const std::vector<Layer<T>>& layers, const std::vector<T*>& entering, Gradients<T>& sums, std::vector<T>& slope,
                    std::vector<T>& other, bool for_input) {
    for (int l = static_cast<int>(layers.size()) - 1; l >= 0; --l) {
        const Layer<T>& layer = layers[l];
        const T* input = entering[l];
        product<T>(slope.data(), 1, layer.out_pad, input, layer.in_pad, sums.weight[l].data(), layer.in_pad, layer.out_pad, layer.in_pad, kBlock,
                   Start::kSum, End::kPlain, nullptr);
        add_rows(slope.data(), layer.out_pad, sums.bias[l].data());
        if (l == 0 && !for_input) return;
        product<T>(slope.data(), layer.out_pad, 1, layer.weight.data(), layer.in_pad, other.data(), layer.in_pad, kBlock, layer.in_pad, layer.out,
                   Start::kZero, l > 0 ? End::kGate : End::kPlain, input);
        std::swap(slope, other);
    }
}

// The gradient of the first `input_width` columns of the input goes to `input_gradient`, where that is not null.
template <typename T>
void backward_group(int64_t begin, int64_t end, const std::vector<Layer<T>>& layers, T* kept, const T* gradient, Gradients<T>& sums,
                    T* input_gradient, int64_t input_width) {
    int widest = 0;
    for (const Layer<T>& layer : layers) widest = std::max({widest, layer.in_pad, layer.out_pad});
    std::vector<T> slope(kBlock * widest), other(kBlock * widest);
    const Layer<T>& last = layers.back();
    for (int64_t first = begin; first < end; first += kBlock) {
        const int count = static_cast<int>(std::min<int64_t>(kBlock, end - first));
        std::fill_n(slope.begin(), kBlock * last.out_pad, T(0));
        for (int s = 0; s < count; ++s) std::memcpy(slope.data() + s * last.out_pad, gradient + (first + s) * last.out, sizeof(T) * last.out);
        backward_block(layers, activations_at(kept + first / kBlock * block_size(layers), layers), sums, slope, other, input_gradient != nullptr);
        if (!input_gradient) continue;
        for (int s = 0; s < count; ++s)
            std::memcpy(input_gradient + (first + s) * input_width, slope.data() + s * layers[0].in_pad, sizeof(T) * input_width);
    }
}

template <typename T>
void backward(int64_t samples, const std::vector<Layer<T>>& layers, T* kept, const T* gradient, const int64_t* weight_gradients,
              const int64_t* bias_gradients, T* input_gradient, int64_t input_width, int threads) {
    std::vector<Gradients<T>> groups(kGroups, Gradients<T>(layers));
    const int64_t blocks = (samples + kBlock - 1) / kBlock, size = (blocks + kGroups - 1) / kGroups * kBlock;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int g = 0; g < kGroups; ++g) {
        backward_group(g * size, std::min(samples, (g + 1) * size), layers, kept, gradient, groups[g], input_gradient, input_width);
    }
    for (size_t l = 0; l < layers.size(); ++l) {
        const Layer<T>& layer = layers[l];
        T* weight = reinterpret_cast<T*>(weight_gradients[l]);
        T* bias = reinterpret_cast<T*>(bias_gradients[l]);
        for (const Gradients<T>& group : groups) {
            for (int o = 0; o < layer.out; ++o) {
                bias[o] += group.bias[l][o];
                for (int i = 0; i < layer.in; ++i) weight[o * layer.in + i] += group.weight[l][o * layer.in_pad + i];
            }
        }
    }
}

}  // namespace

// `inputs`, `weights`, `biases` and their gradients are arrays of addresses; `sizes` has one number more than there are layers. `kept` has room for
// `kept_size` numbers, and stays as it is. The gradients of weights and biases are added to what is there.
#define DPSCALE_EXPORT(T)                                                                                                                      \
    extern "C" int64_t dpscale_mlp_kept_size_##T(int64_t samples, int num_layers, const int64_t* sizes) {                                      \
        int64_t size = 0;                                                                                                                      \
        for (int l = 0; l < num_layers; ++l) size += padded<T>(static_cast<int>(sizes[l]));                                                    \
        return (samples + kBlock - 1) / kBlock * kBlock * size;                                                                                \
    }                                                                                                                                          \
    extern "C" void dpscale_mlp_forward_##T(int num_inputs, const int64_t* inputs, const int64_t* widths, int64_t samples, int num_layers,     \
                                            const int64_t* sizes, const int64_t* weights, const int64_t* biases, T* out, T* kept,             \
                                            int threads) {                                                                                     \
        forward<T>({num_inputs, inputs, widths}, samples, layers_of<T>(num_layers, sizes, weights, biases), out, kept, threads);               \
    }                                                                                                                                          \
    extern "C" void dpscale_mlp_backward_##T(int64_t samples, int num_layers, const int64_t* sizes, const int64_t* weights,                    \
                                             const int64_t* biases, T* kept, const T* gradient, const int64_t* weight_gradients,              \
                                             const int64_t* bias_gradients, T* input_gradient, int64_t input_width, int threads) {             \
        backward<T>(samples, layers_of<T>(num_layers, sizes, weights, biases), kept, gradient, weight_gradients, bias_gradients,               \
                    input_gradient, input_width, threads);                                                                                     \
    }

DPSCALE_EXPORT(float)
DPSCALE_EXPORT(double)
