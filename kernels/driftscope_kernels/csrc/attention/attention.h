// What the attention files share: one problem, and one entry per instruction set. Nothing here includes torch.
#pragma once

#include <cstdint>

#include "dtype.h"

namespace driftscope {

// Keys per tile, counted from position 0 of the sequence: KV_TILE of reference/attention.py.
constexpr int64_t kTile = 64;
constexpr int64_t kMostHeadSize = 256;

// Keys or values: strides in elements. Without pages a sequence is one run of tokens.
struct AttentionCache {
  const void* data;
  int64_t page, token, head, element;
};

struct AttentionProblem {
  Dtype dtype;
  int64_t heads, kv_heads, head_size;
  const void* q;  // [tokens, heads, head_size], elements of a head side by side
  int64_t q_token, q_head;
  AttentionCache k, v;
  const int64_t* query_starts;  // [sequences + 1]
  const int64_t* key_starts;    // [sequences + 1], in tokens; used without a table
  const int64_t* lengths;       // [sequences]
  const int32_t* table;         // [sequences, table_stride] pages, or null
  int64_t table_stride, page_size;
  float scale, soft_cap;  // no soft cap: 0
  int64_t window;         // no window: longer than any sequence
  bool round_probabilities;
  void* out;  // [tokens, heads, head_size] contiguous
};

// Queries begin..end of one sequence for the query heads of one key head.
struct AttentionItem {
  int64_t sequence, kv_head, begin, end;
};

struct AttentionGradients {
  const void* dy;  // [tokens, heads, head_size] contiguous, as dq
  void *dq, *dk, *dv;
  float* statistics;  // [tokens, heads, 3]: shift, 1 / sum, projection
};

struct AttentionKernels {
  const char* name;
  bool (*available)();
  int64_t (*workspace)(int64_t rows);  // floats that one thread needs for items of so many rows
  void (*forward)(const AttentionProblem&, const AttentionItem&, float* workspace);
  // Queries of one item: dq, and the statistics that `backward_keys` needs.
  void (*backward_queries)(const AttentionProblem&, const AttentionGradients&, const AttentionItem&, float* workspace);
  // Keys begin..end (one tile) of one sequence: dk and dv, over all queries of the sequence in order.
  void (*backward_keys)(const AttentionProblem&, const AttentionGradients&, const AttentionItem&, float* workspace);
};

extern const AttentionKernels attention_avx512, attention_avx2, attention_scalar;

}  // namespace driftscope
