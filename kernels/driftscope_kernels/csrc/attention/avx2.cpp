// Attention with AVX2 and FMA.
#include "attention.h"

#if defined(__x86_64__)
#include <cstdlib>
#include <cstring>

#pragma GCC target("avx2,fma,f16c")
#include <immintrin.h>
#define DRIFTSCOPE_AVX2
namespace driftscope {
namespace {
#include "lanes.h"
#include "functions.h"

struct Machine {
  typedef __m256 Register;
  static constexpr int parts = 2, groups = 1;
  static Register zero() { return _mm256_setzero_ps(); }
  static Register all(const float* x) { return _mm256_set1_ps(*x); }
  static Register load(const float* x) { return _mm256_loadu_ps(x); }
  template <class E>
  static Register load(const char* x) {
    if constexpr (sizeof(typename E::Stored) == 4) {
      return _mm256_loadu_ps(reinterpret_cast<const float*>(x));
    } else {
      const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
      if constexpr (is_half<E>) return _mm256_cvtph_ps(halves);
      else return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
    }
  }
  static void store(float* x, Register value) { _mm256_storeu_ps(x, value); }
  static Register fma(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }

 private:
  template <class E>
  static constexpr bool is_half = false;
};
template <>
constexpr bool Machine::is_half<Half> = true;

#include "product.h"
#include "keys.h"
#include "rows.h"
#include "backward.h"

bool available() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
}  // namespace
extern const AttentionKernels attention_avx2 = {"avx2", available, workspace_floats,
                                                forward, backward_queries, backward_keys};
}  // namespace driftscope
#endif
