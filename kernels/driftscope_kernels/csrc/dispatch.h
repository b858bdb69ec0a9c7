// What the files of operators ask of a tensor and of a name: the element type, and the kernels of an instruction set.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "dtype.h"

namespace driftscope {

inline Dtype dtype_of(at::ScalarType type) {
  if (type == at::kFloat) return Dtype::f32;
  if (type == at::kBFloat16) return Dtype::bf16;
  TORCH_CHECK_TYPE(type == at::kHalf, "dtype ", type, ": float32, bfloat16 and float16 are accepted");
  return Dtype::f16;
}

// The first of `sets` with this name, or with none given the first that this CPU has.
template <class Set>
const Set& chosen(const std::vector<const Set*>& sets, c10::string_view name) {
  for (const Set* set : sets)
    if ((name.empty() || name == set->name) && set->available()) return *set;
  TORCH_CHECK_VALUE(false, "instruction set '", name, "' is not on this CPU; see instruction_sets()");
}

// Kernels that the bfloat16 instruction makes no difference to.
template <class Set>
const Set& chosen_without_bf16(const std::vector<const Set*>& sets, c10::string_view name) {
  return chosen(sets, name == "avx512_bf16" ? c10::string_view("avx512") : name);
}

}  // namespace driftscope
