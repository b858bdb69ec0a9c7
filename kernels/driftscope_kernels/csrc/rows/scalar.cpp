// The row kernels in plain C++, for processors without the vector instructions of the other files.
#include "rows.h"

#include <cstdlib>
#include <cstring>

namespace driftscope {
namespace {
#include "half.h"
#include "lanes.h"
#include "functions.h"
#include "kernels.h"
#include "rotary.h"
#include "logprob.h"
bool available() { return true; }
}  // namespace
extern const RowKernels rows_scalar = {"scalar",
#include "table.h"
};
}  // namespace driftscope
