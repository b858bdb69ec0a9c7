// AVX-512: 12 rows by 32 columns in registers. Included by the two files that differ in bfloat16 only.
// The includer has set the target and opened an unnamed namespace.

inline int64_t smaller(int64_t x, int64_t y) { return x < y ? x : y; }
template <class B>
using Micro = void (*)(const uint32_t*, const char*, int64_t, int64_t, float*, bool, const char*, int64_t);

inline __m512 broadcast(const uint32_t* a) {
  return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(*a)));
}

struct Single {
  static constexpr int64_t step_bytes = 128;
  static constexpr bool flush = false;
  static __m512 load(const char* b) { return _mm512_loadu_ps(b); }
  static __m512 add(__m512 a, __m512 b, __m512 sum) { return _mm512_fmadd_ps(a, b, sum); }
};

struct Half : Single {
  static constexpr int64_t step_bytes = 64;
  static __m512 load(const char* b) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)));
  }
};

struct Pairs : Single {
#ifdef DRIFTSCOPE_BF16_INSTRUCTION
  static __m512 add(__m512 a, __m512 b, __m512 sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
  }
#else
  // What VDPBF16PS computes: odd element, then even, each fused, subnormals flushed (MXCSR).
  static constexpr bool flush = true;
  static __m512 odd(__m512 x) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  static __m512 even(__m512 x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 16));
  }
  static __m512 add(__m512 a, __m512 b, __m512 sum) {
    return _mm512_fmadd_ps(even(a), even(b), _mm512_fmadd_ps(odd(a), odd(b), sum));
  }
#endif
};

// c [Rows][32 * Panels] = (resume ? c : 0) + a [steps][Rows] * b [steps][32] of each panel. Asks for `next` on
// the way, `next_step` bytes a step of each panel, to have it in cache when its turn comes; 0: not.
template <class B, int Rows, int Panels>
__attribute__((noinline)) void tile(const uint32_t* a, const char* b, int64_t panel_bytes, int64_t steps,
                                    float* c, bool resume, const char* next, int64_t next_step) {
  constexpr int V = 2 * Panels;
  __m512 sum[Rows][V];
#pragma GCC unroll 12
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
      sum[i][v] = resume ? _mm512_loadu_ps(c + (i * V + v) * 16) : _mm512_setzero_ps();
  if (B::flush) _mm_setcsr(kMxcsrFlush);
  for (int64_t k = 0; k < steps; ++k) {
    if (next_step) {
#pragma GCC unroll 4
      for (int p = 0; p < Panels; ++p) {
        _mm_prefetch(next + p * panel_bytes, _MM_HINT_T0);
        if (next_step > 64) _mm_prefetch(next + p * panel_bytes + 64, _MM_HINT_T0);
      }
    }
    __m512 w[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      w[v] = B::load(b + (v / 2) * panel_bytes + (v % 2) * (B::step_bytes / 2));
    }
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) {
      const __m512 x = broadcast(a + i);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[i][v] = B::add(x, w[v], sum[i][v]);
    }
    a += Rows, b += B::step_bytes, next += next_step;
  }
  if (B::flush) _mm_setcsr(kMxcsr);
#pragma GCC unroll 12
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(c + (i * V + v) * 16, sum[i][v]);
}

// 16 registers of 16 32-bit values, transposed in place.
inline void transpose(__m512i r[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 8] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x88);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xdd);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xdd);
  }
}

struct Isa {
  static constexpr int64_t rows_of_four_panels = 3, rows_of_two_panels = 6;
  template <class B>
  static constexpr int64_t tile_rows() { return 12; }

  template <class B, int Panels>
  static Micro<B> micro(int64_t rows) {
    constexpr int most = 12 / Panels;
    return pick<B, Panels, most>(rows);
  }
  template <class B, int Panels, int Rows>
  static Micro<B> pick(int64_t rows) {
    if constexpr (Rows == 1) return tile<B, 1, Panels>;
    else return rows == Rows ? tile<B, Rows, Panels> : pick<B, Panels, Rows - 1>(rows);
  }

  static float* allocate(int64_t count) { return static_cast<float*>(_mm_malloc(count * 4, 64)); }
  static void release(float* p) { _mm_free(p); }

  static void widen_halves(const char* from, int64_t count, float* to) {
    for (int64_t i = 0; i < count; i += 16)
      _mm512_storeu_ps(to + i, Half::load(from + 2 * i));
  }

  static void finish(const float* sums, const float* bias, int64_t count, Dtype dtype, void* out) {
    for (int64_t j = 0; j < count; j += 16) {
      const int64_t left = count - j;
      const __mmask16 mask = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
      __m512 y = _mm512_maskz_loadu_ps(mask, sums + j);
      if (bias) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, bias + j));
      const __mmask16 nan = _mm512_cmp_ps_mask(y, y, _CMP_UNORD_Q);
      y = _mm512_mask_blend_ps(nan, y, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000)));
      if (dtype == Dtype::f32) {
        _mm512_mask_storeu_ps(static_cast<float*>(out) + j, mask, y);
        continue;
      }
      __m256i narrow;
      if (dtype == Dtype::f16) {
        narrow = _mm512_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      } else {
        // Nearest even by integers: the conversion instruction would flush subnormals.
        const __m512i u = _mm512_castps_si512(y);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
        const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        narrow = _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16));
      }
      _mm256_mask_storeu_epi16(static_cast<uint16_t*>(out) + j, mask, narrow);
    }
  }

  static __mmask32 first(int64_t count) { return count >= 32 ? 0xffffffffu : (1u << count) - 1; }

  // The next values of one row as 16 lanes of 32 bits: floats, or pairs of 16-bit values as they lie.
  static __m512i load_lanes(Dtype dtype, const char* row, int64_t count) {
    return dtype == Dtype::f32 ? _mm512_maskz_loadu_epi32(static_cast<__mmask16>(first(count)), row)
                               : _mm512_maskz_loadu_epi16(first(count), row);
  }
  static __m512i load_widened(const char* row, int64_t count) {
    const __m256i halves = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(first(count)), row);
    return _mm512_castps_si512(_mm512_cvtph_ps(halves));
  }

  static void pack_rows(Dtype dtype, const void* x, int64_t stride_m, int64_t stride_k, int64_t rows,
                        int64_t k, void* to) {
    if (stride_k != 1) return gather_rows(dtype, x, stride_m, stride_k, rows, k, to);
    const int64_t size = dtype == Dtype::f32 ? 4 : 2, width = dtype == Dtype::bf16 ? 32 : 16;
    const __mmask16 mask = static_cast<__mmask16>((1u << rows) - 1);
    uint32_t* at = static_cast<uint32_t*>(to);
    for (int64_t k0 = 0; k0 < k; k0 += width) {
      __m512i r[16];
      for (int64_t i = 0; i < 16; ++i) {
        const char* row = static_cast<const char*>(x) + (i * stride_m + k0) * size;
        r[i] = i >= rows                ? _mm512_setzero_si512()
               : dtype == Dtype::f16    ? load_widened(row, k - k0)
                                        : load_lanes(dtype, row, k - k0);
      }
      transpose(r);
      const int64_t steps = steps_of(dtype, smaller(width, k - k0));
      for (int64_t s = 0; s < steps; ++s, at += rows) _mm512_mask_storeu_epi32(at, mask, r[s]);
    }
  }

  static void pack_panel(Dtype dtype, const WeightView& w, int64_t n, int64_t k0, int64_t count,
                         int64_t panel, void* to) {
    const int64_t n0 = panel * kPanel, columns = smaller(kPanel, n - n0);
    if (w.stride_k != 1) return gather_panel(dtype, w, n0, columns, k0, count, to);
    const int64_t size = dtype == Dtype::f32 ? 4 : 2, width = dtype == Dtype::f32 ? 16 : 32;
    for (int64_t half = 0; half < 2; ++half) {
      char* at = static_cast<char*>(to) + half * (dtype == Dtype::f16 ? 32 : 64);
      for (int64_t k = 0; k < count; k += width) {
        __m512i r[16];
        for (int64_t i = 0; i < 16; ++i) {
          const int64_t column = half * 16 + i;
          const char* row = static_cast<const char*>(w.data) +
                            ((n0 + column) * w.stride_n + k0 + k) * size;
          r[i] = column < columns ? load_lanes(dtype, row, count - k) : _mm512_setzero_si512();
          if (column < columns) _mm_prefetch(row + 256, _MM_HINT_T0);
        }
        transpose(r);
        store_steps(dtype, r, smaller(width, count - k), at);
      }
    }
  }

  // Transposed lanes -> consecutive steps of half a panel.
  static void store_steps(Dtype dtype, const __m512i r[16], int64_t count, char*& at) {
    if (dtype != Dtype::f16) {
      const int64_t steps = steps_of(dtype, count);
      for (int64_t s = 0; s < steps; ++s, at += 128) _mm512_storeu_si512(at, r[s]);
      return;
    }
    for (int64_t s = 0; s < count; ++s, at += 64) {
      const __m512i lane = s % 2 ? _mm512_srli_epi32(r[s / 2], 16) : r[s / 2];
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), _mm512_cvtepi32_epi16(lane));
    }
  }

#include "gather.h"
};

#include "tile.h"

int64_t tile_rows(Dtype) { return Isa::tile_rows<Single>(); }
