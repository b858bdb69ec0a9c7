// float16 <-> float32 by integers and exact float32 steps, for every compiler. Both directions IEEE; the
// narrowing rounds to nearest even.

inline uint32_t half_bits_to_single(uint16_t h) {
  const uint32_t sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 31, fraction = h & 0x3ffu;
  if (exponent == 31) return sign | 0x7f800000u | fraction << 13;
  if (exponent) return sign | (exponent + 112) << 23 | fraction << 13;
  if (!fraction) return sign;
  const int shift = __builtin_clz(fraction) - 21;  // leading zeros within the 11 bits of a half's significand
  return sign | static_cast<uint32_t>(113 - shift) << 23 | ((fraction << shift) & 0x3ffu) << 13;
}

inline uint16_t single_bits_to_half(uint32_t u) {
  const uint16_t sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  const uint32_t size = u & 0x7fffffffu;
  if (size > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (size >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65536 and above
  // Below 2^-14 the half's last bit is worth 2^-24; above, 13 bits of the single are dropped.
  const int dropped = size < 0x38800000u ? 126 - static_cast<int>(size >> 23) : 13;
  if (dropped > 24) return sign;
  const uint32_t significand = size < 0x38800000u ? (size & 0x7fffffu) | 0x800000u : size - 0x38000000u;
  const uint32_t half = 1u << (dropped - 1), rest = significand & ((1u << dropped) - 1);
  uint32_t kept = significand >> dropped;
  if (rest > half || (rest == half && (kept & 1))) ++kept;
  return static_cast<uint16_t>(sign | kept);
}
