// Gradients of attention: of queries row by row, of keys and values tile by tile over all rows in order, as in
// reference/attention_backward.py.

struct Statistics {
  float shift, inverse, projection;
};

// output / sum of exponentials, in place.
void divide(const Rows& rows, const Workspace& w) {
  for (int64_t r = 0; r < rows.count; ++r) {
    const Lanes total = all(merged(Single::load(w.lanes + r * kLanes)));
    for (int64_t d = 0; d < rows.padded; d += kLanes) {
      const Lanes y = Single::load(w.output + r * rows.padded + d) / total;
      std::memcpy(w.output + r * rows.padded + d, &y, sizeof y);
    }
  }
}

// Softmax of every row once more; statistics of every row, dy in the workspace.
template <class E>
void prepare(const AttentionProblem& a, const AttentionGradients& g, const AttentionItem& item, const Rows& rows,
             const Workspace& w) {
  sweep<E>(a, item, rows, w);
  divide(rows, w);
  take_rows<E>(rows, a, item, g.dy, a.heads * rows.size, rows.size, w.dy);
  const int64_t start = a.query_starts[item.sequence] + item.begin;
  for (int64_t r = 0; r < rows.count; ++r) {
    Lanes sum = {};
    each(rows.size, [&](int64_t d, auto part) {
      const Lanes y = within(Single::load(w.output + r * rows.padded + d), part);
      sum = fma(within(Single::load(w.dy + r * kMostHeadSize + d), part), y, sum);
    });
    const float largest = w.largest[r], total = merged(Single::load(w.lanes + r * kLanes));
    const int64_t head = item.kv_head * rows.group + r % rows.group;
    const Statistics s{largest == -__builtin_inff() ? 0.0f : largest, 1.0f / total, merged(sum)};
    std::memcpy(g.statistics + ((start + r / rows.group) * a.heads + head) * 3, &s, sizeof s);
  }
}

// Products q.k in `scores` and dy.v in `slopes` become probabilities and gradients of q.k.
void bend(const AttentionProblem& a, Range seen, const Statistics& s, float* scores, float* slopes) {
  for (int64_t g = seen.begin / kGroup; g < groups_of(seen.end); ++g) {
    float *p = scores + g * kGroup, *d = slopes + g * kGroup;
    const Lanes scaled = Single::load(p) * a.scale;
    Lanes score = scaled, turned = {};
    if (a.soft_cap) turned = hyperbolic_tangent(scaled / a.soft_cap), score = a.soft_cap * turned;
    const Lanes probability = exponential(score - s.shift) * s.inverse;
    Lanes slope = probability * (Single::load(d) - s.projection);
    if (a.soft_cap) slope = slope * fma(-turned, turned, all(1.0f));
    slope = slope * a.scale;
    std::memcpy(p, &probability, sizeof slope), std::memcpy(d, &slope, sizeof slope);
  }
}

// Probabilities and gradients of q.k of all rows and one tile of keys, whose transposed copies are made.
void tile_slopes(const AttentionProblem& a, const Rows& rows, const Workspace& w, const float* statistics,
                 int64_t tile) {
  multiply_copied(rows, tile, w.q, w.keys, w.scores);
  multiply_copied(rows, tile, w.dy, w.transposed_values, w.slopes);
  for (int64_t r = 0; r < rows.count; ++r) {
    const Range seen = clipped(rows.sees(r), tile);
    if (seen.begin >= seen.end) continue;
    Statistics s;
    std::memcpy(&s, statistics + (r / rows.group * a.heads + r % rows.group) * 3, sizeof s);
    bend(a, seen, s, w.scores + r * kTile, w.slopes + r * kTile);
  }
}

const float* statistics_of(const AttentionProblem& a, const AttentionGradients& g, const AttentionItem& item) {
  return g.statistics + ((a.query_starts[item.sequence] + item.begin) * a.heads + item.kv_head * (a.heads / a.kv_heads)) * 3;
}

void backward_queries(const AttentionProblem& a, const AttentionGradients& g, const AttentionItem& item,
                      float* workspace) {
  const Rows rows(a, item);
  const Workspace w = divided(workspace, rows.count);
  with_dtype(a.dtype, [&](auto e) {
    using E = decltype(e);
    prepare<E>(a, g, item, rows, w);
    const Tokens<E> keys(a, a.k, item), values(a, a.v, item);
    std::memset(w.dq, 0, rows.count * rows.padded * sizeof(float));
    const int64_t end = rows.sees(rows.count - 1).end;
    for (int64_t start = rows.sees(0).begin / kTile * kTile; start < end; start += kTile) {
      const int64_t from = more(start, rows.sees(0).begin), to = fewer(start + kTile, end);
      copy_transposed(keys, start, from, to, rows.size, w.keys);
      copy_transposed(values, start, from, to, rows.size, w.transposed_values);
      copy_chunks(keys, start, from, to, rows.size, w.key_chunks);
      tile_slopes(a, rows, w, statistics_of(a, g, item), start);
      add_chunks(rows, start, w.slopes, w.key_chunks, w.dq);
    }
    put_rows<E>(rows, a, item, w.dq, g.dq, [](int64_t) { return [](Lanes x) { return x; }; });
  });
}

// Adds the rows of one block to the sums of the keys: keys by rows, each over the rows that see it.
void add_rows(const Rows& rows, const Workspace& w, int64_t tile, int64_t keys, const float* weights, const float* from,
              float* sums) {
  for (int64_t j = 0; j < keys; j += kRows) {
    const int64_t count = fewer(kRows, keys - j);
    Range seen_by[kRows];
    for (int64_t i = 0; i < count; ++i) {
      const int64_t query = tile + j + i - rows.position;  // the first that sees the key
      seen_by[i] = {fewer(more(query, 0) * rows.group, rows.count),
                    more(0, fewer((query + rows.window) * rows.group, rows.count))};
    }
    over_steps(count, seen_by, [&](int64_t key, int64_t together, int64_t begin, int64_t end) {
      product_rows<Single, TransposedWeights>(
          together, rows.padded / kGroup, weights + begin * kTile + j + key,
          reinterpret_cast<const char*>(from + begin * kMostHeadSize), kMostHeadSize * 4, end - begin,
          sums + (j + key) * rows.padded, rows.padded, true);
    });
  }
}

// [keys][padded] sums -> rows of dk or dv [tokens, kv_heads, size] contiguous.
template <class E>
void put_keys(const AttentionProblem& a, const AttentionItem& item, int64_t padded, const float* sums, void* data) {
  const int64_t start = a.key_starts[item.sequence] + item.begin;
  for (int64_t j = 0; j < item.end - item.begin; ++j) {
    auto* to = static_cast<typename E::Stored*>(data) + ((start + j) * a.kv_heads + item.kv_head) * a.head_size;
    each(a.head_size, [&](int64_t d, auto part) { put<E>(to, d, part, Single::load(sums + j * padded + d)); });
  }
}

void backward_keys(const AttentionProblem& a, const AttentionGradients& g, const AttentionItem& item,
                   float* workspace) {
  const int64_t queries = a.query_starts[item.sequence + 1] - a.query_starts[item.sequence];
  const int64_t before = a.lengths[item.sequence] - queries, tile = item.begin, keys = item.end - item.begin;
  const int64_t group = a.heads / a.kv_heads, block = more(1, kKeyRows / group);
  const Workspace w = divided(workspace, block * group);
  with_dtype(a.dtype, [&](auto e) {
    using E = decltype(e);
    const Tokens<E> key_tokens(a, a.k, item), value_tokens(a, a.v, item);
    copy_transposed(key_tokens, tile, item.begin, item.end, a.head_size, w.keys);
    copy_transposed(value_tokens, tile, item.begin, item.end, a.head_size, w.transposed_values);
    const int64_t padded = groups_of(a.head_size) * kGroup;
    float *dk = w.key_chunks, *dv = w.values;
    std::memset(dk, 0, keys * padded * sizeof(float)), std::memset(dv, 0, keys * padded * sizeof(float));
    for (int64_t q = more(0, tile - before); q < queries; q += block) {
      const AttentionItem part{item.sequence, item.kv_head, q, fewer(q + block, queries)};
      const Rows rows(a, part);
      if (rows.sees(0).begin >= item.end) break;
      take_rows<E>(rows, a, part, a.q, a.q_token, a.q_head, w.q);
      take_rows<E>(rows, a, part, g.dy, a.heads * rows.size, rows.size, w.dy);
      tile_slopes(a, rows, w, statistics_of(a, g, part), tile);
      add_rows(rows, w, tile, keys, w.scores, w.dy, dv);
      add_rows(rows, w, tile, keys, w.slopes, w.q, dk);
    }
    put_keys<E>(a, item, padded, dk, g.dk);
    put_keys<E>(a, item, padded, dv, g.dv);
  });
}
