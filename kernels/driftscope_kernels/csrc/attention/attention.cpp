// The torch operators over attention. Threads divide sequences, key heads and blocks of queries among them, never
// the keys of a query.
#include "attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <atomic>
#include <limits>
#include <memory>
#include <vector>

#include "dispatch.h"
#include "environment.h"

namespace driftscope {
namespace {

using at::Tensor;
using MaybeTensor = c10::optional<Tensor>;

// Rows (queries times query heads of a key head) of one item: enough to pay for the copy of a tile of keys.
constexpr int64_t kItemRows = 384;
// Below this many multiply-adds a second thread costs more than it saves.
constexpr int64_t kThreadWork = 1 << 18;

std::vector<const AttentionKernels*> known() {
#if defined(__x86_64__)
  return {&attention_avx512, &attention_avx2, &attention_scalar};
#else
  return {&attention_scalar};
#endif
}

const AttentionKernels& kernels(c10::string_view name) { return chosen_without_bf16(known(), name); }

// Grows only: memory that is new at every call costs more than a step of decoding.
float* workspace(int64_t floats) {
  static thread_local std::unique_ptr<float[]> memory;
  static thread_local int64_t size = 0;
  if (size < floats) memory.reset(new float[floats]()), size = floats;
  return memory.get();
}

// [tokens, heads, size], or pages of them.
AttentionCache cache(const Tensor& x) {
  const int64_t first = x.dim() - 3;
  return {x.const_data_ptr(), first ? x.stride(0) : 0, x.stride(first), x.stride(first + 1), x.stride(first + 2)};
}

// A vector of int32 or int64 as int64; a conversion by torch would cost as much as a short attention.
std::vector<int64_t> integers(const Tensor& x) {
  const Tensor own = x.contiguous();
  if (own.scalar_type() == at::kInt) {
    const int32_t* from = own.const_data_ptr<int32_t>();
    return {from, from + own.numel()};
  }
  const int64_t* from = own.const_data_ptr<int64_t>();
  return {from, from + own.numel()};
}

void check_integers(const char* name, const Tensor& x, int64_t dims) {
  TORCH_CHECK_VALUE(x.is_cpu() && x.dim() == dims && (x.scalar_type() == at::kInt || x.scalar_type() == at::kLong),
                    name, " ", x.sizes(), " ", x.scalar_type(), ": expected integers of ", dims, " dimension(s)");
}

// All that the kernels, which read raw memory, rely on, but for what the integers say.
void check(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& cu_seqlens_q, const Tensor& seqlens_k,
           const MaybeTensor& block_table, c10::optional<int64_t> window) {
  const int64_t dims = block_table ? 4 : 3;
  TORCH_CHECK_VALUE(q.is_cpu() && k.is_cpu() && v.is_cpu(),
                    "the CPU kernels take tensors on the CPU; move them with .cpu()");
  TORCH_CHECK_VALUE(q.dim() == 3 && k.dim() == dims && k.sizes() == v.sizes() && k.size(-1) == q.size(2) &&
                        q.size(2) <= kMostHeadSize,
                    "attention: q ", q.sizes(), ", k ", k.sizes(), ", v ", v.sizes(),
                    "; expected q [T, H, D], k and v [S, KH, D] or, with a block_table, [pages, page size, KH, D]");
  TORCH_CHECK_VALUE(k.size(-2) > 0 && q.size(1) % k.size(-2) == 0 && (!block_table || k.size(1) > 0), "attention: ",
                    q.size(1), " query heads cannot share ", k.size(-2), " key heads evenly");
  TORCH_CHECK_TYPE(q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type(), "q ", q.scalar_type(),
                   ", k ", k.scalar_type(), ", v ", v.scalar_type(),
                   ": give all of them one dtype, float32, bfloat16 or float16");
  TORCH_CHECK_VALUE(!window || *window >= 1, "attention: window = ", window.value_or(0),
                    "; give at least 1, or None");
  check_integers("cu_seqlens_q", cu_seqlens_q, 1);
  check_integers("seqlens_k", seqlens_k, 1);
  if (block_table) check_integers("block_table", *block_table, 2);
  const int64_t count = seqlens_k.size(0);
  TORCH_CHECK_VALUE(cu_seqlens_q.size(0) == count + 1 && (!block_table || block_table->size(0) == count),
                    "attention: for ", count, " sequences, as seqlens_k has, cu_seqlens_q has one more entry, and "
                    "block_table as many rows");
}

void check_alike(const char* name, const Tensor& x, const Tensor& q) {
  TORCH_CHECK_VALUE(x.is_cpu() && x.sizes() == q.sizes() && x.scalar_type() == q.scalar_type() && x.is_contiguous(),
                    "attention: ", name, " ", x.sizes(), " ", x.scalar_type(), " is not a contiguous tensor like q");
}

// The batch: what the problem points into is kept here.
struct Batch {
  Tensor q, table;
  std::vector<int64_t> starts, lengths, key_starts;
  AttentionProblem problem;

  Batch(const Batch&) = delete;
  Batch(const Tensor& query, const Tensor& k, const Tensor& v, const Tensor& cu_seqlens_q, const Tensor& seqlens_k,
        const MaybeTensor& block_table, double scale, c10::optional<int64_t> window, c10::optional<double> soft_cap,
        bool round_probabilities)
      : q(query.stride(2) == 1 ? query : query.contiguous()), starts(integers(cu_seqlens_q)), lengths(integers(seqlens_k)) {
    if (block_table) table = block_table->to(at::kInt).contiguous();
    key_starts.push_back(0);
    for (int64_t length : lengths) key_starts.push_back(key_starts.back() + length);
    problem = {dtype_of(q.scalar_type()), q.size(1), k.size(-2), q.size(2), q.const_data_ptr(), q.stride(0), q.stride(1),
               cache(k), cache(v), starts.data(), key_starts.data(), lengths.data(),
               block_table ? table.const_data_ptr<int32_t>() : nullptr, block_table ? table.size(1) : 0,
               block_table ? k.size(1) : 0, static_cast<float>(scale), static_cast<float>(soft_cap.value_or(0.0)),
               window.value_or(std::numeric_limits<int32_t>::max()), round_probabilities, nullptr};
    check_lengths(block_table ? -1 : k.size(0));
    if (block_table) check_pages(k.size(0));
  }

  int64_t sequences() const { return static_cast<int64_t>(lengths.size()); }
  int64_t group() const { return problem.heads / problem.kv_heads; }
  int64_t queries(int64_t s) const { return problem.query_starts[s + 1] - problem.query_starts[s]; }

  // Starts and lengths become addresses too; `tokens` of the keys, or -1 where they are in pages.
  void check_lengths(int64_t tokens) const {
    TORCH_CHECK_VALUE(starts.front() == 0 && starts.back() == q.size(0), "cu_seqlens_q goes from ", starts.front(),
                      " to ", starts.back(), "; expected 0 to ", q.size(0));
    for (int64_t s = 0; s < sequences(); ++s)
      TORCH_CHECK_VALUE(0 <= queries(s) && queries(s) <= lengths[s], "sequence ", s, " has ", queries(s),
                        " queries and ", lengths[s], " keys; the queries are the last tokens of the sequence");
    TORCH_CHECK_VALUE(tokens < 0 || key_starts.back() == tokens, "seqlens_k adds up to ", key_starts.back(),
                      ", k has ", tokens, " tokens");
  }

  // Every page that a query sees has to be there: its number becomes an address.
  void check_pages(int64_t pages) const {
    for (int64_t s = 0; s < sequences(); ++s) {
      const int64_t length = problem.lengths[s], first = std::max<int64_t>(0, length - queries(s) - problem.window + 1);
      if (queries(s) == 0) continue;
      for (int64_t i = first / problem.page_size; i * problem.page_size < length; ++i) {
        const int64_t page = i < problem.table_stride ? problem.table[s * problem.table_stride + i] : -1;
        TORCH_CHECK_VALUE(page >= 0 && page < pages, "block_table: page ", i, " of sequence ", s, " is ", page,
                          ", but the cache has pages 0 to ", pages - 1, " and the table ", problem.table_stride,
                          " columns");
      }
    }
  }

  // Blocks of queries; those of one key head follow each other, so that its keys stay in cache.
  std::vector<AttentionItem> query_items() const {
    std::vector<AttentionItem> items;
    const int64_t block = std::max<int64_t>(1, kItemRows / group());
    for (int64_t s = 0; s < sequences(); ++s)
      for (int64_t head = 0; head < problem.kv_heads; ++head)
        for (int64_t end = queries(s); end > 0; end = (end - 1) / block * block)
          items.push_back({s, head, (end - 1) / block * block, end});
    return items;
  }

  std::vector<AttentionItem> key_items() const {
    std::vector<AttentionItem> items;
    for (int64_t s = 0; s < sequences(); ++s)
      for (int64_t head = 0; head < problem.kv_heads; ++head)
        for (int64_t tile = 0; tile < problem.lengths[s]; tile += kTile)
          items.push_back({s, head, tile, std::min(tile + kTile, problem.lengths[s])});
    return items;
  }

  int64_t work() const {
    int64_t total = 0;
    for (int64_t s = 0; s < sequences(); ++s)
      total += queries(s) * std::min(problem.lengths[s], problem.window + queries(s));
    return total * problem.heads * problem.head_size;
  }
};

// Each thread takes the next item that is left; which one it is changes no bit.
template <class Run>
void over(const Batch& batch, const AttentionKernels& set, const std::vector<AttentionItem>& items, Run&& run) {
  const int64_t count = static_cast<int64_t>(items.size());
  const int64_t rows = std::max(kItemRows, batch.group());
  const int64_t threads = batch.work() < kThreadWork ? 1 : std::min<int64_t>(at::get_num_threads(), count);
  std::atomic<int64_t> next{0};
  const auto take = [&](int64_t, int64_t) {
    const Environment environment;
    float* memory = workspace(set.workspace(rows));
    for (int64_t i = next++; i < count; i = next++) run(items[i], memory);
  };
  if (threads <= 1) take(0, 1);
  else at::parallel_for(0, threads, 1, take);
}

// -> `out` if there is one, contiguous in the shape of q.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const MaybeTensor& given_out,
                 const Tensor& cu_seqlens_q, const Tensor& seqlens_k, const MaybeTensor& block_table, double scale, c10::optional<int64_t> window,
                 c10::optional<double> soft_cap, bool round_probabilities, c10::string_view isa) {
  const auto& set = kernels(isa);
  check(q, k, v, cu_seqlens_q, seqlens_k, block_table, window);
  if (given_out) check_alike("out", *given_out, q);
  Batch batch(q, k, v, cu_seqlens_q, seqlens_k, block_table, scale, window, soft_cap, round_probabilities);
  Tensor out = given_out ? *given_out : at::empty(q.sizes(), q.options());
  batch.problem.out = out.mutable_data_ptr();
  over(batch, set, batch.query_items(),
       [&](const AttentionItem& item, float* memory) { set.forward(batch.problem, item, memory); });
  return out;
}

// -> dq, dk, dv. dy contiguous.
std::tuple<Tensor, Tensor, Tensor> attention_backward(const Tensor& dy, const Tensor& q, const Tensor& k,
                                                      const Tensor& v, const Tensor& cu_seqlens_q,
                                                      const Tensor& seqlens_k, double scale,
                                                      c10::optional<int64_t> window, c10::optional<double> soft_cap,
                                                      bool round_probabilities, c10::string_view isa) {
  const auto& set = kernels(isa);
  check(q, k, v, cu_seqlens_q, seqlens_k, c10::nullopt, window);
  check_alike("dy", dy, q);
  const Batch batch(q, k, v, cu_seqlens_q, seqlens_k, c10::nullopt, scale, window, soft_cap, round_probabilities);
  Tensor dq = at::empty(q.sizes(), q.options()), dk = at::empty(k.sizes(), k.options());
  Tensor dv = at::empty(v.sizes(), v.options());
  Tensor statistics = at::empty({q.size(0), q.size(1), 3}, q.options().dtype(at::kFloat));
  const AttentionGradients gradients{dy.const_data_ptr(), dq.mutable_data_ptr(), dk.mutable_data_ptr(),
                                     dv.mutable_data_ptr(), statistics.mutable_data_ptr<float>()};
  over(batch, set, batch.query_items(), [&](const AttentionItem& item, float* memory) {
    set.backward_queries(batch.problem, gradients, item, memory);
  });
  over(batch, set, batch.key_items(), [&](const AttentionItem& item, float* memory) {
    set.backward_keys(batch.problem, gradients, item, memory);
  });
  return {dq, dk, dv};
}

}  // namespace
}  // namespace driftscope

TORCH_LIBRARY_FRAGMENT(driftscope_cpu, library) {
  library.def(
      "attention(Tensor q, Tensor k, Tensor v, Tensor(a!)? out, Tensor cu_seqlens_q, Tensor seqlens_k, Tensor? block_table, "
      "float scale, int? window, float? soft_cap, bool round_probabilities, str isa) -> Tensor",
      &driftscope::attention);
  library.def(
      "attention_backward(Tensor dy, Tensor q, Tensor k, Tensor v, Tensor cu_seqlens_q, Tensor seqlens_k, "
      "float scale, int? window, float? soft_cap, bool round_probabilities, str isa) -> (Tensor, Tensor, Tensor)",
      &driftscope::attention_backward);
}
