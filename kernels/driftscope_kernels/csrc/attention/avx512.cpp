// Attention with AVX-512.
#include "attention.h"

#if defined(__x86_64__)
#include <cstdlib>
#include <cstring>

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#include <immintrin.h>
#define DRIFTSCOPE_AVX512
namespace driftscope {
namespace {
#include "lanes.h"
#include "functions.h"

struct Machine {
  typedef __m512 Register;
  static constexpr int parts = 1, groups = 4;
  static Register zero() { return _mm512_setzero_ps(); }
  static Register all(const float* x) { return _mm512_set1_ps(*x); }
  static Register load(const float* x) { return _mm512_loadu_ps(x); }
  template <class E>
  static Register load(const char* x) {
    return (Register)E::load(reinterpret_cast<const typename E::Stored*>(x));
  }
  static void store(float* x, Register value) { _mm512_storeu_ps(x, value); }
  static Register fma(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }
};

#include "product.h"
#include "keys.h"
#include "rows.h"
#include "backward.h"

bool available() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
}  // namespace
extern const AttentionKernels attention_avx512 = {"avx512", available, workspace_floats,
                                                  forward, backward_queries, backward_keys};
}  // namespace driftscope
#endif
