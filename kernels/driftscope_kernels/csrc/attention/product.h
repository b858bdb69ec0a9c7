// Register tiles: c[row][16 * group ..] += sum over steps of a[row, step] * b[step][16 * group ..], one fused
// multiply-add each, steps ascending. The includer has defined Machine: registers of one instruction set.

constexpr int64_t kGroup = 16;  // columns that lie side by side in b: one AVX-512 register
constexpr int kRows = 6;        // rows of a register tile: 6 by 4 registers of AVX-512, 6 by 2 of AVX2

// Element (row, step) of a is a[row * kRow + step * kStep].
template <int64_t kRow, int64_t kStep>
struct Layout {
  static constexpr int64_t row = kRow, step = kStep;
};
typedef Layout<kMostHeadSize, 1> Queries;     // [rows][256]
typedef Layout<kTile, 1> Weights;             // [rows][64]
typedef Layout<1, kTile> TransposedWeights;   // the same, rows and steps exchanged

// `b` has one pointer per group; `b_step` bytes lead to the next step. c has `c_row` floats from row to row.
template <class E, class A, int R, int G>
__attribute__((noinline)) void product_tile(const float* a, const char* const* b, int64_t b_step, int64_t steps,
                                            float* c, int64_t c_row, bool resume) {
  typedef typename Machine::Register Register;
  constexpr int P = Machine::parts, N = G * P, W = kGroup / P;
  Register sum[R][N];
  const char* from[G];
  for (int g = 0; g < G; ++g) from[g] = b[g];
#pragma GCC unroll 6
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sum[i][n] = resume ? Machine::load(c + i * c_row + n * W) : Machine::zero();
  int64_t offset = 0;
  for (int64_t s = 0; s < steps; ++s, offset += b_step, a += A::step) {
    Register w[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n)
      w[n] = Machine::template load<E>(from[n / P] + offset + n % P * W * int64_t{sizeof(typename E::Stored)});
#pragma GCC unroll 6
    for (int i = 0; i < R; ++i) {
      const Register x = Machine::all(a + i * A::row);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[i][n] = Machine::fma(x, w[n], sum[i][n]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) Machine::store(c + i * c_row + n * W, sum[i][n]);
}

typedef void (*ProductTile)(const float*, const char* const*, int64_t, int64_t, float*, int64_t, bool);

template <class E, class A, int G>
ProductTile product_of_rows(int64_t rows) {
  constexpr ProductTile table[kRows] = {product_tile<E, A, 1, G>, product_tile<E, A, 2, G>, product_tile<E, A, 3, G>,
                                        product_tile<E, A, 4, G>, product_tile<E, A, 5, G>, product_tile<E, A, 6, G>};
  return table[rows - 1];
}

// Any number of groups, at most kRows rows.
template <class E, class A>
void product(int64_t rows, int64_t groups, const float* a, const char* const* b, int64_t b_step, int64_t steps,
             float* c, int64_t c_row, bool resume) {
  int64_t g = 0;
  if constexpr (Machine::groups >= 4)
    for (; g + 4 <= groups; g += 4)
      product_of_rows<E, A, 4>(rows)(a, b + g, b_step, steps, c + g * kGroup, c_row, resume);
  if constexpr (Machine::groups >= 2)
    for (; g + 2 <= groups; g += 2)
      product_of_rows<E, A, 2>(rows)(a, b + g, b_step, steps, c + g * kGroup, c_row, resume);
  for (; g < groups; ++g) product_of_rows<E, A, 1>(rows)(a, b + g, b_step, steps, c + g * kGroup, c_row, resume);
}

// b as rows of floats or elements side by side: `groups` groups from `b` on.
template <class E, class A>
void product_rows(int64_t rows, int64_t groups, const float* a, const char* b, int64_t b_step, int64_t steps, float* c,
                  int64_t c_row, bool resume) {
  const char* starts[kMostHeadSize / kGroup];
  for (int64_t g = 0; g < groups; ++g) starts[g] = b + g * kGroup * int64_t{sizeof(typename E::Stored)};
  product<E, A>(rows, groups, a, starts, b_step, steps, c, c_row, resume);
}
