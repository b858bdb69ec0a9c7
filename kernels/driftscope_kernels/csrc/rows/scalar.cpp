// The row kernels in plain C++, for processors without the vector instructions of the other files.
#include "rows.h"

#include <cstdlib>
#include <cstring>

namespace driftscope {
namespace {
#include "gemm_half.h"
#include "lanes.h"
#include "row_functions.h"
#include "row_kernels.h"
#include "rotary_kernels.h"
#include "logprob_kernels.h"
bool available() { return true; }
}  // namespace
extern const RowKernels rows_scalar = {"scalar",
#include "row_table.h"
};
}  // namespace driftscope
