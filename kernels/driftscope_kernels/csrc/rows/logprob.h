// What one tile of logits adds to the log-probability of a token. Included after kernels.h; the formulas are
// those of reference/token_logprob.py.

// Both sides brought to the larger maximum.
struct Moved {
  float factor, moment;
  Moved(const TileState& side, float largest) {
    const float down = side.largest == largest ? 0.0f : side.largest - largest;
    factor = exponential(down);
    moment = factor == 0 ? 0.0f : fma(side.total, down, side.moment);
  }
};

inline float larger_or_nan(float a, float b) { return a != a ? a : b != b ? b : a > b ? a : b; }

inline void merge(TileState& left, const TileState& right) {
  const float largest = larger_or_nan(left.largest, right.largest);
  const Moved a(left, largest), b(right, largest);
  left.largest = largest;
  left.total = fma(right.total, b.factor, left.total * a.factor);
  left.moment = fma(b.moment, b.factor, a.moment * a.factor);
}

// Sums over one tile of logits divided by the temperature, which are left in `z`. `Plain`: no temperature, and
// no moment, which no other sum depends on.
template <class E, bool Plain = false>
TileState tile_sums(const Stored<E>* logits, float temperature, int64_t n, float* z) {
  Lanes most = all(-__builtin_inff());
  each(n, [&](int64_t i, auto part) {
    Lanes value = at<E>(logits, i, part, -__builtin_inff());
    if constexpr (!Plain) value = value / temperature;
    std::memcpy(z + i, &value, sizeof value);
    most = larger(value, most);
  });
  float largest = largest_lane(most);
  if (has_nan<Single>(z, n)) largest = __builtin_nanf("");
  if (largest == -__builtin_inff()) return {largest, 0.0f, 0.0f, 0.0f};
  Lanes total = {}, moment = {};
  each(n, [&](int64_t i, auto part) {
    const Lanes below = Single::load(z + i) - largest;
    const Lanes term = within(exponential(below), part);
    total = total + term;
    if constexpr (!Plain) moment = fma(term, term == 0.0f ? Lanes{} : below, moment);
  });
  return {largest, merged(total), merged(moment), 0.0f};
}

// Falling by logit, equal ones by rising id, NaN last; the ids come in rising.
inline void keep_top(float* logits, int64_t* ids, int64_t top_k, int64_t filled, float logit, int64_t id) {
  auto beats = [](float a, float b) { return a > b || (b != b && a == a); };
  int64_t place = filled;
  while (place > 0 && beats(logit, logits[place - 1])) --place;
  if (place >= top_k) return;
  for (int64_t j = (filled < top_k ? filled : top_k - 1); j > place; --j) {
    logits[j] = logits[j - 1];
    ids[j] = ids[j - 1];
  }
  logits[place] = logit;
  ids[place] = id;
}

void logprob_tile_rows(RowsIn logits, float temperature, const int64_t* targets, int64_t start, TileState* states,
                       float* top_logits, int64_t* top_ids, int64_t top_k, int64_t n, int64_t begin, int64_t end) {
  Scratch z(n);
  with_dtype(logits.dtype, [&](auto e) {
    using E = decltype(e);
    for (int64_t r = begin; r < end; ++r) {
      const TileState tile = tile_sums<E>(row_of<E>(logits, r), temperature, n, z.values);
      merge(states[r], tile);
      const int64_t target = targets[r] - start;
      if (target >= 0 && target < n) states[r].target_logit = z.values[target];
      for (int64_t j = 0; j < (top_k ? n : 0); ++j)
        keep_top(top_logits + r * top_k, top_ids + r * top_k, top_k, start + j < top_k ? start + j : top_k,
                 z.values[j], start + j);
    }
  });
}

void logprob_finish_rows(const TileState* states, float* logprob, float* entropy, float* top, int64_t top_k,
                         int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const TileState& s = states[r];
    const float log_total = logarithm(s.total);
    logprob[r] = quiet((s.target_logit - s.largest) - log_total);
    entropy[r] = quiet(log_total - s.moment / s.total);
    for (int64_t j = 0; j < top_k; ++j) top[r * top_k + j] = quiet((top[r * top_k + j] - s.largest) - log_total);
  }
}

void tiled_log_softmax_rows(RowsIn logits, RowsOut y, int64_t tile, int64_t n, int64_t begin, int64_t end) {
  Scratch z(tile);
  with_dtype(logits.dtype, [&](auto e) {
    using E = decltype(e);
    for (int64_t r = begin; r < end; ++r) {
      const Stored<E>* row = row_of<E>(logits, r);
      TileState state = {-__builtin_inff(), 0.0f, 0.0f, 0.0f};
      for (int64_t start = 0; start < n; start += tile)
        merge(state, tile_sums<E, true>(row + start, 1.0f, n - start < tile ? n - start : tile, z.values));
      const float log_total = logarithm(state.total);
      each(n, [&](int64_t i, auto part) {
        put<Single>(row_of<Single>(y, r), i, part, (at<E>(row, i, part) - state.largest) - log_total);
      });
    }
  });
}

template <class E>
void slope_row(const Stored<E>* logits, float temperature, int64_t target, const TileState& s, float entropy,
               float dlogprob, float dentropy, float* slope, int64_t n) {
  const float log_total = logarithm(s.total);
  each(n, [&](int64_t i, auto part) {
    const Lanes logp = (at<E>(logits, i, part) / temperature - s.largest) - log_total;
    const Lanes p = exponential(logp);
    Lanes hit = {};
    if (target >= i && target < i + kLanes) hit[target - i] = dlogprob;
    const Lanes surplus = p == 0.0f ? Lanes{} : logp + entropy;
    const Lanes y = fma(-(p * dentropy), surplus, fma(-p, all(dlogprob), hit));
    put<Single>(slope, i, part, y / temperature);
  });
}

void logprob_slope_rows(RowsIn logits, float temperature, const int64_t* targets, int64_t start,
                        const TileState* states, const float* entropy, const float* dlogprob, const float* dentropy,
                        RowsOut slope, int64_t n, int64_t begin, int64_t end) {
  with_dtype(logits.dtype, [&](auto e) {
    using E = decltype(e);
    for (int64_t r = begin; r < end; ++r)
      slope_row<E>(row_of<E>(logits, r), temperature, targets[r] - start, states[r], entropy[r], dlogprob[r],
                   dentropy[r], row_of<Single>(slope, r), n);
  });
}
