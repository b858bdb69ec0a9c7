// The row kernels with AVX2 and FMA.
#include "rows.h"

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
#include "kernels.h"
#include "rotary.h"
#include "logprob.h"
bool available() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
}  // namespace
extern const RowKernels rows_avx2 = {"avx2",
#include "table.h"
};
}  // namespace driftscope
#endif
