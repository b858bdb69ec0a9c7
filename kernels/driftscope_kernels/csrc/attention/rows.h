// Attention of one item: the queries of one sequence that share a key head, tile after tile of keys. A row is one
// query of one head; every order of operations is that of reference/attention.py.

constexpr float kTanhThreshold = 0.625f;

inline Lanes hyperbolic_tangent(Lanes x) {
  const Lanes a = (Lanes)((Ints)x & 0x7fffffff), z = a * a;
  Lanes p = all(-0x1.75438cp-8f);
  p = fma(p, z, all(0x1.52034ep-6f));
  p = fma(p, z, all(-0x1.b836e8p-5f));
  p = fma(p, z, all(0x1.1106fcp-3f));
  p = fma(p, z, all(-0x1.555532p-2f));
  const Lanes low = fma(p * z, a, a), high = 1.0f - 2.0f / (exponential(a + a) + 1.0f);
  const Lanes size = a < kTanhThreshold ? low : high;
  return (Lanes)((Ints)size | ((Ints)x & (Ints)(Words{} + 0x80000000u)));
}

// exponential(x) for all x, which are not positive, or NaN: what bounds and cuts off from above is left out. Step by
// step over all of them: one alone is a chain of operations that wait for each other.
template <int N>
inline void exponentials_of_negative(Lanes (&x)[N]) {
  Lanes n[N], r[N], p[N];
  const auto each_of = [](auto&& step) {
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) step(i);
  };
  each_of([&](int i) { r[i] = larger(all(kExpSmallest), x[i]); });
  each_of([&](int i) { n[i] = r[i] * kLog2E + kToInteger; });
  each_of([&](int i) { n[i] = n[i] - kToInteger; });
  each_of([&](int i) { r[i] = fma(-n[i], all(kLn2High), r[i]); });
  each_of([&](int i) { r[i] = fma(-n[i], all(kLn2Low), r[i]); });
  each_of([&](int i) { p[i] = fma(all(0x1.6a23d0p-10f), r[i], all(0x1.123a20p-7f)); });
  each_of([&](int i) { p[i] = fma(p[i], r[i], all(0x1.5558f2p-5f)); });
  each_of([&](int i) { p[i] = fma(p[i], r[i], all(0x1.555492p-3f)); });
  each_of([&](int i) { p[i] = fma(p[i], r[i], all(0x1.fffffcp-2f)); });
  each_of([&](int i) { p[i] = fma(p[i], r[i], all(1.0f)); });
  each_of([&](int i) { p[i] = fma(p[i], r[i], all(1.0f)); });
  each_of([&](int i) { x[i] = x[i] < kExpSmallest ? Lanes{} : scaled(p[i], n[i]); });
}

// The largest lane; there are no NaN.
inline float largest_of(Lanes x) {
#if defined(DRIFTSCOPE_AVX512)
  return _mm512_reduce_max_ps((__m512)x);
#else
  return largest_lane(x);
#endif
}

template <class Do>
void with_dtype(Dtype dtype, Do&& run) {
  if (dtype == Dtype::f32) run(Single{});
  else if (dtype == Dtype::bf16) run(Brain{});
  else run(Half{});
}

struct Range {
  int64_t begin, end;
};

// The rows of one item: queries times the query heads of the key head.
struct Rows {
  int64_t group, count, size, padded;  // query heads; rows; head size, and that in whole groups
  int64_t position, window;            // position of the first query

  Rows(const AttentionProblem& a, const AttentionItem& item)
      : group(a.heads / a.kv_heads), count((item.end - item.begin) * group), size(a.head_size),
        padded(groups_of(size) * kGroup), window(a.window) {
    const int64_t queries = a.query_starts[item.sequence + 1] - a.query_starts[item.sequence];
    position = a.lengths[item.sequence] - queries + item.begin;
  }
  // `many` rows of another's from `first` on, which begins a query.
  Rows(const Rows& of, int64_t first, int64_t many) : Rows(of) { position += first / group, count = many; }
  // Positions that a row sees.
  Range sees(int64_t row) const { return of_query(row / group); }
  Range of_query(int64_t query) const {
    const int64_t last = position + query;
    return {more(0, last - window + 1), last + 1};
  }
  // Whether every row sees the whole tile: the first row ends first, the last begins last.
  bool all_see(int64_t tile) const { return position + 1 >= tile + kTile && sees(count - 1).begin <= tile; }
};

struct Workspace {
  float *q, *dy, *dq;               // [rows][256], [rows][256], [rows][padded]
  float *output, *lanes, *largest;  // [rows][padded], [rows][16], [rows]
  float *scores, *slopes;           // [rows][64]
  float *keys, *transposed_values;  // [head size][64]
  float *values, *key_chunks;       // [chunk][64][64]
};

// Rows of queries that the gradient of a tile of keys takes at once.
constexpr int64_t kKeyRows = 48;

// The parts of a workspace for items of at most so many rows, in turn given to take(part, floats).
template <class Take>
void divide_workspace(Workspace& w, int64_t rows, Take&& take) {
  rows = more(rows, kKeyRows);
  take(w.q, rows * kMostHeadSize), take(w.dy, rows * kMostHeadSize), take(w.dq, rows * kMostHeadSize);
  take(w.output, rows * kMostHeadSize), take(w.lanes, rows * kLanes);
  take(w.largest, groups_of(rows) * kGroup);
  take(w.scores, rows * kTile), take(w.slopes, rows * kTile);
  take(w.keys, kTile * kMostHeadSize), take(w.values, kTile * kMostHeadSize);
  take(w.key_chunks, kTile * kMostHeadSize), take(w.transposed_values, kTile * kMostHeadSize);
}

int64_t workspace_floats(int64_t rows) {
  Workspace w;
  int64_t total = 0;
  divide_workspace(w, rows, [&](float*&, int64_t count) { total += count; });
  return total;
}

Workspace divided(float* at, int64_t rows) {
  Workspace w;
  divide_workspace(w, rows, [&](float*& part, int64_t count) { part = at, at += count; });
  return w;
}

// What is kept of the rows from `first` on. The scores are of one tile only: all rows take the same place in turn.
inline Workspace of_rows(Workspace w, int64_t first, int64_t padded) {
  w.q += first * kMostHeadSize, w.output += first * padded, w.lanes += first * kLanes, w.largest += first;
  return w;
}

// Tokens lie pages apart, where the processor does not look ahead by itself.
constexpr int64_t kTokensAhead = 2;

// The rows of the item from a tensor [tokens, heads, size] with strides in elements.
template <class E>
void take_rows(const Rows& rows, const AttentionProblem& a, const AttentionItem& item, const void* data, int64_t token,
               int64_t head, float* out) {
  const int64_t start = a.query_starts[item.sequence] + item.begin;
  const auto* from = static_cast<const typename E::Stored*>(data) + start * token + item.kv_head * rows.group * head;
  for (int64_t r = 0; r < rows.count; r += rows.group, from += token)
    for (int64_t h = 0; h < rows.group; ++h, out += kMostHeadSize)
      each(rows.size, [&](int64_t d, auto part) {
        __builtin_prefetch(from + kTokensAhead * token + h * head + d);
        const Lanes x = at<E>(from + h * head, d, part);
        std::memcpy(out + d, &x, sizeof x);
      });
}

// The way back, [tokens, heads, size] contiguous; change(row) gives the function of what lies in that row.
template <class E, class Change>
void put_rows(const Rows& rows, const AttentionProblem& a, const AttentionItem& item, const float* from, void* data,
              Change&& change) {
  const int64_t start = a.query_starts[item.sequence] + item.begin, token = a.heads * rows.size;
  auto* to = static_cast<typename E::Stored*>(data) + start * token + item.kv_head * rows.group * rows.size;
  for (int64_t r = 0; r < rows.count; r += rows.group, to += token)
    for (int64_t h = 0; h < rows.group; ++h, from += rows.padded) {
      const auto changed = change(r + h);
      each(rows.size, [&](int64_t d, auto part) {
        __builtin_prefetch(to + kTokensAhead * token + h * rows.size + d, 1);
        put<E>(to + h * rows.size, d, part, changed(Single::load(from + d)));
      });
    }
}

// run(row, count, begin, end): the steps that all rows share by all at once, the others by rows alike, ascending.
template <class Run>
void over_steps(int64_t rows, const Range* steps, Run&& run) {
  Range shared = steps[0];
  for (int64_t i = 1; i < rows; ++i)
    shared = {more(shared.begin, steps[i].begin), fewer(shared.end, steps[i].end)};
  const bool any = shared.begin < shared.end;
  const auto by_rows_alike = [&](auto&& part) {
    for (int64_t i = 0, next; i < rows; i = next) {
      const Range range = part(steps[i]);
      for (next = i + 1; next < rows && steps[next].begin == steps[i].begin && steps[next].end == steps[i].end;) ++next;
      if (range.begin < range.end) run(i, next - i, range.begin, range.end);
    }
  };
  by_rows_alike([&](Range all) { return Range{all.begin, any ? shared.begin : all.end}; });
  if (!any) return;
  run(int64_t{0}, rows, shared.begin, shared.end);
  by_rows_alike([&](Range all) { return Range{shared.end, all.end}; });
}

inline Range clipped(Range seen, int64_t tile) {
  return {more(seen.begin - tile, 0), fewer(seen.end - tile, kTile)};
}

// What the rows of one register tile see of one tile of keys, in places of the tile.
struct Seen {
  int64_t row, count;  // of the item
  Range rows[kRows];
  Range any;  // from the first place that a row sees to the last

  Seen(const Rows& item, int64_t row, int64_t tile)
      : row(row), count(fewer(kRows, item.count - row)), any{kTile, 0} {
    int64_t query = row / item.group, head = row % item.group;
    for (int64_t i = 0; i < count; ++i) {
      rows[i] = clipped(item.of_query(query), tile);
      if (rows[i].begin < rows[i].end) any = {fewer(any.begin, rows[i].begin), more(any.end, rows[i].end)};
      if (++head == item.group) head = 0, ++query;
    }
  }
  // Rows that all see the whole tile.
  Seen(int64_t row, int64_t count) : row(row), count(count), any{0, kTile} {
    for (int64_t i = 0; i < count; ++i) rows[i] = any;
  }
  bool nothing() const { return any.begin >= any.end; }
};

template <class Do>
void each_register_tile(const Rows& rows, int64_t tile, Do&& run) {
  if (rows.all_see(tile))
    for (int64_t r = 0; r < rows.count; r += kRows) run(Seen(r, fewer(kRows, rows.count - r)));
  else
    for (int64_t r = 0; r < rows.count; r += kRows) {
      const Seen seen(rows, r, tile);
      if (!seen.nothing()) run(seen);
    }
}

// out [rows][out_row] += weights [rows][64] times rows `from` on that each row sees, `columns` columns.
inline void add_copied(const Seen& seen, const float* weights, const float* copied, int64_t columns, float* out,
                       int64_t out_row) {
  over_steps(seen.count, seen.rows, [&](int64_t row, int64_t together, int64_t begin, int64_t end) {
    const char* b = reinterpret_cast<const char*>(copied + begin * kChunk);
    product_rows<Single, Weights>(together, groups_of(columns), weights + row * kTile + begin, b, kChunk * 4,
                                  end - begin, out + row * out_row, out_row, true);
  });
}

// All rows of the item times one tile that `copy_chunks` made, chunk after chunk.
inline void add_chunks(const Rows& rows, int64_t tile, const float* weights, const float* chunks, float* out) {
  for (int64_t d = 0; d < rows.padded; d += kChunk)
    each_register_tile(rows, tile, [&](const Seen& seen) {
      add_copied(seen, weights + seen.row * kTile, chunks + d * kTile, fewer(kChunk, rows.padded - d),
                 out + seen.row * rows.padded + d, rows.padded);
    });
}

// Products of all rows of the item with the transposed copy of one tile, for the groups that are seen.
inline void multiply_copied(const Rows& rows, int64_t tile, const float* q, const float* copied, float* scores) {
  for (int64_t d = 0; d < rows.size; d += kChunk)
    each_register_tile(rows, tile, [&](const Seen& seen) {
      const int64_t first = seen.any.begin / kGroup * kGroup;
      const char* b = reinterpret_cast<const char*>(copied + d * kTile + first);
      product_rows<Single, Queries>(seen.count, groups_of(seen.any.end - first), q + seen.row * kMostHeadSize + d, b,
                                    kTile * 4, fewer(kChunk, rows.size - d), scores + seen.row * kTile + first, kTile,
                                    d > 0);
    });
}

// The same, keys read as they lie.
template <class E>
void multiply_in_place(const Rows& rows, int64_t tile, const float* q, const Tokens<E>& keys, float* scores) {
  each_register_tile(rows, tile, [&](const Seen& seen) {
    const int64_t first = seen.any.begin / kGroup, groups = groups_of(seen.any.end) - first;
    const char* b[kTile / kGroup];
    for (int64_t g = 0; g < groups; ++g) b[g] = reinterpret_cast<const char*>(keys.at(tile + (first + g) * kGroup));
    const int64_t step = keys.cache.element * int64_t{sizeof(typename E::Stored)};
    product<E, Queries>(seen.count, groups, q + seen.row * kMostHeadSize, b, step, rows.size,
                        scores + seen.row * kTile + first * kGroup, kTile, false);
  });
}

template <class E>
void add_in_place(const Rows& rows, int64_t tile, const float* weights, const Tokens<E>& values, float* out) {
  const int64_t step = values.cache.token * int64_t{sizeof(typename E::Stored)};
  each_register_tile(rows, tile, [&](const Seen& seen) {
    over_steps(seen.count, seen.rows, [&](int64_t row, int64_t together, int64_t begin, int64_t end) {
      for (int64_t next; begin < end; begin = next) {
        next = values.run(tile + begin, tile + end) - tile;
        const char* b = reinterpret_cast<const char*>(values.at(tile + begin));
        product_rows<E, Weights>(together, rows.padded / kGroup, weights + (seen.row + row) * kTile + begin, b, step,
                                 next - begin, out + (seen.row + row) * rows.padded, rows.padded, true);
      }
    });
  });
}

inline Lanes score_of(Lanes product, const AttentionProblem& a) {
  const Lanes scaled = product * a.scale;
  return a.soft_cap ? a.soft_cap * hyperbolic_tangent(scaled / a.soft_cap) : scaled;
}

// x where the places from `place` on are seen, `rest` elsewhere.
inline Lanes seen_only(Lanes x, Range seen, int64_t place, Lanes rest) {
#if defined(DRIFTSCOPE_AVX512)
  const auto below = [&](int64_t end) { return (1u << fewer(more(end - place, 0), kGroup)) - 1; };
  const auto mask = static_cast<__mmask16>(below(seen.end) & ~below(seen.begin));
  return (Lanes)_mm512_mask_mov_ps((__m512)rest, mask, (__m512)x);
#else
  const Ints at = Ints{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + static_cast<int32_t>(place);
  return (at < static_cast<int32_t>(seen.begin)) | (at >= static_cast<int32_t>(seen.end)) ? rest : x;
#endif
}

// Rows whose running softmax goes on together: one lane each.
constexpr int64_t kTogether = kLanes;

struct Together {
  int64_t row, count;  // of the item
  Range seen[kTogether];
};

// The products of one row become scores; the largest of them.
template <bool Whole>
float score_row(const AttentionProblem& a, Range seen, float* scores) {
  const int64_t first = Whole ? 0 : seen.begin / kGroup, end = Whole ? kTile / kGroup : groups_of(seen.end);
  Lanes most = all(-__builtin_inff());
#pragma GCC unroll 4
  for (int64_t g = first; g < end; ++g) {
    Lanes x = score_of(Single::load(scores + g * kGroup), a);
    if (!Whole) x = seen_only(x, seen, g * kGroup, all(-__builtin_inff()));
    std::memcpy(scores + g * kGroup, &x, sizeof x);
    most = larger(x, most);
  }
  return largest_of(most);
}

// The scores of one row become exponentials, which are added to its lanes: of groups g to g + N - 1.
template <class E, bool Whole, int N>
Lanes exponentials(bool round, Range seen, float shift, int64_t g, float* scores, Lanes sum) {
  Lanes x[N];
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) x[i] = Single::load(scores + (g + i) * kGroup) - shift;
  exponentials_of_negative(x);
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    Lanes term = Whole ? x[i] : seen_only(x[i], seen, (g + i) * kGroup, Lanes{});
    sum = sum + term;
    if (round) term = E::rounded(term);
    std::memcpy(scores + (g + i) * kGroup, &term, sizeof term);
  }
  return sum;
}

template <class E>
void exponentials_of_row(bool round, Range seen, float shift, float* scores, float* lanes) {
  Lanes sum = Single::load(lanes);
  if (seen.begin == 0 && seen.end == kTile) {
    sum = exponentials<E, true, kTile / kGroup>(round, seen, shift, 0, scores, sum);
  } else {
    int64_t g = seen.begin / kGroup;
    const int64_t end = groups_of(seen.end);
    for (; g + 2 <= end; g += 2) sum = exponentials<E, false, 2>(round, seen, shift, g, scores, sum);
    if (g < end) sum = exponentials<E, false, 1>(round, seen, shift, g, scores, sum);
  }
  std::memcpy(lanes, &sum, sizeof sum);
}

inline void scale_row(float decay, float* row, int64_t size) {
  for (int64_t d = 0; d < size; d += kLanes) {
    const Lanes x = Single::load(row + d) * decay;
    std::memcpy(row + d, &x, sizeof x);
  }
}

// One tile: products in `scores` become exponentials, the running softmax of these rows goes on. Step by step for all
// of them, not row by row: the largest score of a row is a long wait, in which the others are computed.
template <class E>
void soften(const AttentionProblem& a, const Together& rows, const Workspace& w, int64_t padded) {
  const auto whole = [](Range seen) { return seen.begin == 0 && seen.end == kTile; };
  float most[kTogether], shift[kTogether], decay[kTogether];
  for (int64_t i = 0; i < kTogether; ++i) most[i] = -__builtin_inff();
  for (int64_t i = 0; i < rows.count; ++i) {
    const Range seen = rows.seen[i];
    float* scores = w.scores + (rows.row + i) * kTile;
    if (whole(seen)) most[i] = score_row<true>(a, seen, scores);
    else if (seen.begin < seen.end) most[i] = score_row<false>(a, seen, scores);
  }
  const Lanes before = Single::load(w.largest + rows.row), now = larger(Single::load(most), before);
  const Lanes shifts = now == all(-__builtin_inff()) ? Lanes{} : now, decays = exponential(before - shifts);
  std::memcpy(shift, &shifts, sizeof shift), std::memcpy(decay, &decays, sizeof decay);
  for (int64_t i = 0; i < rows.count; ++i) {
    const int64_t row = rows.row + i;
    if (!(most[i] > w.largest[row])) continue;
    scale_row(decay[i], w.lanes + row * kLanes, kLanes), scale_row(decay[i], w.output + row * padded, padded);
    w.largest[row] = most[i];
  }
  for (int64_t i = 0; i < rows.count; ++i) {
    const Range seen = rows.seen[i];
    float* scores = w.scores + (rows.row + i) * kTile;
    if (seen.begin < seen.end)
      exponentials_of_row<E>(a.round_probabilities, seen, shift[i], scores, w.lanes + (rows.row + i) * kLanes);
  }
}

template <class E>
void soften_rows(const AttentionProblem& a, const Rows& rows, const Workspace& w, int64_t tile) {
  int64_t query = 0, head = 0;
  for (int64_t r = 0; r < rows.count; r += kTogether) {
    Together together{r, fewer(kTogether, rows.count - r), {}};
    for (int64_t i = 0; i < together.count; ++i) {
      together.seen[i] = clipped(rows.of_query(query), tile);
      if (++head == rows.group) head = 0, ++query;
    }
    soften<E>(a, together, w, rows.padded);
  }
}

// Rows that go from products to exponentials to values at once: their scores stay in the first-level cache.
constexpr int64_t kPartRows = 48;

// The running softmax of all rows over all tiles, left in the workspace.
template <class E>
void sweep(const AttentionProblem& a, const AttentionItem& item, const Rows& rows, const Workspace& w) {
  const Tokens<E> keys(a, a.k, item), values(a, a.v, item);
  take_rows<E>(rows, a, item, a.q, a.q_token, a.q_head, w.q);
  std::memset(w.output, 0, rows.count * rows.padded * sizeof(float));
  std::memset(w.lanes, 0, rows.count * kLanes * sizeof(float));
  for (int64_t r = 0; r < rows.count; ++r) w.largest[r] = -__builtin_inff();
  // A copy pays off when several register tiles read it.
  const bool often = rows.count > 2 * kRows;
  const bool copy_keys = often || !keys.side_by_side();
  const bool chunks = values.lie_in_chunks() && rows.size == kChunk;
  const bool copy_values = !chunks && (often || values.cache.element != 1 || rows.size % kGroup);
  const int64_t begin = rows.sees(0).begin, end = rows.sees(rows.count - 1).end;
  const int64_t step = more(kPartRows / rows.group, 1) * rows.group;
  for (int64_t tile = begin / kTile * kTile; tile < end; tile += kTile) {
    const int64_t from = more(tile, begin), to = fewer(tile + kTile, end);
    if (copy_keys) copy_transposed(keys, tile, from, to, rows.size, w.keys);
    if (copy_values) copy_chunks(values, tile, from, to, rows.size, w.values);
    for (int64_t first = 0; first < rows.count; first += step) {
      const Rows part(rows, first, fewer(step, rows.count - first));
      if (part.sees(part.count - 1).end <= tile) continue;
      const Workspace at = of_rows(w, first, rows.padded);
      if (copy_keys) multiply_copied(part, tile, at.q, at.keys, at.scores);
      else multiply_in_place(part, tile, at.q, keys, at.scores);
      soften_rows<E>(a, part, at, tile);
      if (chunks) add_chunks(part, tile, at.scores, reinterpret_cast<const float*>(values.at(tile)), at.output);
      else if (copy_values) add_chunks(part, tile, at.scores, at.values, at.output);
      else add_in_place(part, tile, at.scores, values, at.output);
    }
  }
}

void forward(const AttentionProblem& a, const AttentionItem& item, float* workspace) {
  const Rows rows(a, item);
  const Workspace w = divided(workspace, rows.count);
  with_dtype(a.dtype, [&](auto e) {
    sweep<decltype(e)>(a, item, rows, w);
    put_rows<decltype(e)>(rows, a, item, w.output, a.out,
                          [&](int64_t r) {
                            const Lanes total = all(merged(Single::load(w.lanes + r * kLanes)));
                            return [=](Lanes y) { return y / total; };
                          });
  });
}
