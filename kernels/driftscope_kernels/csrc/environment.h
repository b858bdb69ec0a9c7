// The arithmetic of the contract whatever the caller has set: nearest even, gradual underflow, exceptions masked.
// In an unnamed namespace: a file built for one instruction set must not lend its code to the others.
#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace driftscope {
namespace {

#if defined(__x86_64__)
constexpr unsigned kMxcsr = 0x1f80;
constexpr unsigned kMxcsrFlush = kMxcsr | 0x8040;  // flush results to zero, read subnormals as zero

struct Environment {
  unsigned saved = _mm_getcsr();
  Environment() { _mm_setcsr(kMxcsr); }
  ~Environment() { _mm_setcsr(saved); }
};
#else
struct Environment {
  Environment() {}
  ~Environment() {}
};
#endif

}  // namespace
}  // namespace driftscope
