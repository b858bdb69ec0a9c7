// The output step value by value: bias, one quiet NaN for all, one rounding. Included inside `Isa`.

static void finish(const float* sums, const float* bias, int64_t count, Dtype dtype, void* out) {
  for (int64_t j = 0; j < count; ++j) {
    const float y = bias ? sums[j] + bias[j] : sums[j];
    uint32_t u;
    __builtin_memcpy(&u, &y, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u) u = 0x7fc00000u;
    if (dtype == Dtype::f32)
      static_cast<uint32_t*>(out)[j] = u;
    else if (dtype == Dtype::bf16)
      static_cast<uint16_t*>(out)[j] = static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
    else
      static_cast<uint16_t*>(out)[j] = single_bits_to_half(u);
  }
}
