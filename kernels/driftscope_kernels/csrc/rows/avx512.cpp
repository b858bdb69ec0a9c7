// The row kernels with AVX-512.
#include "rows.h"

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
#include "kernels.h"
#include "rotary.h"
#include "logprob.h"
bool available() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
}  // namespace
extern const RowKernels rows_avx512 = {"avx512",
#include "table.h"
};
}  // namespace driftscope
#endif
