// Attention in plain C++, for processors without the vector instructions of the other files.
#include "attention.h"

#include <cstdlib>
#include <cstring>

namespace driftscope {
namespace {
#include "half.h"
#include "lanes.h"
#include "functions.h"

struct Machine {
  typedef Lanes Register;
  static constexpr int parts = 1, groups = 1;
  static Register zero() { return Lanes{}; }
  static Register all(const float* x) {  // not 0 + x: -0 stays
    Lanes y;
    for (int i = 0; i < kLanes; ++i) y[i] = *x;
    return y;
  }
  static Register load(const float* x) { return Single::load(x); }
  template <class E>
  static Register load(const char* x) {
    return E::load(reinterpret_cast<const typename E::Stored*>(x));
  }
  static void store(float* x, Register value) { std::memcpy(x, &value, sizeof value); }
  static Register fma(Register a, Register b, Register c) { return driftscope::fma(a, b, c); }
};

#include "product.h"
#include "keys.h"
#include "rows.h"
#include "backward.h"

bool available() { return true; }
}  // namespace
extern const AttentionKernels attention_scalar = {"scalar", available, workspace_floats,
                                                  forward, backward_queries, backward_keys};
}  // namespace driftscope
