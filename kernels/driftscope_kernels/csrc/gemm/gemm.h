// What the matrix-product files share: the element types, one problem, and one entry per instruction set.
// Nothing here includes torch, so that the files built for one instruction set stay free of shared inline code.
#pragma once

#include <cstdint>

#include "dtype.h"

namespace driftscope {

// Columns (output features) side by side in one packed panel: two 16-lane registers.
constexpr int64_t kPanel = 32;

// One weight [n, k] with strides in elements, as the caller holds it.
struct WeightView {
  const void* data;
  int64_t stride_n, stride_k;
};

// One problem: out[m, n] = round(bias[n] + sum over k of x[m, k] * w[n, k]).
// `steps` counts along k: one element each in f32 and f16, one pair in bf16.
struct Gemm {
  Dtype dtype;
  int64_t m, n, k, steps;
  const void* a;         // rows packed by pack_rows, tile after tile
  const void* packed;    // panels packed by pack_panel, or null: then `weight` is packed block by block
  WeightView weight;
  const float* bias;     // [n] or null
  const float* initial;  // [m, n] that the accumulators start from, or null for +0
  void* out;             // [m, n], rows `out_stride` elements apart
  Dtype out_dtype;
  int64_t out_stride;
};

struct InstructionSet {
  const char* name;
  bool (*available)();
  int64_t (*tile_rows)(Dtype);
  // Rows [rows, k] with strides -> [steps][rows] of 32-bit values (f32; f16 widened; bf16 pairs).
  void (*pack_rows)(Dtype, const void* x, int64_t stride_m, int64_t stride_k, int64_t rows, int64_t k,
                    void* to);
  // Columns 32 * panel .. + 31 (zero from n on), `count` elements of k from k0 on -> [steps][32] (f32,
  // bf16 pairs with a zero for a missing odd element, f16).
  void (*pack_panel)(Dtype, const WeightView&, int64_t n, int64_t k0, int64_t count, int64_t panel,
                     void* to);
  // Panels p0..p1 by row tiles t0..t1, whole k.
  void (*multiply)(const Gemm&, int64_t p0, int64_t p1, int64_t t0, int64_t t1);
  // Eight segment sums of one row, `stride` floats apart, added pairwise by a fixed tree.
  void (*merge)(const float* sums, int64_t stride, int64_t count, float* to);
  // Finished float32 sums [count] of one row (+ bias) -> out.
  void (*finish)(const float* sums, const float* bias, int64_t count, Dtype out_dtype, void* out);
};

extern const InstructionSet avx512_bf16, avx512, avx2, scalar;

inline int64_t steps_of(Dtype dtype, int64_t k) { return dtype == Dtype::bf16 ? (k + 1) / 2 : k; }
// Bytes of one step of one packed panel.
inline int64_t panel_step_bytes(Dtype dtype) { return dtype == Dtype::f16 ? 64 : 128; }

}  // namespace driftscope
