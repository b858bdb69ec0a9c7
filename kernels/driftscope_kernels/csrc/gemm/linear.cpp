// The torch operators over the matrix product: packing a weight, linear, batched product. Threads divide
// panels or row tiles among them, never k.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <torch/library.h>

#include <cstdlib>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "dispatch.h"
#include "gemm.h"

namespace driftscope {
namespace {

using at::Tensor;

// Rows per pass: their packed form and one panel's sums stay in the outer caches.
constexpr int64_t kPassTiles = 40;
// Below this many multiply-adds a second thread costs more than it saves.
constexpr int64_t kThreadWork = 1 << 18;
constexpr size_t kHugePage = size_t{1} << 21;

std::vector<const InstructionSet*> known() {
#if defined(__x86_64__)
  return {&avx512_bf16, &avx512, &avx2, &scalar};
#else
  return {&scalar};
#endif
}

const InstructionSet& instruction_set(c10::string_view name) { return chosen(known(), name); }

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const InstructionSet* set : known())
    if (set->available()) names.emplace_back(set->name);
  return names;
}

int64_t panels_of(int64_t n) { return (n + kPanel - 1) / kPanel; }

// Bytes that stream from memory at every small product: large pages spare the address translation.
Tensor packed_storage(int64_t bytes) {
  const size_t align = static_cast<size_t>(bytes) >= kHugePage ? kHugePage : 64;
  const size_t size = (static_cast<size_t>(bytes) + align) / align * align;
  void* data = std::aligned_alloc(align, size);
  TORCH_CHECK(data != nullptr, "out of memory: ", size, " bytes for a packed weight");
#if defined(__linux__)
  if (align == kHugePage) madvise(data, size, MADV_HUGEPAGE);
#endif
  return at::from_blob(data, {bytes}, [](void* p) { std::free(p); }, at::dtype(at::kByte));
}

Tensor pack_weight(const Tensor& weight, c10::string_view name) {
  const InstructionSet& set = instruction_set(name);
  const Dtype dtype = dtype_of(weight.scalar_type());
  const int64_t n = weight.size(0), k = weight.size(1);
  const int64_t bytes = steps_of(dtype, k) * panel_step_bytes(dtype);
  Tensor packed = packed_storage(panels_of(n) * bytes);
  const WeightView view{weight.const_data_ptr(), weight.stride(0), weight.stride(1)};
  char* to = static_cast<char*>(packed.mutable_data_ptr());
  at::parallel_for(0, panels_of(n), 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) set.pack_panel(dtype, view, n, 0, k, p, to + p * bytes);
  });
  return packed;
}

// One pass of at most kPassTiles row tiles, already packed: panels by tiles among threads.
void multiply_pass(const InstructionSet& set, const Gemm& g) {
  const int64_t rows = set.tile_rows(g.dtype), tiles = (g.m + rows - 1) / rows, panels = panels_of(g.n);
  const int64_t threads = at::get_num_threads();
  const int64_t groups = panels >= 2 * threads ? 1 : std::min(tiles, threads);
  const int64_t item = g.m * g.k * kPanel / groups + 1;
  at::parallel_for(0, panels * groups, kThreadWork / item + 1, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t group = begin / panels, p = begin % panels;
      const int64_t stop = std::min(panels, p + end - begin);
      set.multiply(g, p, stop, tiles * group / groups, tiles * (group + 1) / groups);
      begin += stop - p;
    }
  });
}

void product(const InstructionSet& set, Gemm g, const Tensor& x) {
  const int64_t rows = set.tile_rows(g.dtype), total = g.m, pass = kPassTiles * rows;
  const int64_t tile_bytes = rows * g.steps * 4, out_bytes = g.out_stride * (g.out_dtype == Dtype::f32 ? 4 : 2);
  const int64_t most = (std::min(total, pass) + rows - 1) / rows;
  const Tensor packed = at::empty({most * tile_bytes}, at::kByte);
  char* a = static_cast<char*>(packed.mutable_data_ptr());
  const char* from = static_cast<const char*>(x.const_data_ptr());
  char* out = static_cast<char*>(g.out);
  const float* initial = g.initial;
  g.a = a;
  for (int64_t row = 0; row < total; row += pass) {
    g.m = std::min(pass, total - row);
    const int64_t tiles = (g.m + rows - 1) / rows;
    at::parallel_for(0, tiles, kThreadWork / (rows * g.k + 1) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        set.pack_rows(g.dtype, from + (row + t * rows) * x.stride(0) * x.element_size(), x.stride(0),
                      x.stride(1), std::min(rows, g.m - t * rows), g.k, a + t * tile_bytes);
    });
    g.out = out + row * out_bytes;
    if (initial) g.initial = initial + row * g.n;
    multiply_pass(set, g);
  }
}

// x [m, k], weight [n, k], both any strides -> [m, n].
Tensor linear(const Tensor& x, const Tensor& weight, const c10::optional<Tensor>& packed,
              const c10::optional<Tensor>& bias, const c10::optional<Tensor>& initial,
              at::ScalarType out_dtype, c10::string_view name) {
  const InstructionSet& set = instruction_set(name);
  const int64_t m = x.size(0), k = x.size(1), n = weight.size(0);
  Tensor out = at::empty({m, n}, x.options().dtype(out_dtype));
  if (m == 0 || n == 0) return out;
  Tensor added = bias ? bias->to(at::kFloat).contiguous() : Tensor();
  Tensor start = initial ? initial->contiguous() : Tensor();
  const Dtype dtype = dtype_of(x.scalar_type());
  const Gemm g{dtype, m, n, k, steps_of(dtype, k), nullptr, packed ? packed->const_data_ptr() : nullptr,
               {weight.const_data_ptr(), weight.stride(0), weight.stride(1)},
               bias ? added.const_data_ptr<float>() : nullptr,
               initial ? start.const_data_ptr<float>() : nullptr,
               out.mutable_data_ptr(), dtype_of(out_dtype), n};
  product(set, g, x);
  return out;
}

// a [batch, m, k] times b [batch, k, n] -> [batch, m, n]; each product as linear(a[i], b[i].T).
Tensor bmm(const Tensor& a, const Tensor& b, at::ScalarType out_dtype, c10::string_view name) {
  const InstructionSet& set = instruction_set(name);
  const int64_t m = a.size(1), k = a.size(2), n = b.size(2);
  Tensor out = at::empty({a.size(0), m, n}, a.options().dtype(out_dtype));
  if (out.numel() == 0) return out;
  const Dtype dtype = dtype_of(a.scalar_type());
  at::parallel_for(0, a.size(0), kThreadWork / (m * n * k + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Tensor left = a.select(0, i), right = b.select(0, i);
      const Gemm g{dtype, m, n, k, steps_of(dtype, k), nullptr, nullptr,
                   {right.const_data_ptr(), right.stride(1), right.stride(0)}, nullptr, nullptr,
                   out.select(0, i).mutable_data_ptr(), dtype_of(out_dtype), n};
      product(set, g, left);
    }
  });
  return out;
}

// Segment sums [8, m, n] float32 -> ((s0+s1)+(s2+s3))+((s4+s5)+(s6+s7)) (+ bias), rounded once.
Tensor merge_segments(const Tensor& sums, const c10::optional<Tensor>& bias, at::ScalarType out_dtype,
                      c10::string_view name) {
  const InstructionSet& set = instruction_set(name);
  const int64_t m = sums.size(1), n = sums.size(2), size = out_dtype == at::kFloat ? 4 : 2;
  Tensor out = at::empty({m, n}, sums.options().dtype(out_dtype));
  Tensor added = bias ? bias->to(at::kFloat).contiguous() : Tensor();
  const float* from = sums.const_data_ptr<float>();
  std::vector<float> row(n);
  for (int64_t i = 0; i < m; ++i) {
    set.merge(from + i * n, m * n, n, row.data());
    set.finish(row.data(), bias ? added.const_data_ptr<float>() : nullptr, n, dtype_of(out_dtype),
               static_cast<char*>(out.mutable_data_ptr()) + i * n * size);
  }
  return out;
}

}  // namespace
}  // namespace driftscope

TORCH_LIBRARY_FRAGMENT(driftscope_cpu, library) {
  library.def("instruction_sets() -> str[]", &driftscope::instruction_sets);
  library.def("pack_weight(Tensor weight, str isa) -> Tensor", &driftscope::pack_weight);
  library.def(
      "linear(Tensor x, Tensor weight, Tensor? packed, Tensor? bias, Tensor? initial, ScalarType out_dtype, "
      "str isa) -> Tensor",
      &driftscope::linear);
  library.def("bmm(Tensor a, Tensor b, ScalarType out_dtype, str isa) -> Tensor", &driftscope::bmm);
  library.def("merge_segments(Tensor sums, Tensor? bias, ScalarType out_dtype, str isa) -> Tensor",
              &driftscope::merge_segments);
}
