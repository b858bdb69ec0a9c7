// Rotary embedding, one head of one token a row. Included after kernels.h; see reference/rotary.py.

// a * c + b * s with the rounding points asked for.
template <class E>
Lanes turned(Lanes a, Lanes c, Lanes b, Lanes s, RotaryArithmetic arithmetic) {
  if (arithmetic == RotaryArithmetic::fused) return fma(b, s, a * c);
  if (arithmetic == RotaryArithmetic::unfused) return a * c + b * s;
  return E::rounded(a * c) + E::rounded(b * s);
}

// Elements from i on of the first (place 0) or second (1) members of the pairs, and the way back.
template <class E, class Part>
Lanes pair_part(const Stored<E>* x, bool interleaved, int64_t place, int64_t i, int64_t half, Part part) {
  if (!interleaved) return at<E>(x + place * half, i, part);
  Stored<E> buffer[kLanes] = {};
  for (int64_t j = 0; j < kLanes && i + j < half; ++j) buffer[j] = x[2 * (i + j) + place];
  return E::load(buffer);
}
template <class E, class Part>
void put_pair_part(Stored<E>* y, bool interleaved, int64_t place, int64_t i, int64_t half, Part part, Lanes value) {
  if (!interleaved) return put<E>(y + place * half, i, part, value);
  Stored<E> buffer[kLanes];
  E::store(buffer, value);
  for (int64_t j = 0; j < kLanes && i + j < half; ++j) y[2 * (i + j) + place] = buffer[j];
}

template <class E, class T>
void rotary_row(const Stored<E>* x, const Stored<T>* cos, const Stored<T>* sin, Stored<E>* y, bool interleaved,
                RotaryArithmetic arithmetic, int64_t half, int64_t n) {
  each(half, [&](int64_t i, auto part) {
    const Lanes first = pair_part<E>(x, interleaved, 0, i, half, part);
    const Lanes second = pair_part<E>(x, interleaved, 1, i, half, part);
    const Lanes c = at<T>(cos, i, part), s = at<T>(sin, i, part);
    put_pair_part<E>(y, interleaved, 0, i, half, part, turned<E>(first, c, -second, s, arithmetic));
    put_pair_part<E>(y, interleaved, 1, i, half, part, turned<E>(second, c, first, s, arithmetic));
  });
  const Stored<E>* kept = x + 2 * half;
  each(n - 2 * half, [&](int64_t i, auto part) { put<E>(y + 2 * half, i, part, at<E>(kept, i, part)); });
}

void rotary_rows(RowsIn x, RowsIn cos, RowsIn sin, RowsOut y, bool interleaved, RotaryArithmetic arithmetic,
                 int64_t heads, int64_t half, int64_t n, int64_t begin, int64_t end) {
  with_dtypes(x.dtype, cos.dtype, [&](auto e, auto t) {
    using E = decltype(e);
    using T = decltype(t);
    for (int64_t r = begin; r < end; ++r)
      rotary_row<E, T>(row_of<E>(x, r), row_of<T>(cos, r / heads), row_of<T>(sin, r / heads), row_of<E>(y, r),
                       interleaved, arithmetic, half, n);
  });
}
