// bfloat16: the upper half of a float32. Kernels convert it as they read and write, and compute in float32.
#pragma once

#include <cstdint>
#include <cstring>

// Compilers that know the instructions that multiply pairs of them.
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 11 : defined(__GNUC__) && __GNUC__ >= 11)
#define DET_OPS_BFLOAT16
#include <immintrin.h>
#endif

#include "simd.h"

namespace det_ops {

struct BFloat16 {
  uint16_t bits;
};

// What sums of products are in.
template <class T>
struct SumType {
  typedef T type;
};
template <>
struct SumType<BFloat16> {
  typedef float type;
};
template <class T>
using SumOf = typename SumType<T>::type;

// Whether the processor multiplies them in pairs, without converting.
inline bool has_bfloat16() {
#if defined(DET_OPS_BFLOAT16)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

DET_OPS_INLINE float widened(BFloat16 value) {
  const uint32_t bits = uint32_t{value.bits} << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

// To nearest, ties to even; NaN stays.
DET_OPS_INLINE BFloat16 rounded(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return {static_cast<uint16_t>(value == value ? nearest : 0x7fc0)};
}

}  // namespace det_ops
