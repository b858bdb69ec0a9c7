// Matrix products in plain C++, for processors without the vector instructions of the other files.
#include "environment.h"
#include "gemm.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

namespace driftscope {
namespace {

#include "half.h"

inline int64_t smaller(int64_t x, int64_t y) { return x < y ? x : y; }
template <class B>
using Micro = void (*)(const uint32_t*, const char*, int64_t, int64_t, float*, bool, const char*, int64_t);

inline float from_bits(uint32_t u) {
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}
inline uint32_t to_bits(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return u;
}

constexpr float kSmallestNormal = 0x1p-126f;
// What rounds, to 24 bits with the exponent unbounded, to less than the smallest normal number.
constexpr double kTiny = 0x1p-126 - 0x1p-151;

inline float flushed(float x) { return std::fabs(x) < kSmallestNormal ? std::copysign(0.0f, x) : x; }

// One of the two steps of VDPBF16PS. The float64 sum is exact wherever the flush is in doubt.
inline float flushing_fma(float a, float b, float c) {
  a = flushed(a), b = flushed(b), c = flushed(c);
  const float sum = std::fma(a, b, c);
  if (std::fabs(sum) > kSmallestNormal || std::isnan(sum)) return sum;
  const double exact = static_cast<double>(a) * b + c;
  return std::fabs(exact) < kTiny ? std::copysign(0.0f, sum) : sum;
}

struct Single {
  static constexpr int64_t step_bytes = 128;
  static float add(uint32_t a, const char* b, int64_t j, float sum) {
    return std::fma(from_bits(a), from_bits(reinterpret_cast<const uint32_t*>(b)[j]), sum);
  }
};

struct Half {
  static constexpr int64_t step_bytes = 64;
  static float add(uint32_t a, const char* b, int64_t j, float sum) {
    const uint16_t half = reinterpret_cast<const uint16_t*>(b)[j];
    return std::fma(from_bits(a), from_bits(half_bits_to_single(half)), sum);
  }
};

struct Pairs {
  static constexpr int64_t step_bytes = 128;
  static float add(uint32_t a, const char* b, int64_t j, float sum) {
    const uint32_t w = reinterpret_cast<const uint32_t*>(b)[j];
    sum = flushing_fma(from_bits(a & 0xffff0000u), from_bits(w & 0xffff0000u), sum);
    return flushing_fma(from_bits(a << 16), from_bits(w << 16), sum);
  }
};

template <class B, int Rows>
void tile(const uint32_t* a, const char* b, int64_t, int64_t steps, float* c, bool resume, const char*, int64_t) {
  float sum[Rows][kPanel];
  for (int i = 0; i < Rows; ++i)
    for (int64_t j = 0; j < kPanel; ++j) sum[i][j] = resume ? c[i * kPanel + j] : 0.0f;
  for (int64_t k = 0; k < steps; ++k, a += Rows, b += B::step_bytes)
    for (int i = 0; i < Rows; ++i)
      for (int64_t j = 0; j < kPanel; ++j) sum[i][j] = B::add(a[i], b, j, sum[i][j]);
  std::memcpy(c, sum, sizeof sum);
}

struct Isa {
  static constexpr int64_t rows_of_four_panels = 0, rows_of_two_panels = 0;
  template <class B>
  static constexpr int64_t tile_rows() { return 4; }

  template <class B, int Panels>
  static Micro<B> micro(int64_t rows) {
    static_assert(Panels > 0);
    return rows == 4 ? tile<B, 4> : rows == 3 ? tile<B, 3> : rows == 2 ? tile<B, 2> : tile<B, 1>;
  }

  static float* allocate(int64_t count) { return static_cast<float*>(std::malloc(count * 4)); }
  static void release(float* p) { std::free(p); }

  static void widen_halves(const char* from, int64_t count, float* to) {
    for (int64_t i = 0; i < count; ++i)
      to[i] = from_bits(half_bits_to_single(reinterpret_cast<const uint16_t*>(from)[i]));
  }

#include "finish.h"
#include "gather.h"

  static void pack_rows(Dtype dtype, const void* x, int64_t stride_m, int64_t stride_k, int64_t rows, int64_t k,
                        void* to) {
    gather_rows(dtype, x, stride_m, stride_k, rows, k, to);
  }
  static void pack_panel(Dtype dtype, const WeightView& w, int64_t n, int64_t k0, int64_t count, int64_t panel,
                         void* to) {
    gather_panel(dtype, w, panel * kPanel, smaller(kPanel, n - panel * kPanel), k0, count, to);
  }
};

#include "tile.h"

bool available() { return true; }
int64_t tile_rows(Dtype) { return Isa::tile_rows<Single>(); }

}  // namespace
extern const InstructionSet scalar = {"scalar", available, tile_rows, Isa::pack_rows,
                                      Isa::pack_panel, multiply, merge, finish};
}  // namespace driftscope
