// Matrix products whose results stay in the cache for what comes after them: a few rows by the columns of a panel at a
// time, sums in registers. A panel is as many columns of the right matrix as the widest registers hold twice.
//
// Files that include it are compiled with fused multiply-add (see CMakeLists.txt).
#pragma once

#include <cstdint>
#include <memory>

#include "bfloat16.h"
#include "simd.h"

namespace det_ops {
namespace {

// What is computed at once: `bytes` of neighbouring channels, of any alignment; 0: one channel.
template <class T, int bytes>
struct Lanes {
#if defined(__GNUC__)
  typedef T type __attribute__((vector_size(bytes), aligned(alignof(T)), may_alias));
#else
  typedef T type;
#endif
};
template <class T>
struct Lanes<T, 0> {
  typedef T type;
};
constexpr int kWide = 64;  // one AVX-512 register, or several smaller ones

// The product of `rows` rows of `a`, a multiple of kRows, and a panel [depth, kVectors * lanes]; sums in registers.
template <int kRows, int kVectors, int bytes, class T>
DET_OPS_INLINE void multiply_any(const T* a, int64_t rows, int64_t depth, const T* panel, T* out, int64_t out_stride) {
  using V = typename Lanes<T, bytes>::type;
  constexpr int64_t lanes = sizeof(V) / sizeof(T);
  for (int64_t row = 0; row < rows; row += kRows, a += kRows * depth, out += kRows * out_stride) {
    V sums[kRows][kVectors] = {};
    const T* b = panel;
    for (int64_t k = 0; k < depth; ++k, b += kVectors * lanes) {
      V values[kVectors];
      for (int v = 0; v < kVectors; ++v) values[v] = *reinterpret_cast<const V*>(b + v * lanes);
      for (int r = 0; r < kRows; ++r) {
        const T factor = a[r * depth + k];
        for (int v = 0; v < kVectors; ++v) sums[r][v] += factor * values[v];
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) *reinterpret_cast<V*>(out + r * out_stride + v * lanes) = sums[r][v];
    }
  }
}

template <class T>
using Multiply = void (*)(const T* a, int64_t rows, int64_t depth, const T* panel, SumOf<T>* out, int64_t out_stride);

// The product by an instruction set: as many rows and vectors as it has registers for. A panel is `width` numbers of the
// first `pair` rows of the right matrix, neighbours side by side, then of the next ones.
template <class T>
struct Product {
  int64_t rows, width, pair;
  Multiply<T> multiply;
};

#if defined(__GNUC__) && defined(__x86_64__)
template <class T>
__attribute__((target("avx512f"))) void multiply_avx512(const T* a, int64_t rows, int64_t depth, const T* panel, T* out,
                                                        int64_t out_stride) {
  multiply_any<12, 2, 64>(a, rows, depth, panel, out, out_stride);
}
template <class T>
__attribute__((target("avx2,fma"))) void multiply_avx2(const T* a, int64_t rows, int64_t depth, const T* panel, T* out,
                                                       int64_t out_stride) {
  multiply_any<6, 2, 32>(a, rows, depth, panel, out, out_stride);
}
#endif
#if defined(DET_OPS_BFLOAT16)
// Two products of bfloat16 numbers at a time are added to a float32 sum; `depth` is even.
__attribute__((target("avx512f,avx512bf16"))) inline void multiply_bfloat16(const BFloat16* a, int64_t rows,
                                                                            int64_t depth, const BFloat16* panel,
                                                                            float* out, int64_t out_stride) {
  constexpr int kRows = 12, kVectors = 2, lanes = 16;
  for (int64_t row = 0; row < rows; row += kRows, a += kRows * depth, out += kRows * out_stride) {
    __m512 sums[kRows][kVectors];
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_setzero_ps();
    }
    const BFloat16* b = panel;
    for (int64_t k = 0; k < depth; k += 2, b += kVectors * lanes * 2) {
      __m512i values[kVectors];
      for (int v = 0; v < kVectors; ++v) values[v] = _mm512_loadu_si512(b + v * lanes * 2);
      for (int r = 0; r < kRows; ++r) {
        int32_t both;
        std::memcpy(&both, a + r * depth + k, sizeof(both));
        const __m512i factor = _mm512_set1_epi32(both);
        for (int v = 0; v < kVectors; ++v) {
          sums[r][v] = _mm512_dpbf16_ps(sums[r][v], (__m512bh)factor, (__m512bh)values[v]);
        }
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(out + r * out_stride + v * lanes, sums[r][v]);
    }
  }
}
#endif
// SSE2, NEON, or what else every processor of the kind has.
template <class T>
void multiply_default(const T* a, int64_t rows, int64_t depth, const T* panel, T* out, int64_t out_stride) {
  multiply_any<6, 2, 16>(a, rows, depth, panel, out, out_stride);
}

template <class T>
Product<T> best_product() {
#if defined(__GNUC__) && defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return {12, 2 * 64 / sizeof(T), 1, &multiply_avx512<T>};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return {6, 2 * 32 / sizeof(T), 1, &multiply_avx2<T>};
  }
#endif
  return {6, 2 * sizeof(typename Lanes<T, 16>::type) / sizeof(T), 1, &multiply_default<T>};
}

// Only for processors that has_bfloat16() says yes of.
template <>
inline Product<BFloat16> best_product<BFloat16>() {
#if defined(DET_OPS_BFLOAT16)
  return {12, 32, 2, &multiply_bfloat16};
#else
  return {12, 32, 2, nullptr};
#endif
}

// Cache lines for a thread to work in.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t size) : memory_(new char[size * sizeof(T) + 64]) {}
  T* data() { return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory_.get()) + 63) / 64 * 64); }

 private:
  std::unique_ptr<char[]> memory_;
};

inline int64_t rounded_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

}  // namespace
}  // namespace det_ops
