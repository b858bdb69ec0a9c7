// Matrix products with AVX-512 on processors without its bfloat16 instruction.
#include "environment.h"
#include "gemm.h"
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#include <immintrin.h>

namespace driftscope {
namespace {
#include "half.h"
#include "avx512.h"

bool available() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
}  // namespace
extern const InstructionSet avx512 = {"avx512", available, tile_rows, Isa::pack_rows,
                                      Isa::pack_panel, multiply, merge, finish};
}  // namespace driftscope
#endif
