// What the row-kernel files share: the problems, and one table of functions per instruction set. A row is one
// program: nothing about another row reaches it. Nothing here includes torch.
#pragma once

#include <cstdint>

#include "dtype.h"

namespace driftscope {

// A matrix whose rows are contiguous; `stride` counts elements from row to row.
struct RowsIn {
  const void* data;
  int64_t stride;
  Dtype dtype;
};
struct RowsOut {
  void* data;
  int64_t stride;
  Dtype dtype;
};

enum class Family : int { softmax = 0, log_softmax = 1, logsumexp = 2 };

struct NormOptions {
  bool round_before_weight;  // x * r is rounded to the dtype before it is multiplied by the weight
  bool read_rounded_sum;     // the norm of x + residual reads the sum rounded to the dtype
  float eps;
};

enum class RotaryArithmetic : int { fused = 0, unfused = 1, model_dtype = 2 };

// Running sums of the vocabulary tiles of one row (see reference/token_logprob.py).
struct TileState {
  float largest, total, moment, target_logit;
};

// Each function treats rows begin..end. `n` elements per row.
struct RowKernels {
  const char* name;
  bool (*available)();
  void (*family)(Family, RowsIn x, RowsOut y, int64_t n, int64_t begin, int64_t end);
  void (*family_backward)(Family, RowsIn dy, RowsIn x, RowsOut dx, int64_t n, int64_t begin, int64_t end);
  void (*sum)(RowsIn x, RowsOut y, float divisor, int64_t n, int64_t begin, int64_t end);
  void (*rms_norm)(RowsIn x, RowsIn residual, RowsIn weight, RowsOut y, RowsOut total, NormOptions, int64_t n,
                   int64_t begin, int64_t end);
  // Also leaves 1 / rms of every row in `scale`.
  void (*rms_norm_backward)(RowsIn dy, RowsIn dtotal, RowsIn x, RowsIn residual, RowsIn weight, RowsOut dx,
                            float* scale, NormOptions, int64_t n, int64_t begin, int64_t end);
  // Columns begin..end of the gradient of the weight, rows 0..rows, by blocks of `block` rows.
  void (*norm_weight_grad)(RowsIn dy, RowsIn x, RowsIn residual, const float* scale, float* dweight, NormOptions,
                           int64_t rows, int64_t block, int64_t begin, int64_t end);
  // Columns begin..end of the sum over rows 0..rows, by blocks of `block` rows.
  void (*column_sum)(RowsIn x, float* total, int64_t rows, int64_t block, int64_t begin, int64_t end);
  void (*swiglu)(RowsIn gate, RowsIn up, RowsOut y, bool round_silu, int64_t n, int64_t begin, int64_t end);
  void (*swiglu_backward)(RowsIn dy, RowsIn gate, RowsIn up, RowsOut dgate, RowsOut dup, bool round_silu, int64_t n,
                          int64_t begin, int64_t end);
  // Rows are heads; `heads` of them share a row of the tables [*, half].
  void (*rotary)(RowsIn x, RowsIn cos, RowsIn sin, RowsOut y, bool interleaved, RotaryArithmetic,
                 int64_t heads, int64_t half, int64_t n, int64_t begin, int64_t end);
  // One vocabulary tile of `n` logits from id `start` on, divided by the temperature, into the states.
  void (*logprob_tile)(RowsIn logits, float temperature, const int64_t* targets, int64_t start, TileState* states,
                       float* top_logits, int64_t* top_ids, int64_t top_k, int64_t n, int64_t begin, int64_t end);
  // log-probability and entropy from finished states.
  void (*logprob_finish)(const TileState* states, float* logprob, float* entropy, float* top, int64_t top_k,
                         int64_t begin, int64_t end);
  // (logit - largest) - log of the total, where the total goes over tiles of `tile` logits, a multiple of 16.
  void (*tiled_log_softmax)(RowsIn logits, RowsOut y, int64_t tile, int64_t n, int64_t begin, int64_t end);
  // Gradient of one tile of logits; see `_slope` of the reference.
  void (*logprob_slope)(RowsIn logits, float temperature, const int64_t* targets, int64_t start,
                        const TileState* states, const float* entropy, const float* dlogprob, const float* dentropy,
                        RowsOut slope, int64_t n, int64_t begin, int64_t end);
};

extern const RowKernels rows_avx512, rows_avx2, rows_scalar;

}  // namespace driftscope
