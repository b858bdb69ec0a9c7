// Sixteen float32 lanes: the unit of every order in the row kernels, one AVX-512 register, two AVX2 registers or
// plain code. Included inside an unnamed namespace by each file that is built for one instruction set.
//
// Generic vector code computes lane by lane, so all instruction sets give the same bits; only the fused
// multiply-add, the root and the conversion of halves need the machine's own instructions.

constexpr int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

// Taking +0 away changes nothing; adding it would turn -0 into +0.
inline Lanes all(float x) { return x - Lanes{}; }
inline Ints all_ints(int32_t x) { return Ints{} + x; }

#if defined(DRIFTSCOPE_AVX2)
union Pair {
  Lanes lanes;
  __m256 half[2];
};
#endif

inline Lanes fma(Lanes a, Lanes b, Lanes c) {
#if defined(DRIFTSCOPE_AVX512)
  return (Lanes)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(DRIFTSCOPE_AVX2)
  Pair x{a}, y{b}, z{c};
  for (int i = 0; i < 2; ++i) z.half[i] = _mm256_fmadd_ps(x.half[i], y.half[i], z.half[i]);
  return z.lanes;
#else
  for (int i = 0; i < kLanes; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
#endif
}

// a > b ? a : b, lane by lane: b where one of them is NaN. `smaller` likewise.
inline Lanes larger(Lanes a, Lanes b) {
#if defined(DRIFTSCOPE_AVX512)
  return (Lanes)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(DRIFTSCOPE_AVX2)
  Pair x{a}, y{b};
  for (int i = 0; i < 2; ++i) x.half[i] = _mm256_max_ps(x.half[i], y.half[i]);
  return x.lanes;
#else
  return a > b ? a : b;
#endif
}
inline Lanes smaller(Lanes a, Lanes b) {
#if defined(DRIFTSCOPE_AVX512)
  return (Lanes)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(DRIFTSCOPE_AVX2)
  Pair x{a}, y{b};
  for (int i = 0; i < 2; ++i) x.half[i] = _mm256_min_ps(x.half[i], y.half[i]);
  return x.lanes;
#else
  return a < b ? a : b;
#endif
}

// x times 2 to the n; n is whole and the result a normal number, or unused.
inline Lanes scaled(Lanes x, Lanes n) {
#if defined(DRIFTSCOPE_AVX512)
  return (Lanes)_mm512_scalef_ps((__m512)x, (__m512)n);
#else
  constexpr int kMantissaBits = 23;
  return (Lanes)((Ints)x + (__builtin_convertvector(n, Ints) << kMantissaBits));
#endif
}

inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float root(float x) { return __builtin_sqrtf(x); }

// Every NaN becomes 0x7fc00000: which payload survives an operation depends on the compiler.
inline Lanes quiet(Lanes x) { return x != x ? (Lanes)all_ints(0x7fc00000) : x; }
inline float quiet(float x) { return x != x ? __builtin_nanf("") : x; }

inline Lanes widen_bf16(Halves h) { return (Lanes)(__builtin_convertvector(h, Words) << 16); }

// Round to nearest even; no NaN comes in but the quiet one, which stays.
inline Halves narrow_bf16(Lanes x) {
  const Words u = (Words)x;
  return __builtin_convertvector((u + 0x7fffu + ((u >> 16) & 1u)) >> 16, Halves);
}

inline Lanes widen_f16(Halves h) {
#if defined(DRIFTSCOPE_AVX512)
  return (Lanes)_mm512_cvtph_ps((__m256i)h);
#elif defined(DRIFTSCOPE_AVX2)
  union { Halves all; __m128i half[2]; } from{h};
  Pair to;
  for (int i = 0; i < 2; ++i) to.half[i] = _mm256_cvtph_ps(from.half[i]);
  return to.lanes;
#else
  Words w;
  for (int i = 0; i < kLanes; ++i) w[i] = half_bits_to_single(h[i]);
  return (Lanes)w;
#endif
}

inline Halves narrow_f16(Lanes x) {
#if defined(DRIFTSCOPE_AVX512)
  return (Halves)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT);
#elif defined(DRIFTSCOPE_AVX2)
  union { Halves all; __m128i half[2]; } to;
  const Pair from{x};
  for (int i = 0; i < 2; ++i) to.half[i] = _mm256_cvtps_ph(from.half[i], _MM_FROUND_TO_NEAREST_INT);
  return to.all;
#else
  Halves h;
  for (int i = 0; i < kLanes; ++i) h[i] = single_bits_to_half(((Words)x)[i]);
  return h;
#endif
}

// The element types: 16 elements from or to memory, `count` of them at the end of a row.
struct Single {
  typedef float Stored;
  static Lanes load(const Stored* p) {
    Lanes x;
    std::memcpy(&x, p, sizeof x);
    return x;
  }
  static void store(Stored* p, Lanes x) {
    x = quiet(x);
    std::memcpy(p, &x, sizeof x);
  }
  static Lanes rounded(Lanes x) { return x; }
};

template <Lanes (*Widen)(Halves), Halves (*Narrow)(Lanes)>
struct Short {
  typedef uint16_t Stored;
  static Lanes load(const Stored* p) {
    Halves h;
    std::memcpy(&h, p, sizeof h);
    return Widen(h);
  }
  static void store(Stored* p, Lanes x) {
    const Halves h = Narrow(quiet(x));
    std::memcpy(p, &h, sizeof h);
  }
  static Lanes rounded(Lanes x) { return Widen(Narrow(quiet(x))); }
};
typedef Short<widen_bf16, narrow_bf16> Brain;
typedef Short<widen_f16, narrow_f16> Half;

// Sixteen elements, or the `count` that are left at the end of a row.
struct Full {};
struct Some {
  int64_t count;
};

// body(i, Full) for every whole register of a row of n elements, then body(i, Some) for what is left.
template <class Body>
inline void each(int64_t n, Body&& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Full{});
  if (i < n) body(i, Some{n - i});
}

// Elements from i on, `rest` beyond the end of the row.
template <class E>
inline Lanes at(const typename E::Stored* row, int64_t i, Full, float = 0.0f) {
  return E::load(row + i);
}
template <class E>
inline Lanes at(const typename E::Stored* row, int64_t i, Some part, float rest = 0.0f) {
  typename E::Stored buffer[kLanes] = {};
  std::memcpy(buffer, row + i, part.count * sizeof *row);
  Lanes x = E::load(buffer);
  for (int64_t j = part.count; j < kLanes; ++j) x[j] = rest;
  return x;
}
template <class E>
inline void put(typename E::Stored* row, int64_t i, Full, Lanes x) {
  E::store(row + i, x);
}
template <class E>
inline void put(typename E::Stored* row, int64_t i, Some part, Lanes x) {
  typename E::Stored buffer[kLanes];
  E::store(buffer, x);
  std::memcpy(row + i, buffer, part.count * sizeof *row);
}
template <class E>
inline void put_one(typename E::Stored* place, float x) {
  put<E>(place, 0, Some{1}, all(x));
}

// +0 beyond the end of the row: there an operation on the filling may have given anything.
inline Lanes within(Lanes x, Full) { return x; }
inline Lanes within(Lanes x, Some part) {
  for (int64_t j = part.count; j < kLanes; ++j) x[j] = 0.0f;
  return x;
}

// Lane i + lane i + 8 for i < 8, then i + (i + 4), i + (i + 2), i + (i + 1).
inline float merged(Lanes x) {
#if defined(DRIFTSCOPE_AVX512)
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256((__m512)x), _mm512_extractf32x8_ps((__m512)x, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
  float v[kLanes];
  std::memcpy(v, &x, sizeof v);
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; ++i) v[i] = v[i] + v[i + half];
  return v[0];
#endif
}

// The largest lane; NaN are passed over.
inline float largest_lane(Lanes x) {
  float most = -__builtin_inff();
  for (int i = 0; i < kLanes; ++i) most = x[i] > most ? x[i] : most;
  return most;
}
