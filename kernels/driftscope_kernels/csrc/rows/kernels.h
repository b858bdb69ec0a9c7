// The row kernels, written once in lanes and compiled once per instruction set: each includer defines the set,
// then includes lanes.h, functions.h and this file inside its own unnamed namespace. The order of operations
// is that of the file of the same name in reference/, to which the results are equal bit for bit.

template <class E>
using Stored = typename E::Stored;

template <class E>
const Stored<E>* row_of(const RowsIn& x, int64_t row) {
  return static_cast<const Stored<E>*>(x.data) + row * x.stride;
}
template <class E>
Stored<E>* row_of(const RowsOut& x, int64_t row) {
  return static_cast<Stored<E>*>(x.data) + row * x.stride;
}

// One float32 copy of a row, padded to whole registers, for the passes over it.
// (No std::vector: its shared inline code would be built for this instruction set and run on others.)
struct Scratch {
  float* values;
  explicit Scratch(int64_t n) : values(static_cast<float*>(std::malloc((n + kLanes) * sizeof(float)))) {
    if (!values) std::abort();
  }
  ~Scratch() { std::free(values); }
  Scratch(const Scratch&) = delete;
};

template <class Do>
void with_dtype(Dtype dtype, Do&& run) {
  if (dtype == Dtype::f32) run(Single{});
  else if (dtype == Dtype::bf16) run(Brain{});
  else run(Half{});
}
// In and out dtype; a float32 result of shorter inputs is the only mixture there is.
template <class Do>
void with_dtypes(Dtype in, Dtype out, Do&& run) {
  with_dtype(in, [&](auto e) {
    if (out == Dtype::f32) run(e, Single{});
    else run(e, e);
  });
}

// The largest element, NaN passed over: a NaN makes the sum of the exponentials NaN, and with it the row.
template <class E>
float largest_of(const Stored<E>* x, int64_t n) {
  Lanes most = all(-__builtin_inff());
  each(n, [&](int64_t i, auto part) { most = larger(at<E>(x, i, part, -__builtin_inff()), most); });
  return largest_lane(most);
}

template <class E>
bool has_nan(const Stored<E>* x, int64_t n) {
  Ints any = {};
  each(n, [&](int64_t i, auto part) {
    const Lanes v = at<E>(x, i, part);
    any |= v != v;
  });
  int32_t found = 0;
  for (int j = 0; j < kLanes; ++j) found |= any[j];
  return found != 0;
}

// Sum of exp(x - largest); the terms are left in `terms` if there is such a place.
template <class E>
float sum_of_exponentials(const Stored<E>* x, int64_t n, float largest, float* terms) {
  Lanes sum = {};
  each(n, [&](int64_t i, auto part) {
    const Lanes term = within(exponential(at<E>(x, i, part) - largest), part);
    if (terms) std::memcpy(terms + i, &term, sizeof term);
    sum = sum + term;
  });
  return merged(sum);
}

template <class E, class O>
void softmax_row(const Stored<E>* x, Stored<O>* y, int64_t n, float* terms) {
  const float scale = 1.0f / sum_of_exponentials<E>(x, n, largest_of<E>(x, n), terms);
  each(n, [&](int64_t i, auto part) { put<O>(y, i, part, Single::load(terms + i) * scale); });
}

template <class E, class O>
void log_softmax_row(const Stored<E>* x, Stored<O>* y, int64_t n) {
  const float largest = largest_of<E>(x, n);
  const float log_total = logarithm(sum_of_exponentials<E>(x, n, largest, nullptr));
  each(n, [&](int64_t i, auto part) { put<O>(y, i, part, (at<E>(x, i, part) - largest) - log_total); });
}

template <class E, class O>
void logsumexp_row(const Stored<E>* x, Stored<O>* y, int64_t n) {
  const float largest = largest_of<E>(x, n);
  if (__builtin_isinf(largest))
    put_one<O>(y, has_nan<E>(x, n) ? __builtin_nanf("") : largest);
  else
    put_one<O>(y, largest + logarithm(sum_of_exponentials<E>(x, n, largest, nullptr)));
}

void family_rows(Family family, RowsIn x, RowsOut y, int64_t n, int64_t begin, int64_t end) {
  Scratch terms(family == Family::softmax ? n : 0);
  with_dtypes(x.dtype, y.dtype, [&](auto e, auto o) {
    using E = decltype(e);
    using O = decltype(o);
    for (int64_t r = begin; r < end; ++r) {
      if (family == Family::softmax) softmax_row<E, O>(row_of<E>(x, r), row_of<O>(y, r), n, terms.values);
      else if (family == Family::log_softmax) log_softmax_row<E, O>(row_of<E>(x, r), row_of<O>(y, r), n);
      else logsumexp_row<E, O>(row_of<E>(x, r), row_of<O>(y, r), n);
    }
  });
}

template <class E>
void softmax_backward_row(const Stored<E>* dy, const Stored<E>* x, Stored<E>* dx, int64_t n, float* p) {
  const float scale = 1.0f / sum_of_exponentials<E>(x, n, largest_of<E>(x, n), p);
  Lanes sum = {};
  each(n, [&](int64_t i, auto part) {
    const Lanes probability = within(Single::load(p + i) * scale, part);
    std::memcpy(p + i, &probability, sizeof probability);
    sum = fma(at<E>(dy, i, part), probability, sum);
  });
  const float dot = merged(sum);
  each(n, [&](int64_t i, auto part) {
    put<E>(dx, i, part, Single::load(p + i) * (at<E>(dy, i, part) - dot));
  });
}

template <class E>
void log_softmax_backward_row(const Stored<E>* dy, const Stored<E>* x, Stored<E>* dx, int64_t n) {
  const float largest = largest_of<E>(x, n);
  const float log_total = logarithm(sum_of_exponentials<E>(x, n, largest, nullptr));
  Lanes sum = {};
  each(n, [&](int64_t i, auto part) { sum = sum + at<E>(dy, i, part); });
  const Lanes slope = all(merged(sum));
  each(n, [&](int64_t i, auto part) {
    const Lanes probability = exponential((at<E>(x, i, part) - largest) - log_total);
    put<E>(dx, i, part, fma(-probability, slope, at<E>(dy, i, part)));
  });
}

template <class E>
void logsumexp_backward_row(const Stored<E>* dy, const Stored<E>* x, Stored<E>* dx, int64_t n, float* p) {
  const float scale = 1.0f / sum_of_exponentials<E>(x, n, largest_of<E>(x, n), p);
  const float slope = at<E>(dy, 0, Some{1})[0];
  each(n, [&](int64_t i, auto part) { put<E>(dx, i, part, (Single::load(p + i) * scale) * slope); });
}

void family_backward_rows(Family family, RowsIn dy, RowsIn x, RowsOut dx, int64_t n, int64_t begin, int64_t end) {
  Scratch p(n);
  with_dtype(x.dtype, [&](auto e) {
    using E = decltype(e);
    for (int64_t r = begin; r < end; ++r) {
      const Stored<E>*slope = row_of<E>(dy, r), *from = row_of<E>(x, r);
      Stored<E>* to = row_of<E>(dx, r);
      if (family == Family::softmax) softmax_backward_row<E>(slope, from, to, n, p.values);
      else if (family == Family::log_softmax) log_softmax_backward_row<E>(slope, from, to, n);
      else logsumexp_backward_row<E>(slope, from, to, n, p.values);
    }
  });
}

// Four rows at a time: one row alone would wait for each addition before it starts the next.
template <class E, class O>
void sum_rows_of(RowsIn x, RowsOut y, float divisor, int64_t n, int64_t begin, int64_t end) {
  constexpr int kRows = 4;
  for (int64_t r = begin; r < end; r += kRows) {
    const int rows = end - r < kRows ? static_cast<int>(end - r) : kRows;
    const Stored<E>* from[kRows];
    for (int j = 0; j < kRows; ++j) from[j] = row_of<E>(x, r + (j < rows ? j : 0));
    Lanes sum[kRows] = {};
    each(n, [&](int64_t i, auto part) {
#pragma GCC unroll 4
      for (int j = 0; j < kRows; ++j) sum[j] = sum[j] + at<E>(from[j], i, part);
    });
    for (int j = 0; j < rows; ++j) {
      const float total = merged(sum[j]);
      put_one<O>(row_of<O>(y, r + j), divisor == 1.0f ? total : total / divisor);
    }
  }
}

void sum_rows(RowsIn x, RowsOut y, float divisor, int64_t n, int64_t begin, int64_t end) {
  with_dtypes(x.dtype, y.dtype, [&](auto e, auto o) {
    sum_rows_of<decltype(e), decltype(o)>(x, y, divisor, n, begin, end);
  });
}

// What the norm reads of the elements from i on: x, or x + residual, rounded or not.
template <class E, class Part>
Lanes norm_input(const Stored<E>* x, const Stored<E>* residual, bool rounded, int64_t i, Part part) {
  Lanes v = at<E>(x, i, part);
  if (!residual) return v;
  v = v + at<E>(residual, i, part);
  return rounded ? E::rounded(v) : v;
}

template <class E>
float inverse_rms(const Stored<E>* x, const Stored<E>* residual, const NormOptions& o, int64_t n) {
  Lanes sum = {};
  each(n, [&](int64_t i, auto part) {
    const Lanes v = norm_input<E>(x, residual, o.read_rounded_sum, i, part);
    sum = fma(v, v, sum);
  });
  return 1.0f / root(merged(sum) / static_cast<float>(n) + o.eps);
}

template <class E>
void rms_norm_row(const Stored<E>* x, const Stored<E>* residual, const Stored<E>* weight, Stored<E>* y,
                  Stored<E>* total, const NormOptions& o, int64_t n) {
  const float scale = inverse_rms<E>(x, residual, o, n);
  each(n, [&](int64_t i, auto part) {
    Lanes unit = norm_input<E>(x, residual, o.read_rounded_sum, i, part) * scale;
    if (o.round_before_weight) unit = E::rounded(unit);
    put<E>(y, i, part, unit * at<E>(weight, i, part));
    if (residual) put<E>(total, i, part, at<E>(x, i, part) + at<E>(residual, i, part));
  });
}

void rms_norm_rows(RowsIn x, RowsIn residual, RowsIn weight, RowsOut y, RowsOut total, NormOptions o, int64_t n,
                   int64_t begin, int64_t end) {
  with_dtype(x.dtype, [&](auto e) {
    using E = decltype(e);
    for (int64_t r = begin; r < end; ++r)
      rms_norm_row<E>(row_of<E>(x, r), residual.data ? row_of<E>(residual, r) : nullptr, row_of<E>(weight, 0),
                      row_of<E>(y, r), residual.data ? row_of<E>(total, r) : nullptr, o, n);
  });
}

template <class E>
void rms_norm_backward_row(const Stored<E>* dy, const Stored<E>* dtotal, const Stored<E>* x,
                           const Stored<E>* residual, const Stored<E>* weight, Stored<E>* dx, float scale,
                           const NormOptions& o, int64_t n) {
  Lanes sum = {};
  each(n, [&](int64_t i, auto part) {
    const Lanes unit = within(norm_input<E>(x, residual, o.read_rounded_sum, i, part) * scale, part);
    sum = fma(at<E>(dy, i, part) * at<E>(weight, i, part), unit, sum);
  });
  const Lanes projection = all(merged(sum) / static_cast<float>(n));
  each(n, [&](int64_t i, auto part) {
    const Lanes unit = norm_input<E>(x, residual, o.read_rounded_sum, i, part) * scale;
    Lanes slope = all(scale) * fma(-unit, projection, at<E>(dy, i, part) * at<E>(weight, i, part));
    if (dtotal) slope = slope + at<E>(dtotal, i, part);
    put<E>(dx, i, part, slope);
  });
}

void rms_norm_backward_rows(RowsIn dy, RowsIn dtotal, RowsIn x, RowsIn residual, RowsIn weight, RowsOut dx,
                            float* scale, NormOptions o, int64_t n, int64_t begin, int64_t end) {
  with_dtype(x.dtype, [&](auto e) {
    using E = decltype(e);
    for (int64_t r = begin; r < end; ++r) {
      const Stored<E>* added = residual.data ? row_of<E>(residual, r) : nullptr;
      scale[r] = inverse_rms<E>(row_of<E>(x, r), added, o, n);
      rms_norm_backward_row<E>(row_of<E>(dy, r), dtotal.data ? row_of<E>(dtotal, r) : nullptr, row_of<E>(x, r),
                               added, row_of<E>(weight, 0), row_of<E>(dx, r), scale[r], o, n);
    }
  });
}

// total[c] += for each block of rows in turn: the sum over its rows, in order, from +0. `add` takes one row.
template <class Add>
void fold_columns(float* total, int64_t rows, int64_t block, int64_t begin, int64_t end, Add&& add) {
  each(end - begin, [&](int64_t i, auto part) {
    Lanes sum = at<Single>(total + begin, i, part);
    for (int64_t r0 = 0; r0 < rows; r0 += block) {
      Lanes of_block = {};
      for (int64_t r = r0; r < rows && r < r0 + block; ++r) of_block = add(r, begin + i, part, of_block);
      sum = sum + of_block;
    }
    put<Single>(total + begin, i, part, sum);
  });
}

void norm_weight_grad_columns(RowsIn dy, RowsIn x, RowsIn residual, const float* scale, float* dweight, NormOptions o,
                              int64_t rows, int64_t block, int64_t begin, int64_t end) {
  with_dtype(x.dtype, [&](auto e) {
    using E = decltype(e);
    fold_columns(dweight, rows, block, begin, end, [&](int64_t r, int64_t c, auto part, Lanes sum) {
      const Stored<E>* added = residual.data ? row_of<E>(residual, r) : nullptr;
      Lanes unit = norm_input<E>(row_of<E>(x, r), added, o.read_rounded_sum, c, part) * scale[r];
      if (o.round_before_weight) unit = E::rounded(unit);
      return fma(at<E>(row_of<E>(dy, r), c, part), unit, sum);
    });
  });
}

void column_sum_columns(RowsIn x, float* total, int64_t rows, int64_t block, int64_t begin, int64_t end) {
  with_dtype(x.dtype, [&](auto e) {
    using E = decltype(e);
    fold_columns(total, rows, block, begin, end, [&](int64_t r, int64_t c, auto part, Lanes sum) {
      return sum + at<E>(row_of<E>(x, r), c, part);
    });
  });
}

template <class E>
Lanes silu_of(Lanes gate, Lanes below, bool rounded) {
  const Lanes silu = gate / below;
  return rounded ? E::rounded(silu) : silu;
}

void swiglu_rows(RowsIn gate, RowsIn up, RowsOut y, bool round_silu, int64_t n, int64_t begin, int64_t end) {
  with_dtype(gate.dtype, [&](auto e) {
    using E = decltype(e);
    for (int64_t r = begin; r < end; ++r) {
      const Stored<E>*g = row_of<E>(gate, r), *u = row_of<E>(up, r);
      Stored<E>* to = row_of<E>(y, r);
      each(n, [&](int64_t i, auto part) {
        const Lanes x = at<E>(g, i, part);
        put<E>(to, i, part, silu_of<E>(x, 1.0f + exponential(-x), round_silu) * at<E>(u, i, part));
      });
    }
  });
}

void swiglu_backward_rows(RowsIn dy, RowsIn gate, RowsIn up, RowsOut dgate, RowsOut dup, bool round_silu, int64_t n,
                          int64_t begin, int64_t end) {
  with_dtype(gate.dtype, [&](auto e) {
    using E = decltype(e);
    for (int64_t r = begin; r < end; ++r) {
      const Stored<E>*g = row_of<E>(gate, r), *u = row_of<E>(up, r), *d = row_of<E>(dy, r);
      Stored<E>*to_gate = row_of<E>(dgate, r), *to_up = row_of<E>(dup, r);
      each(n, [&](int64_t i, auto part) {
        const Lanes x = at<E>(g, i, part), slope_y = at<E>(d, i, part);
        const Lanes below = 1.0f + exponential(-x), s = 1.0f / below;
        const Lanes slope = s * fma(x, 1.0f - s, all(1.0f));
        put<E>(to_gate, i, part, (slope_y * at<E>(u, i, part)) * slope);
        put<E>(to_up, i, part, slope_y * silu_of<E>(x, below, round_silu));
      });
    }
  });
}
