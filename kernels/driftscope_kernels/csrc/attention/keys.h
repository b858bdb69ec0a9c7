// Keys and values of one tile: where they lie, and copies in float32 in the order the products read.

inline int64_t fewer(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t more(int64_t a, int64_t b) { return a > b ? a : b; }
// Columns, or steps along a head, that are multiplied in one go.
constexpr int64_t kChunk = 64;

inline int64_t groups_of(int64_t n) { return (n + kGroup - 1) / kGroup; }

// The keys or values of one key head of one sequence.
template <class E>
struct Tokens {
  typedef typename E::Stored Stored;
  const Stored* data;
  AttentionCache cache;
  const int32_t* pages;  // of the sequence, or null
  int64_t page_size;

  Tokens(const AttentionProblem& a, const AttentionCache& c, const AttentionItem& item)
      : data(static_cast<const Stored*>(c.data) + item.kv_head * c.head), cache(c),
        pages(a.table ? a.table + item.sequence * a.table_stride : nullptr), page_size(a.page_size) {
    if (!pages) data += a.key_starts[item.sequence] * c.token;
  }

  const Stored* at(int64_t position) const {
    if (!pages) return data + position * cache.token;
    return data + pages[position / page_size] * cache.page + position % page_size * cache.token;
  }
  // Positions from `position` on, at most to `end`, that lie `cache.token` elements apart.
  int64_t run(int64_t position, int64_t end) const {
    return pages ? fewer(end, position + page_size - position % page_size) : end;
  }
  // Whether the 16 positions from a multiple of 16 on can be read as they lie, side by side: beyond the end of
  // the sequence they are still within its page.
  bool side_by_side() const { return pages && cache.token == 1 && page_size % kGroup == 0; }
  // Whether tiles lie as `copy_chunks` would lay them, where the head size is one chunk.
  bool lie_in_chunks() const {
    return sizeof(Stored) == sizeof(float) && pages && page_size % kTile == 0 && cache.token == kChunk &&
           cache.element == 1;
  }
};

// Elements d .. d + 15 of one token, `apart` elements from one to the next; +0 beyond the end.
template <class E, class Part>
Lanes elements(const typename E::Stored* token, int64_t apart, int64_t d, Part part) {
  if (apart == 1) return at<E>(token, d, part);
  typename E::Stored buffer[kLanes] = {};
  int64_t count = kLanes;
  if constexpr (sizeof(Part) > 1) count = part.count;
  for (int64_t j = 0; j < count; ++j) buffer[j] = token[(d + j) * apart];
  return E::load(buffer);
}

// 16 by 16 elements, rows and columns exchanged.
inline void transpose(Lanes r[16]) {
#if defined(DRIFTSCOPE_AVX512)
  __m512 t[16], u[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps((__m512)r[i], (__m512)r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps((__m512)r[i], (__m512)r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    u[i] = (__m512)_mm512_unpacklo_pd((__m512d)t[i], (__m512d)t[i + 2]);
    u[i + 1] = (__m512)_mm512_unpackhi_pd((__m512d)t[i], (__m512d)t[i + 2]);
    u[i + 2] = (__m512)_mm512_unpacklo_pd((__m512d)t[i + 1], (__m512d)t[i + 3]);
    u[i + 3] = (__m512)_mm512_unpackhi_pd((__m512d)t[i + 1], (__m512d)t[i + 3]);
  }
  constexpr int kEven = 0x88, kOdd = 0xdd;  // 128-bit quarters 0, 2 or 1, 3 of either
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(u[i], u[i + 4], kEven), t[i + 4] = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], kEven);
    t[i + 8] = _mm512_shuffle_f32x4(u[i], u[i + 4], kOdd), t[i + 12] = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], kOdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = (Lanes)_mm512_shuffle_f32x4(t[i], t[i + 4], kEven);
    r[i + 8] = (Lanes)_mm512_shuffle_f32x4(t[i], t[i + 4], kOdd);
    r[i + 4] = (Lanes)_mm512_shuffle_f32x4(t[i + 8], t[i + 12], kEven);
    r[i + 12] = (Lanes)_mm512_shuffle_f32x4(t[i + 8], t[i + 12], kOdd);
  }
#else
  Lanes t[16];
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) t[j][i] = r[i][j];
  std::memcpy(r, t, sizeof t);
#endif
}

// 16 positions from `first` on as they lie, side by side; of each group that holds a position from..to.
template <class E>
void copy_side_by_side(const Tokens<E>& tokens, int64_t tile, int64_t from, int64_t to, int64_t size, float* out) {
  for (int64_t next; from < to; from = next) {
    next = tokens.run(from, to);
    const int64_t first = (from - tile) / kGroup, groups = groups_of(next - tile) - first;
    const typename E::Stored* at = tokens.at(tile + first * kGroup);
    float* column = out + first * kGroup;
    for (int64_t d = 0; d < size; ++d, at += tokens.cache.element, column += kTile)
      for (int64_t g = 0; g < groups; ++g) {
        const Lanes x = E::load(at + g * kGroup);
        std::memcpy(column + g * kGroup, &x, sizeof x);
      }
  }
}

// Positions from..to of the tile at `tile` -> [size][64] floats; the other columns of their groups hold anything.
template <class E>
void copy_transposed(const Tokens<E>& tokens, int64_t tile, int64_t from, int64_t to, int64_t size, float* out) {
  if (tokens.side_by_side()) return copy_side_by_side(tokens, tile, from, to, size, out);
  for (int64_t g = (from - tile) / kGroup; g < groups_of(to - tile); ++g) {
    const int64_t first = tile + g * kGroup;
    const typename E::Stored* rows[kGroup];
    for (int64_t j = 0; j < kGroup; ++j)
      rows[j] = first + j >= from && first + j < to ? tokens.at(first + j) : nullptr;
    each(size, [&](int64_t d, auto part) {
      Lanes r[kGroup];
      for (int64_t j = 0; j < kGroup; ++j) r[j] = rows[j] ? elements<E>(rows[j], tokens.cache.element, d, part) : Lanes{};
      transpose(r);
      float* column = out + d * kTile + g * kGroup;
      for (int64_t i = 0; i < fewer(kGroup, size - d); ++i) std::memcpy(column + i * kTile, &r[i], sizeof r[i]);
    });
  }
}

// Positions from..to in float32, columns in chunks of 64: [chunk][64 places of the tile][64]. A chunk stays in the
// first-level cache while all rows of an item are multiplied by it.
template <class E>
void copy_chunks(const Tokens<E>& tokens, int64_t tile, int64_t from, int64_t to, int64_t size, float* out) {
  for (int64_t next; from < to; from = next) {
    next = tokens.run(from, to);
    const typename E::Stored* at = tokens.at(from);
    for (int64_t p = from - tile; p < next - tile; ++p, at += tokens.cache.token)
      each(size, [&](int64_t d, auto part) {
        const Lanes x = elements<E>(at, tokens.cache.element, d, part);
        std::memcpy(out + (d / kChunk * kTile + p) * kChunk + d % kChunk, &x, sizeof x);
      });
  }
}
