// Packing for any strides, element by element. Included inside `Isa`, which has widen_halves(from, count, to).

static uint32_t element(Dtype dtype, const void* data, int64_t index) {
  return dtype == Dtype::f32 ? static_cast<const uint32_t*>(data)[index]
                             : static_cast<const uint16_t*>(data)[index];
}

// Step s of `count` elements from index `base` on: the value, or a pair (even low, odd high, zero if missing).
static uint32_t step(Dtype dtype, const void* data, int64_t base, int64_t stride, int64_t s, int64_t count) {
  if (dtype != Dtype::bf16) return element(dtype, data, base + s * stride);
  const uint32_t even = element(dtype, data, base + 2 * s * stride);
  return 2 * s + 1 < count ? even | element(dtype, data, base + (2 * s + 1) * stride) << 16 : even;
}

static void gather_rows(Dtype dtype, const void* x, int64_t stride_m, int64_t stride_k, int64_t rows, int64_t k,
                        void* to) {
  const int64_t steps = steps_of(dtype, k);
  uint32_t* at = static_cast<uint32_t*>(to);
  for (int64_t s = 0; s < steps; ++s)
    for (int64_t i = 0; i < rows; ++i)
      at[s * rows + i] = step(dtype, x, i * stride_m, stride_k, s, k);
  if (dtype == Dtype::f16)
    for (int64_t i = 0; i < steps * rows; ++i) at[i] = half_bits_to_single(static_cast<uint16_t>(at[i]));
}

static void gather_panel(Dtype dtype, const WeightView& w, int64_t n0, int64_t columns, int64_t k0, int64_t count,
                         void* to) {
  const int64_t steps = steps_of(dtype, count);
  for (int64_t s = 0; s < steps; ++s)
    for (int64_t j = 0; j < kPanel; ++j) {
      const int64_t base = (n0 + j) * w.stride_n + k0 * w.stride_k;
      const uint32_t value = j < columns ? step(dtype, w.data, base, w.stride_k, s, count) : 0;
      if (dtype == Dtype::f16) static_cast<uint16_t*>(to)[s * kPanel + j] = static_cast<uint16_t>(value);
      else static_cast<uint32_t*>(to)[s * kPanel + j] = value;
    }
}
