// The element types of all kernels. Nothing here includes torch.
#pragma once

namespace driftscope {

enum class Dtype : int { f32 = 0, bf16 = 1, f16 = 2 };

}  // namespace driftscope
