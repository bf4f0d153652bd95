// Long convolutions and their gradients, with adjacent features side by side in the lanes of one vector.
//
// Two real sequences are multiplied as polynomials in R[z]/(z^2M + 1), which is C[z]/(z^M - i): position p < M is the
// real part of coefficient p, and position M + p its imaginary part. Nothing wraps around while products stay below
// degree 2M. A node of the tree of transforms is C[z]/(z^n - e^(i phi)); by the roots of its equation it divides into
// R nodes of n/R coefficients, with one twiddle w = e^(i phi / R) and its powers for all of them:
//
//     y_k = sum_q  x_q w^q e^(2 pi i q k / R),     angle of child k: (phi + 2 pi k) / R.
//
// Below, everything is per lane: a lane sees its own feature only. Plain C interface; compiled by native_build.py.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <functional>
#include <system_error>
#include <thread>
#include <vector>

using Index = std::ptrdiff_t;

extern "C" {

// What runs a function of some data on so many threads: GOMP_parallel of the OpenMP that torch has loaded.
using Team = void (*)(void (*function)(void*), void* data, unsigned threads, unsigned flags);

struct Sizes {
  Index batch, channels, features, steps, lags, ahead;
  Index parts, threads;  // parts of the batch: each sums the gradients of the kernels by itself
  Team team;             // null: threads of our own
};

struct Plan {
  Index size, stages;           // M, and how often nodes divide
  const Index* radices;         // R of each stage: 2, 3, 4 or 5
  const void* const* twiddles;  // of each stage: (nodes, R - 1, 2), w^q as real and imaginary part
};

struct Signal {
  void* data;  // null: not wanted
  Index by_row, by_channel, by_feature, by_step;
};
}

namespace {

constexpr std::size_t kNear = 16384;  // bytes of a node that stays in the first-level cache for all its stages

template <class T>
struct Lanes {
  typedef T Vector __attribute__((vector_size(VECTOR_BYTES)));
  static constexpr Index kWidth = VECTOR_BYTES / sizeof(T);
};

template <class T>
Index blocks_of(const Sizes& sizes) {
  return (sizes.features + Lanes<T>::kWidth - 1) / Lanes<T>::kWidth;
}

template <class T>
struct Complex {
  typename Lanes<T>::Vector re, im;

  Complex operator+(const Complex& o) const { return {re + o.re, im + o.im}; }
  Complex operator-(const Complex& o) const { return {re - o.re, im - o.im}; }
  Complex operator*(const Complex& o) const { return {re * o.re - im * o.im, re * o.im + im * o.re}; }
  Complex times(T a, T b) const { return {re * a - im * b, re * b + im * a}; }
  Complex times_i() const { return {-im, re}; }
  Complex conjugate() const { return {re, -im}; }
};

// cos and sin of 2 pi p / R
template <class T, int R>
struct Roots;
template <class T>
struct Roots<T, 3> {
  static constexpr T re[] = {T(1), T(-0.5), T(-0.5)};
  static constexpr T im[] = {T(0), T(0.86602540378443864676), T(-0.86602540378443864676)};
};
template <class T>
struct Roots<T, 5> {
  static constexpr T re[] = {T(1), T(0.30901699437494742410), T(-0.80901699437494742410), T(-0.80901699437494742410),
                             T(0.30901699437494742410)};
  static constexpr T im[] = {T(0), T(0.95105651629515357212), T(0.58778525229247312917), T(-0.58778525229247312917),
                             T(-0.95105651629515357212)};
};

// x_0 … x_{R-1} to sum_q x_q e^(±2 pi i q k / R)
template <class T, int R, bool kInverse>
inline void small_transform(Complex<T>* x) {
  if constexpr (R == 2) {
    const Complex<T> a = x[0], b = x[1];
    x[0] = a + b, x[1] = a - b;
  } else if constexpr (R == 4) {
    const Complex<T> even = x[0] + x[2], odd = x[1] + x[3], a = x[0] - x[2], b = (x[1] - x[3]).times_i();
    x[0] = even + odd, x[2] = even - odd;
    x[kInverse ? 3 : 1] = a + b, x[kInverse ? 1 : 3] = a - b;
  } else {
    Complex<T> sums[R];
    for (int k = 0; k < R; ++k) {
      sums[k] = x[0];
      for (int q = 1; q < R; ++q) {
        const int p = q * k % R;
        sums[k] = sums[k] + x[q].times(Roots<T, R>::re[p], kInverse ? -Roots<T, R>::im[p] : Roots<T, R>::im[p]);
      }
    }
    for (int k = 0; k < R; ++k) x[k] = sums[k];
  }
}

// Divide each of these nodes of R m coefficients, or put it together again (R times as large).
template <class T, int R, bool kInverse>
void stage_of(Complex<T>* z, Index nodes, Index m, const T* twiddles) {
  for (Index node = 0; node < nodes; ++node, z += R * m, twiddles += 2 * (R - 1)) {
    T re[R], im[R];
    for (int q = 1; q < R; ++q) {
      re[q] = twiddles[2 * q - 2];
      im[q] = kInverse ? -twiddles[2 * q - 1] : twiddles[2 * q - 1];
    }
    for (Index j = 0; j < m; ++j) {
      Complex<T> x[R];
      for (int q = 0; q < R; ++q) x[q] = z[j + q * m];
      if constexpr (!kInverse) {
        for (int q = 1; q < R; ++q) x[q] = x[q].times(re[q], im[q]);
      }
      small_transform<T, R, kInverse>(x);
      if constexpr (kInverse) {
        for (int q = 1; q < R; ++q) x[q] = x[q].times(re[q], im[q]);
      }
      for (int q = 0; q < R; ++q) z[j + q * m] = x[q];
    }
  }
}

template <class T, bool kInverse>
void stage(const Plan& plan, Index number, Index first, Complex<T>* z, Index nodes, Index m) {
  const Index radix = plan.radices[number];
  const T* twiddles = static_cast<const T*>(plan.twiddles[number]) + 2 * (radix - 1) * first;
  switch (radix) {
    case 2: return stage_of<T, 2, kInverse>(z, nodes, m, twiddles);
    case 3: return stage_of<T, 3, kInverse>(z, nodes, m, twiddles);
    case 4: return stage_of<T, 4, kInverse>(z, nodes, m, twiddles);
    default: return stage_of<T, 5, kInverse>(z, nodes, m, twiddles);
  }
}

// All stages from ``number`` on of one node of n coefficients: one branch after the other until a node is near.
template <class T>
void forward(const Plan& plan, Complex<T>* z, Index n, Index number = 0, Index node = 0) {
  if (n * sizeof(Complex<T>) > kNear && number < plan.stages) {
    const Index radix = plan.radices[number], m = n / radix;
    stage<T, false>(plan, number, node, z, 1, m);
    for (Index k = 0; k < radix; ++k) forward(plan, z + k * m, m, number + 1, node * radix + k);
    return;
  }
  for (Index nodes = 1; number < plan.stages; ++number) {
    const Index radix = plan.radices[number];
    n /= radix;
    stage<T, false>(plan, number, node, z, nodes, n);
    nodes *= radix, node *= radix;
  }
}

// The way back, M times as large.
template <class T>
void inverse(const Plan& plan, Complex<T>* z, Index n, Index number = 0, Index node = 0) {
  if (n * sizeof(Complex<T>) > kNear && number < plan.stages) {
    const Index radix = plan.radices[number], m = n / radix;
    for (Index k = 0; k < radix; ++k) inverse(plan, z + k * m, m, number + 1, node * radix + k);
    stage<T, true>(plan, number, node, z, 1, m);
    return;
  }
  Index nodes = 1;
  for (Index s = number; s < plan.stages; ++s) nodes *= plan.radices[s], node *= plan.radices[s];
  Index m = n / nodes;
  for (Index s = plan.stages; s-- > number; m *= plan.radices[s]) {
    nodes /= plan.radices[s], node /= plan.radices[s];
    stage<T, true>(plan, s, node, z, nodes, m);
  }
}

// The features of one vector.
template <class T>
struct Block {
  const Sizes& sizes;
  const Plan& plan;
  Index first, features;

  Block(const Sizes& sizes, const Plan& plan, Index number)
      : sizes(sizes), plan(plan), first(number * Lanes<T>::kWidth),
        features(std::min(Lanes<T>::kWidth, sizes.features - first)) {}

  // Sequences of ``length`` steps into the ring from position ``ahead`` on, zeros elsewhere; and transformed.
  void load(Complex<T>* z, const Signal& signal, Index row, Index channel, Index length, Index ahead) const {
    constexpr Index width = Lanes<T>::kWidth;
    const T* x = at(signal, row, channel);
    T* room = reinterpret_cast<T*>(z);
    for (Index half = 0; half < 2; ++half) {
      for (Index j = 0; j < plan.size; ++j) {
        const Index t = j + half * plan.size - ahead;
        T* lanes = room + (2 * j + half) * width;
        if (t < 0 || t >= length) {
          std::memset(lanes, 0, width * sizeof(T));
        } else if (signal.by_feature == 1 && features == width) {
          std::memcpy(lanes, x + t * signal.by_step, width * sizeof(T));
        } else {
          for (Index h = 0; h < width; ++h) lanes[h] = h < features ? x[h * signal.by_feature + t * signal.by_step] : 0;
        }
      }
    }
    forward(plan, z, plan.size);
  }

  // The way back: ``length`` steps from position ``ahead`` on.
  void store(Complex<T>* z, const Signal& signal, Index row, Index channel, Index length, Index ahead) const {
    constexpr Index width = Lanes<T>::kWidth;
    inverse(plan, z, plan.size);
    T* x = at(signal, row, channel);
    const T* room = reinterpret_cast<const T*>(z);
    for (Index t = 0; t < length; ++t) {
      const Index position = t + ahead;
      const T* lanes = room + (position < plan.size ? 2 * position : 2 * (position - plan.size) + 1) * width;
      if (signal.by_feature == 1 && features == width) {
        std::memcpy(x + t * signal.by_step, lanes, width * sizeof(T));
      } else {
        for (Index h = 0; h < features; ++h) x[h * signal.by_feature + t * signal.by_step] = lanes[h];
      }
    }
  }

  // (C, M) transforms of the kernels, divided by M for the way back
  void kernels(Complex<T>* z, const Signal& k) const {
    for (Index c = 0; c < sizes.channels; ++c, z += plan.size) {
      load(z, k, 0, c, sizes.lags, 0);
      for (Index j = 0; j < plan.size; ++j) z[j] = z[j].times(T(1) / plan.size, T(0));
    }
  }

  T* at(const Signal& signal, Index row, Index channel) const {
    return static_cast<T*>(signal.data) + row * signal.by_row + channel * signal.by_channel + first * signal.by_feature;
  }
};

// work(thread, block, part) for all blocks of features and parts of the batch.
template <class T, class Work>
void for_each_piece(const Sizes& sizes, const Plan& plan, Work work) {
  const Index pieces = blocks_of<T>(sizes) * sizes.parts;
  std::atomic<Index> next_piece{0}, next_thread{0};
  auto loop = [&] {
    const Index thread = next_thread++;
    for (Index piece; (piece = next_piece++) < pieces;) {
      work(thread, Block<T>(sizes, plan, piece / sizes.parts), piece % sizes.parts);
    }
  };
  if (sizes.threads > 1 && sizes.team) {
    return sizes.team([](void* data) { (*static_cast<decltype(loop)*>(data))(); }, &loop, sizes.threads, 0);
  }
  std::vector<std::thread> others;
  try {
    for (Index thread = 1; thread < sizes.threads; ++thread) others.emplace_back(std::ref(loop));
  } catch (const std::system_error&) {
    // the system has no more threads: those that are there do it
  }
  loop();
  for (std::thread& other : others) other.join();
}

template <class T>
void transform(const Sizes& sizes, const Plan& plan, const Signal& k, Complex<T>* kernels) {
  for (Index block = 0; block < blocks_of<T>(sizes); ++block) {
    Block<T>(sizes, plan, block).kernels(kernels + block * sizes.channels * plan.size, k);
  }
}

// ``room``: of each thread (C + 2) M coefficients.
template <class T>
void convolve(const Sizes& sizes, const Plan& plan, const Signal& u, const Signal& k, const Signal& y,
              const Complex<T>* known, Complex<T>* room) {
  const Index size = plan.size, channels = sizes.channels;
  for_each_piece<T>(sizes, plan, [&](Index thread, const Block<T>& block, Index part) {
    Complex<T>* input = room + thread * (channels + 2) * size;
    Complex<T>*product = input + (channels > 1 ? size : 0), *own = input + 2 * size;
    const Complex<T>* kernels = own;
    if (known) {
      kernels = known + block.first / Lanes<T>::kWidth * channels * size;
    } else {
      block.kernels(own, k);
    }
    for (Index b = sizes.batch * part / sizes.parts; b < sizes.batch * (part + 1) / sizes.parts; ++b) {
      block.load(input, u, b, 0, sizes.steps, 0);
      for (Index c = 0; c < channels; ++c) {
        for (Index j = 0; j < size; ++j) product[j] = input[j] * kernels[c * size + j];
        block.store(product, y, b, c, sizes.steps, sizes.ahead);
      }
    }
  });
}

// ``room``: of each thread (2 C + 3) M coefficients.
template <class T>
void gradients(const Sizes& sizes, const Plan& plan, const Signal& g, const Signal& u, const Signal& k,
               const Signal& by_u, const Signal& by_k, Complex<T>* room) {
  const bool of_input = by_u.data, of_kernel = by_k.data;
  const Index size = plan.size, channels = sizes.channels;
  for_each_piece<T>(sizes, plan, [&](Index thread, const Block<T>& block, Index part) {
    Complex<T>* input = room + thread * (2 * channels + 3) * size;
    Complex<T>*weights = input + size, *sum = weights + (channels > 1 ? size : 0);
    Complex<T>*kernels = input + 3 * size, *moments = kernels + channels * size;
    if (of_input) block.kernels(kernels, k);
    if (of_kernel) std::memset(static_cast<void*>(moments), 0, channels * size * sizeof(Complex<T>));
    for (Index b = sizes.batch * part / sizes.parts; b < sizes.batch * (part + 1) / sizes.parts; ++b) {
      if (of_kernel) block.load(input, u, b, 0, sizes.steps, 0);
      for (Index c = 0; c < channels; ++c) {
        block.load(weights, g, b, c, sizes.steps, sizes.ahead);
        for (Index j = 0; j < size && of_kernel; ++j) {
          moments[c * size + j] = moments[c * size + j] + weights[j] * input[j].conjugate();
        }
        for (Index j = 0; j < size && of_input; ++j) {
          const Complex<T> product = weights[j] * kernels[c * size + j].conjugate();
          sum[j] = c == 0 ? product : sum[j] + product;
        }
      }
      if (of_input) block.store(sum, by_u, b, 0, sizes.steps, 0);
    }
    for (Index c = 0; c < channels && of_kernel; ++c) {
      Complex<T>* moment = moments + c * size;
      for (Index j = 0; j < size; ++j) moment[j] = moment[j].times(T(1) / size, T(0));
      block.store(moment, by_k, part, c, sizes.lags, 0);
    }
  });
}

}  // namespace

#define INTERFACE(NAME, T)                                                                                          \
  extern "C" void transform_##NAME(const Sizes* sizes, const Plan* plan, const Signal* k, void* kernels) {          \
    transform(*sizes, *plan, *k, static_cast<Complex<T>*>(kernels));                                                \
  }                                                                                                                 \
  extern "C" void convolve_##NAME(const Sizes* sizes, const Plan* plan, const Signal* u, const Signal* k,           \
                                  const Signal* y, const void* kernels, void* room) {                               \
    convolve(*sizes, *plan, *u, *k, *y, static_cast<const Complex<T>*>(kernels), static_cast<Complex<T>*>(room));   \
  }                                                                                                                 \
  extern "C" void gradients_##NAME(const Sizes* sizes, const Plan* plan, const Signal* g, const Signal* u,          \
                                   const Signal* k, const Signal* by_u, const Signal* by_k, void* room) {           \
    gradients(*sizes, *plan, *g, *u, *k, *by_u, *by_k, static_cast<Complex<T>*>(room));                             \
  }

INTERFACE(float32, float)
INTERFACE(float64, double)
