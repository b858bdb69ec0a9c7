// Matrix products with AVX2 and FMA: 4 rows by 16 columns in registers, a panel in two halves.
#include "environment.h"
#include "gemm.h"
#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
#include <immintrin.h>

namespace driftscope {
namespace {
#include "half.h"

inline int64_t smaller(int64_t x, int64_t y) { return x < y ? x : y; }
template <class B>
using Micro = void (*)(const uint32_t*, const char*, int64_t, int64_t, float*, bool, const char*, int64_t);

struct Single {
  static constexpr int64_t step_bytes = 128;
  static constexpr bool flush = false;
  static __m256 load(const char* b) { return _mm256_loadu_ps(reinterpret_cast<const float*>(b)); }
  static __m256 add(__m256 a, __m256 b, __m256 sum) { return _mm256_fmadd_ps(a, b, sum); }
};

struct Half : Single {
  static constexpr int64_t step_bytes = 64;
  static __m256 load(const char* b) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b)));
  }
};

// What VDPBF16PS computes: odd element, then even, each fused, subnormals flushed (MXCSR).
struct Pairs : Single {
  static constexpr bool flush = true;
  static __m256 odd(__m256 x) {
    return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  static __m256 even(__m256 x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 16)); }
  static __m256 add(__m256 a, __m256 b, __m256 sum) {
    return _mm256_fmadd_ps(even(a), even(b), _mm256_fmadd_ps(odd(a), odd(b), sum));
  }
};

// 16 columns of one panel: c [Rows][32] from its column on.
template <class B, int Rows>
__attribute__((noinline)) void half_tile(const uint32_t* a, const char* b, int64_t steps, float* c, bool resume) {
  __m256 sum[Rows][2];
#pragma GCC unroll 4
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) sum[i][v] = resume ? _mm256_loadu_ps(c + i * 32 + v * 8) : _mm256_setzero_ps();
  if (B::flush) _mm_setcsr(kMxcsrFlush);
  for (int64_t k = 0; k < steps; ++k, a += Rows, b += B::step_bytes) {
    const __m256 w[2] = {B::load(b), B::load(b + B::step_bytes / 4)};
#pragma GCC unroll 4
    for (int i = 0; i < Rows; ++i) {
      const __m256 x = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(a[i])));
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) sum[i][v] = B::add(x, w[v], sum[i][v]);
    }
  }
  if (B::flush) _mm_setcsr(kMxcsr);
#pragma GCC unroll 4
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) _mm256_storeu_ps(c + i * 32 + v * 8, sum[i][v]);
}

template <class B, int Rows>
void tile(const uint32_t* a, const char* b, int64_t, int64_t steps, float* c, bool resume, const char*, int64_t) {
  half_tile<B, Rows>(a, b, steps, c, resume);
  half_tile<B, Rows>(a, b + B::step_bytes / 2, steps, c + 16, resume);
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

  static float* allocate(int64_t count) { return static_cast<float*>(_mm_malloc(count * 4, 64)); }
  static void release(float* p) { _mm_free(p); }

  static void widen_halves(const char* from, int64_t count, float* to) {
    for (int64_t i = 0; i < count; i += 8) _mm256_storeu_ps(to + i, Half::load(from + 2 * i));
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

bool available() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
int64_t tile_rows(Dtype) { return Isa::tile_rows<Single>(); }
}  // namespace
extern const InstructionSet avx2 = {"avx2", available, tile_rows, Isa::pack_rows,
                                    Isa::pack_panel, multiply, merge, finish};
}  // namespace driftscope
#endif
