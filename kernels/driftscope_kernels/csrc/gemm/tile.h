// The loops around one register tile. Each instruction set includes this file after defining `Isa` (see
// avx512.h) inside its own unnamed namespace: no symbol is shared between them.
//
// Every output has one float32 accumulator that goes along k in ascending order. Blocks along k spill it
// to memory, which is exact; the number of rows, the panels taken at once and the threads never change it.

// Steps of k per block: a block of one panel (128 bytes a step) is half of a 64 KiB or the whole of a 32 KiB L1.
constexpr int64_t kBlockSteps = 256;
// Bytes of streamed panels that are asked for ahead of use, and the size of a weight from which on that pays
// (both measured): a smaller one stays in the outer cache, where the requests cost more than they save.
constexpr int64_t kAhead = 2048, kNearBytes = int64_t{8} << 20;



// Output columns of `panels` panels from c [rows][32 * panels].
inline void write_tile(const Gemm& g, const float* c, int64_t rows, int64_t row0, int64_t panel,
                       int64_t panels) {
  const int64_t n0 = panel * kPanel, columns = smaller(panels * kPanel, g.n - n0);
  const int64_t size = g.out_dtype == Dtype::f32 ? 4 : 2;
  for (int64_t i = 0; i < rows; ++i)
    Isa::finish(c + i * panels * kPanel, g.bias ? g.bias + n0 : nullptr, columns, g.out_dtype,
                static_cast<char*>(g.out) + ((row0 + i) * g.out_stride + n0) * size);
}

// One block of one panel, ready for `Compute`: in place, widened, or packed from the caller's weight.
inline const char* panel_block(const Gemm& g, int64_t panel, int64_t k0, int64_t steps, char* scratch,
                               char* halves) {
  if (g.dtype != Dtype::f16) {
    if (g.packed) return static_cast<const char*>(g.packed) + (panel * g.steps + k0) * 128;
    const int64_t first = g.dtype == Dtype::bf16 ? 2 * k0 : k0;
    const int64_t count = g.dtype == Dtype::bf16 ? smaller(2 * steps, g.k - first) : steps;
    Isa::pack_panel(g.dtype, g.weight, g.n, first, count, panel, scratch);
    return scratch;
  }
  const char* from = halves;
  if (g.packed)
    from = static_cast<const char*>(g.packed) + (panel * g.steps + k0) * 64;
  else
    Isa::pack_panel(g.dtype, g.weight, g.n, k0, steps, panel, halves);
  Isa::widen_halves(from, steps * kPanel, reinterpret_cast<float*>(scratch));
  return scratch;
}

// The sums of one tile and panel set to what the caller wants to go on from.
inline void read_initial(const Gemm& g, float* c, int64_t rows, int64_t row0, int64_t panel) {
  const int64_t n0 = panel * kPanel, columns = smaller(kPanel, g.n - n0);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < kPanel; ++j) {
      const float value = j < columns ? g.initial[(row0 + i) * g.n + n0 + j] : 0.0f;
      const bool subnormal = __builtin_fabsf(value) < 0x1p-126f;
      c[i * kPanel + j] = g.dtype == Dtype::bf16 && subnormal ? __builtin_copysignf(0.0f, value) : value;
    }
}

// Many row tiles: a block of a panel is fetched once and met by every tile while it is in cache.
template <class B>
void multiply_tiles(const Gemm& g, int64_t p0, int64_t p1, int64_t t0, int64_t t1) {
  constexpr int64_t rows = Isa::template tile_rows<B>();
  alignas(64) char scratch[kBlockSteps * 128], halves[kBlockSteps * 64];
  const int64_t tiles = t1 - t0;
  float* sums = Isa::allocate(tiles * rows * kPanel);
  const uint32_t* a = static_cast<const uint32_t*>(g.a);
  // While the tiles meet one block, each asks for its share of the next: packed panels lie in a row.
  const int64_t step_bytes = panel_step_bytes(g.dtype), ahead = (step_bytes + tiles - 1) / tiles;
  for (int64_t p = p0; p < p1; ++p)
    for (int64_t k0 = 0; k0 < g.steps || k0 == 0; k0 += kBlockSteps) {
      const int64_t steps = smaller(kBlockSteps, g.steps - k0);
      const bool last = k0 + steps >= g.steps;
      const char* b = panel_block(g, p, k0, steps, scratch, halves);
      const char* next = b;
      if (g.packed) next = static_cast<const char*>(g.packed) + (p * g.steps + k0 + steps) * step_bytes;
      for (int64_t t = t0; t < t1; ++t) {
        const int64_t high = smaller(rows, g.m - t * rows);
        float* c = sums + (t - t0) * rows * kPanel;
        if (g.initial && k0 == 0) read_initial(g, c, high, t * rows, p);
        Isa::template micro<B, 1>(high)(a + t * rows * g.steps + k0 * high, b, 0, steps, c, k0 > 0 || g.initial,
                                        next + (t - t0) * steps * ahead, g.packed ? ahead : 0);
        if (last) write_tile(g, c, high, t * rows, p, 1);
      }
    }
  Isa::release(sums);
}

// One row tile over packed panels: bound by memory, so several panels are streamed at once.
template <class B, int Panels>
int64_t multiply_stream(const Gemm& g, int64_t p, int64_t p1, int64_t t) {
  constexpr int64_t rows = Isa::template tile_rows<B>();
  alignas(64) float c[rows * kPanel * Panels];
  const int64_t high = smaller(rows, g.m - t * rows), bytes = g.steps * B::step_bytes;
  const bool far = bytes * g.n / kPanel > kNearBytes;
  for (; p + Panels <= p1; p += Panels) {
    Isa::template micro<B, Panels>(high)(static_cast<const uint32_t*>(g.a) + t * rows * g.steps,
                                         static_cast<const char*>(g.packed) + p * bytes, bytes, g.steps, c,
                                         false, static_cast<const char*>(g.packed) + p * bytes + kAhead / Panels,
                                         far ? B::step_bytes : 0);
    write_tile(g, c, high, t * rows, p, Panels);
  }
  return p;
}

template <class B>
void multiply_row_tile(const Gemm& g, int64_t p, int64_t p1, int64_t t) {
  const int64_t high = smaller(Isa::template tile_rows<B>(), g.m - t * Isa::template tile_rows<B>());
  if (high <= Isa::rows_of_four_panels) p = multiply_stream<B, 4>(g, p, p1, t);
  if (high <= Isa::rows_of_two_panels) p = multiply_stream<B, 2>(g, p, p1, t);
  multiply_stream<B, 1>(g, p, p1, t);
}

// `Stream` reads packed panels as they are; `Block` reads what panel_block prepares.
template <class Stream, class Block>
__attribute__((noinline)) void multiply_as(const Gemm& g, int64_t p0, int64_t p1, int64_t t0, int64_t t1) {
  if (t1 - t0 == 1 && g.packed && !g.initial)
    multiply_row_tile<Stream>(g, p0, p1, t0);
  else
    multiply_tiles<Block>(g, p0, p1, t0, t1);
}

// One row of eight segment sums: neighbours first, then pairs, then halves.
void merge(const float* sums, int64_t stride, int64_t count, float* to) {
  const Environment environment;
  for (int64_t j = 0; j < count; ++j) {
    const auto s = [=](int64_t i) { return sums[i * stride + j]; };
    to[j] = ((s(0) + s(1)) + (s(2) + s(3))) + ((s(4) + s(5)) + (s(6) + s(7)));
  }
}

void finish(const float* sums, const float* bias, int64_t count, Dtype out_dtype, void* out) {
  const Environment environment;
  Isa::finish(sums, bias, count, out_dtype, out);
}

void multiply(const Gemm& g, int64_t p0, int64_t p1, int64_t t0, int64_t t1) {
  const Environment environment;
  if (g.dtype == Dtype::f32) return multiply_as<Single, Single>(g, p0, p1, t0, t1);
  if (g.dtype == Dtype::bf16) return multiply_as<Pairs, Pairs>(g, p0, p1, t0, t1);
  multiply_as<Half, Single>(g, p0, p1, t0, t1);
}
