// The exponential and the logarithm of the numeric contract, operation by operation as in reference/exp.py and
// reference/log.py, whose comments give the sources of the coefficients. Included after lanes.h.

constexpr float kLog2E = 0x1.715476p+0f, kLn2High = 0x1.62e43p-1f, kLn2Low = -0x1.05c61p-29f;
constexpr float kExpLargest = 0x1.62e42ep+6f, kExpSmallest = -0x1.5d589ep+6f;
// Adding and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even, below 2^22.
constexpr float kToInteger = 0x1.8p+23f;
constexpr int kMantissaBits = 23;

inline Lanes exponential(Lanes x) {
  // NaN goes through: `larger` and `smaller` give their second argument then.
  const Lanes inside = smaller(all(kExpLargest), larger(all(kExpSmallest), x));
  const Lanes n = (inside * kLog2E + kToInteger) - kToInteger;
  const Lanes r = fma(-n, all(kLn2Low), fma(-n, all(kLn2High), inside));
  Lanes p = all(0x1.6a23d0p-10f);
  p = fma(p, r, all(0x1.123a20p-7f));
  p = fma(p, r, all(0x1.5558f2p-5f));
  p = fma(p, r, all(0x1.555492p-3f));
  p = fma(p, r, all(0x1.fffffcp-2f));
  p = fma(p, r, all(1.0f));
  p = fma(p, r, all(1.0f));
  Lanes y = scaled(p, n);
  y = x > kExpLargest ? all(__builtin_inff()) : y;
  return x < kExpSmallest ? Lanes{} : y;
}

inline float exponential(float x) { return exponential(all(x))[0]; }

constexpr int32_t kRootHalfBits = 0x3f3504f3;
constexpr float kSmallestNormal = 0x1p-126f, kSubnormalScale = 0x1p+23f;

inline float logarithm(float x) {
  if (x != x || x < 0) return __builtin_nanf("");
  if (x == 0) return -__builtin_inff();
  if (x == __builtin_inff()) return x;
  const bool subnormal = x < kSmallestNormal;
  const float scaled = subnormal ? x * kSubnormalScale : x;
  int32_t bits;
  std::memcpy(&bits, &scaled, 4);
  const int32_t whole = (bits - kRootHalfBits) >> kMantissaBits;
  const int32_t fraction = bits - static_cast<int32_t>(static_cast<uint32_t>(whole) << kMantissaBits);
  float f;
  std::memcpy(&f, &fraction, 4);
  f = f - 1.0f;
  const float e = static_cast<float>(whole - (subnormal ? kMantissaBits : 0)), z = f * f;
  float p = -0x1.38b56cp-4f;
  p = fma(p, f, 0x1.055d6ep-3f);
  p = fma(p, f, -0x1.0d8634p-3f);
  p = fma(p, f, 0x1.22d9e8p-3f);
  p = fma(p, f, -0x1.547228p-3f);
  p = fma(p, f, 0x1.99a00ap-3f);
  p = fma(p, f, -0x1.000228p-2f);
  p = fma(p, f, 0x1.555554p-2f);
  float y = fma(e, kLn2Low, (p * f) * z);
  y = fma(-0.5f, z, y);
  return fma(e, kLn2High, f + y);
}
