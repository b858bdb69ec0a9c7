// The torch operators over the row kernels. Threads divide rows (or columns, for sums over rows) among them.
#include "rows.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <vector>

#include "dispatch.h"
#include "environment.h"

namespace driftscope {
namespace {

using at::Tensor;
using MaybeTensor = c10::optional<Tensor>;

// Below this many elements a second thread costs more than it saves.
constexpr int64_t kThreadElements = 1 << 15;
// Columns that one thread takes at least of a sum over rows: a cache line of any dtype.
constexpr int64_t kThreadColumns = 64;

std::vector<const RowKernels*> known() {
#if defined(__x86_64__)
  return {&rows_avx512, &rows_avx2, &rows_scalar};
#else
  return {&rows_scalar};
#endif
}

const RowKernels& kernels(c10::string_view name) { return chosen_without_bf16(known(), name); }

// [rows, n] with contiguous rows; a vector counts as one row, or as rows of one element.
RowsIn in(const Tensor& x) { return {x.const_data_ptr(), x.dim() > 1 ? x.stride(0) : 1, dtype_of(x.scalar_type())}; }
RowsIn in(const MaybeTensor& x) { return x ? in(*x) : RowsIn{nullptr, 0, Dtype::f32}; }
RowsOut out(Tensor& x) { return {x.mutable_data_ptr(), x.dim() > 1 ? x.stride(0) : 1, dtype_of(x.scalar_type())}; }

template <class Do>
void over(int64_t count, int64_t grain, Do&& run) {
  at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    const Environment environment;
    run(begin, end);
  });
}
template <class Do>
void over_rows(int64_t rows, int64_t n, Do&& run) {
  over(rows, kThreadElements / (n + 1) + 1, run);
}

Tensor like(const Tensor& x) { return at::empty({x.size(0), x.size(1)}, x.options()); }

// x [rows, n] -> [rows, n], or [rows] for logsumexp.
Tensor softmax_family(const Tensor& x, int64_t family, at::ScalarType out_dtype, c10::string_view isa) {
  const auto& set = kernels(isa);
  const auto which = static_cast<Family>(family);
  const auto options = x.options().dtype(out_dtype);
  Tensor y = which == Family::logsumexp ? at::empty({x.size(0)}, options)
                                        : at::empty({x.size(0), x.size(1)}, options);
  over_rows(x.size(0), x.size(1),
            [&](int64_t begin, int64_t end) { set.family(which, in(x), out(y), x.size(1), begin, end); });
  return y;
}

Tensor softmax_family_backward(const Tensor& dy, const Tensor& x, int64_t family, c10::string_view isa) {
  const auto& set = kernels(isa);
  Tensor dx = like(x);
  over_rows(x.size(0), x.size(1), [&](int64_t begin, int64_t end) {
    set.family_backward(static_cast<Family>(family), in(dy), in(x), out(dx), x.size(1), begin, end);
  });
  return dx;
}

// x [rows, n] -> [rows], divided by `divisor`.
Tensor sum(const Tensor& x, double divisor, at::ScalarType out_dtype, c10::string_view isa) {
  const auto& set = kernels(isa);
  Tensor y = at::empty({x.size(0)}, x.options().dtype(out_dtype));
  over_rows(x.size(0), x.size(1), [&](int64_t begin, int64_t end) {
    set.sum(in(x), out(y), static_cast<float>(divisor), x.size(1), begin, end);
  });
  return y;
}

NormOptions norm_options(bool round_before_weight, bool read_rounded_sum, double eps) {
  return {round_before_weight, read_rounded_sum, static_cast<float>(eps)};
}

// -> the norm, and x + residual if there is a residual (else an empty tensor).
std::tuple<Tensor, Tensor> rms_norm(const Tensor& x, const MaybeTensor& residual, const Tensor& weight, double eps,
                                    bool round_before_weight, bool read_rounded_sum, c10::string_view isa) {
  const auto& set = kernels(isa);
  const NormOptions options = norm_options(round_before_weight, read_rounded_sum, eps);
  Tensor y = like(x), total = residual ? like(x) : at::empty({0, 0}, x.options());
  over_rows(x.size(0), x.size(1), [&](int64_t begin, int64_t end) {
    set.rms_norm(in(x), in(residual), in(weight), out(y), out(total), options, x.size(1), begin, end);
  });
  return {y, total};
}

// -> dx, and the gradient of the weight [n] float32, added to `carry` by blocks of `block` rows.
std::tuple<Tensor, Tensor> rms_norm_backward(const Tensor& dy, const MaybeTensor& dtotal, const Tensor& x,
                                             const MaybeTensor& residual, const Tensor& weight, double eps,
                                             bool round_before_weight, bool read_rounded_sum,
                                             const MaybeTensor& carry, int64_t block, c10::string_view isa) {
  const auto& set = kernels(isa);
  const NormOptions options = norm_options(round_before_weight, read_rounded_sum, eps);
  const int64_t rows = x.size(0), n = x.size(1);
  const auto single = x.options().dtype(at::kFloat);
  Tensor dx = like(x), scale = at::empty({rows}, single);
  Tensor dweight = carry ? carry->clone() : at::zeros({n}, single);
  float* scales = scale.mutable_data_ptr<float>();
  over_rows(rows, n, [&](int64_t begin, int64_t end) {
    set.rms_norm_backward(in(dy), in(dtotal), in(x), in(residual), in(weight), out(dx), scales, options, n, begin,
                          end);
  });
  float* sums = dweight.mutable_data_ptr<float>();
  over(n, kThreadColumns, [&](int64_t begin, int64_t end) {
    set.norm_weight_grad(in(dy), in(x), in(residual), scales, sums, options, rows, block, begin, end);
  });
  return {dx, dweight};
}

// x [rows, n] -> [n] float32, added to `carry` by blocks of `block` rows.
Tensor column_sum(const Tensor& x, const MaybeTensor& carry, int64_t block, c10::string_view isa) {
  const auto& set = kernels(isa);
  Tensor total = carry ? carry->clone() : at::zeros({x.size(1)}, x.options().dtype(at::kFloat));
  float* sums = total.mutable_data_ptr<float>();
  over(x.size(1), kThreadColumns,
       [&](int64_t begin, int64_t end) { set.column_sum(in(x), sums, x.size(0), block, begin, end); });
  return total;
}

Tensor swiglu(const Tensor& gate, const Tensor& up, bool round_silu, c10::string_view isa) {
  const auto& set = kernels(isa);
  Tensor y = like(gate);
  over_rows(gate.size(0), gate.size(1), [&](int64_t begin, int64_t end) {
    set.swiglu(in(gate), in(up), out(y), round_silu, gate.size(1), begin, end);
  });
  return y;
}

std::tuple<Tensor, Tensor> swiglu_backward(const Tensor& dy, const Tensor& gate, const Tensor& up, bool round_silu,
                                           c10::string_view isa) {
  const auto& set = kernels(isa);
  Tensor dgate = like(gate), dup = like(gate);
  over_rows(gate.size(0), gate.size(1), [&](int64_t begin, int64_t end) {
    set.swiglu_backward(in(dy), in(gate), in(up), out(dgate), out(dup), round_silu, gate.size(1), begin, end);
  });
  return {dgate, dup};
}

// x [tokens, heads, n], as an engine splits it off a wider row; cos and sin [tokens, half], contiguous, in the
// dtype of x or in float32.
Tensor rotary(const Tensor& x, const Tensor& cos, const Tensor& sin, bool interleaved, int64_t arithmetic,
              c10::string_view isa) {
  const auto& set = kernels(isa);
  const int64_t heads = x.size(1), n = x.size(2), half = cos.size(1), size = x.element_size();
  Tensor y = at::empty({x.size(0), heads, n}, x.options());
  const char* from = static_cast<const char*>(x.const_data_ptr());
  char* to = static_cast<char*>(y.mutable_data_ptr());
  const char *c = static_cast<const char*>(cos.const_data_ptr()), *s = static_cast<const char*>(sin.const_data_ptr());
  const int64_t table = half * cos.element_size();
  over_rows(x.size(0), heads * n, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      set.rotary({from + t * x.stride(0) * size, x.stride(1), dtype_of(x.scalar_type())}, {c + t * table, half, dtype_of(cos.scalar_type())},
                 {s + t * table, half, dtype_of(sin.scalar_type())}, {to + t * heads * n * size, n, dtype_of(x.scalar_type())}, interleaved,
                 static_cast<RotaryArithmetic>(arithmetic), heads, half, n, 0, heads);
  });
  return y;
}

TileState* states_of(const Tensor& states) { return reinterpret_cast<TileState*>(states.mutable_data_ptr<float>()); }
static_assert(sizeof(TileState) == 4 * sizeof(float));

// Adds one tile of logits [rows, n] to `states` [rows, 4] and the tables of the largest [rows, top_k].
void logprob_tile(const Tensor& logits, double temperature, const Tensor& targets, int64_t start, Tensor states,
                  Tensor top_logits, Tensor top_ids, c10::string_view isa) {
  const auto& set = kernels(isa);
  const int64_t* wanted = targets.const_data_ptr<int64_t>();
  float* logit = top_logits.mutable_data_ptr<float>();
  int64_t* id = top_ids.mutable_data_ptr<int64_t>();
  over_rows(logits.size(0), logits.size(1), [&](int64_t begin, int64_t end) {
    set.logprob_tile(in(logits), static_cast<float>(temperature), wanted, start, states_of(states), logit, id,
                     top_logits.size(1), logits.size(1), begin, end);
  });
}

// -> log-probability and entropy [rows]; the table of logits becomes one of log-probabilities.
std::tuple<Tensor, Tensor> logprob_finish(const Tensor& states, Tensor top_logits, c10::string_view isa) {
  const auto& set = kernels(isa);
  Tensor logprob = at::empty({states.size(0)}, states.options()), entropy = at::empty_like(logprob);
  const Environment environment;
  set.logprob_finish(states_of(states), logprob.mutable_data_ptr<float>(), entropy.mutable_data_ptr<float>(),
                     top_logits.mutable_data_ptr<float>(), top_logits.size(1), 0, states.size(0));
  return {logprob, entropy};
}

// logits [rows, n] -> [rows, n] float32, the sum over the row taken in tiles of `tile`.
Tensor tiled_log_softmax(const Tensor& logits, int64_t tile, c10::string_view isa) {
  const auto& set = kernels(isa);
  TORCH_CHECK_VALUE(tile > 0 && tile % 16 == 0, "tile = ", tile, ": a multiple of 16 is accepted");
  const Tensor x = logits.stride(1) == 1 ? logits : logits.contiguous();
  Tensor y = at::empty({x.size(0), x.size(1)}, x.options().dtype(at::kFloat));
  over_rows(x.size(0), x.size(1), [&](int64_t begin, int64_t end) {
    set.tiled_log_softmax(in(x), out(y), tile, x.size(1), begin, end);
  });
  return y;
}

// -> gradient of one tile of logits [rows, n], float32.
Tensor logprob_slope(const Tensor& logits, double temperature, const Tensor& targets, int64_t start,
                     const Tensor& states, const Tensor& entropy, const Tensor& dlogprob, const Tensor& dentropy,
                     c10::string_view isa) {
  const auto& set = kernels(isa);
  Tensor slope = at::empty({logits.size(0), logits.size(1)}, logits.options().dtype(at::kFloat));
  over_rows(logits.size(0), logits.size(1), [&](int64_t begin, int64_t end) {
    set.logprob_slope(in(logits), static_cast<float>(temperature), targets.const_data_ptr<int64_t>(), start,
                      states_of(states), entropy.const_data_ptr<float>(), dlogprob.const_data_ptr<float>(),
                      dentropy.const_data_ptr<float>(), out(slope), logits.size(1), begin, end);
  });
  return slope;
}

}  // namespace
}  // namespace driftscope

TORCH_LIBRARY_FRAGMENT(driftscope_cpu, library) {
  using namespace driftscope;
  library.def("softmax_family(Tensor x, int family, ScalarType out_dtype, str isa) -> Tensor", &softmax_family);
  library.def("softmax_family_backward(Tensor dy, Tensor x, int family, str isa) -> Tensor",
              &softmax_family_backward);
  library.def("sum(Tensor x, float divisor, ScalarType out_dtype, str isa) -> Tensor", &driftscope::sum);
  library.def(
      "rms_norm(Tensor x, Tensor? residual, Tensor weight, float eps, bool round_before_weight, "
      "bool read_rounded_sum, str isa) -> (Tensor, Tensor)",
      &driftscope::rms_norm);
  library.def(
      "rms_norm_backward(Tensor dy, Tensor? dtotal, Tensor x, Tensor? residual, Tensor weight, float eps, "
      "bool round_before_weight, bool read_rounded_sum, Tensor? carry, int block, str isa) -> (Tensor, Tensor)",
      &rms_norm_backward);
  library.def("column_sum(Tensor x, Tensor? carry, int block, str isa) -> Tensor", &column_sum);
  library.def("swiglu(Tensor gate, Tensor up, bool round_silu, str isa) -> Tensor", &driftscope::swiglu);
  library.def("swiglu_backward(Tensor dy, Tensor gate, Tensor up, bool round_silu, str isa) -> (Tensor, Tensor)",
              &swiglu_backward);
  library.def(
      "rotary(Tensor x, Tensor cos, Tensor sin, bool interleaved, int arithmetic, str isa) -> Tensor",
      &driftscope::rotary);
  library.def(
      "logprob_tile(Tensor logits, float temperature, Tensor targets, int start, Tensor(a!) states, "
      "Tensor(b!) top_logits, Tensor(c!) top_ids, str isa) -> ()",
      &logprob_tile);
  library.def("logprob_finish(Tensor states, Tensor(a!) top_logits, str isa) -> (Tensor, Tensor)",
              &logprob_finish);
  library.def("tiled_log_softmax(Tensor logits, int tile, str isa) -> Tensor", &tiled_log_softmax);
  library.def(
      "logprob_slope(Tensor logits, float temperature, Tensor targets, int start, Tensor states, Tensor entropy, "
      "Tensor dlogprob, Tensor dentropy, str isa) -> Tensor",
      &logprob_slope);
}
