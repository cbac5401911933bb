#include "channels.h"

#include "simd.h"

namespace det_ops {
namespace {

// A vector of 64 bytes of any alignment: one AVX-512 register, or several smaller ones. The inner loops keep eight.
#if defined(__GNUC__)
template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(64), aligned(4), may_alias));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(64), aligned(8), may_alias));
};
#endif

template <class T>
DET_OPS_INLINE void gather_any(const T* base, const int64_t* offset, const T* weight, int n, int64_t channels,
                                T* out) {
  int64_t c = 0;
#if defined(__GNUC__)
  using Vector = typename VectorOf<T>::type;
  static_assert(sizeof(Vector) == 64, "vector_size was ignored");
  constexpr int64_t lanes = 64 / sizeof(T);
  for (; c + 8 * lanes <= channels; c += 8 * lanes) {
    Vector a0{}, a1{}, a2{}, a3{}, a4{}, a5{}, a6{}, a7{};
    for (int k = 0; k < n; ++k) {
      const Vector* p = reinterpret_cast<const Vector*>(base + offset[k] + c);
      const T w = weight[k];
      a0 += w * p[0];
      a1 += w * p[1];
      a2 += w * p[2];
      a3 += w * p[3];
      a4 += w * p[4];
      a5 += w * p[5];
      a6 += w * p[6];
      a7 += w * p[7];
    }
    Vector* q = reinterpret_cast<Vector*>(out + c);
    q[0] = a0;
    q[1] = a1;
    q[2] = a2;
    q[3] = a3;
    q[4] = a4;
    q[5] = a5;
    q[6] = a6;
    q[7] = a7;
  }
  for (; c + lanes <= channels; c += lanes) {
    Vector a{};
    for (int k = 0; k < n; ++k) a += weight[k] * *reinterpret_cast<const Vector*>(base + offset[k] + c);
    *reinterpret_cast<Vector*>(out + c) = a;
  }
#endif
  for (; c < channels; ++c) {
    T sum = 0;
    for (int k = 0; k < n; ++k) sum += weight[k] * base[offset[k] + c];
    out[c] = sum;
  }
}

template <class T>
DET_OPS_INLINE void scatter_any(T* base, const int64_t* offset, const T* weight, int n, int64_t channels,
                                 const T* grad) {
  int64_t c = 0;
#if defined(__GNUC__)
  using Vector = typename VectorOf<T>::type;
  static_assert(sizeof(Vector) == 64, "vector_size was ignored");
  constexpr int64_t lanes = 64 / sizeof(T);
  for (; c + 8 * lanes <= channels; c += 8 * lanes) {
    const Vector* g = reinterpret_cast<const Vector*>(grad + c);
    const Vector g0 = g[0], g1 = g[1], g2 = g[2], g3 = g[3], g4 = g[4], g5 = g[5], g6 = g[6], g7 = g[7];
    for (int k = 0; k < n; ++k) {
      Vector* p = reinterpret_cast<Vector*>(base + offset[k] + c);
      const T w = weight[k];
      p[0] += w * g0;
      p[1] += w * g1;
      p[2] += w * g2;
      p[3] += w * g3;
      p[4] += w * g4;
      p[5] += w * g5;
      p[6] += w * g6;
      p[7] += w * g7;
    }
  }
  for (; c + lanes <= channels; c += lanes) {
    const Vector g = *reinterpret_cast<const Vector*>(grad + c);
    for (int k = 0; k < n; ++k) *reinterpret_cast<Vector*>(base + offset[k] + c) += weight[k] * g;
  }
#endif
  for (; c < channels; ++c) {
    for (int k = 0; k < n; ++k) base[offset[k] + c] += weight[k] * grad[c];
  }
}

template <class T>
DET_OPS_INLINE void dots_any(const T* base, const int64_t* offset, int n, int64_t channels, const T* other, T* out) {
  for (int k = 0; k < n; ++k) {
    const T* pixel = base + offset[k];
    T sum = 0;
    int64_t c = 0;
#if defined(__GNUC__)
    using Vector = typename VectorOf<T>::type;
    constexpr int64_t lanes = 64 / sizeof(T);
    Vector a0{}, a1{}, a2{}, a3{};
    for (; c + 4 * lanes <= channels; c += 4 * lanes) {
      const Vector* p = reinterpret_cast<const Vector*>(pixel + c);
      const Vector* q = reinterpret_cast<const Vector*>(other + c);
      a0 += p[0] * q[0];
      a1 += p[1] * q[1];
      a2 += p[2] * q[2];
      a3 += p[3] * q[3];
    }
    for (; c + lanes <= channels; c += lanes) {
      a0 += *reinterpret_cast<const Vector*>(pixel + c) * *reinterpret_cast<const Vector*>(other + c);
    }
    const Vector all = (a0 + a1) + (a2 + a3);
    for (int64_t i = 0; i < lanes; ++i) sum += all[i];
#endif
    for (; c < channels; ++c) sum += pixel[c] * other[c];
    out[k] = sum;
  }
}

}  // namespace

// Clones do not apply to templates.
DET_OPS_CLONES void gather(const float* b, const int64_t* o, const float* w, int n, int64_t c, float* out) {
  gather_any(b, o, w, n, c, out);
}
DET_OPS_CLONES void gather(const double* b, const int64_t* o, const double* w, int n, int64_t c, double* out) {
  gather_any(b, o, w, n, c, out);
}
DET_OPS_CLONES void scatter(float* b, const int64_t* o, const float* w, int n, int64_t c, const float* values) {
  scatter_any(b, o, w, n, c, values);
}
DET_OPS_CLONES void scatter(double* b, const int64_t* o, const double* w, int n, int64_t c, const double* values) {
  scatter_any(b, o, w, n, c, values);
}
DET_OPS_CLONES void dots(const float* b, const int64_t* o, int n, int64_t c, const float* other, float* out) {
  dots_any(b, o, n, c, other, out);
}
DET_OPS_CLONES void dots(const double* b, const int64_t* o, int n, int64_t c, const double* other, double* out) {
  dots_any(b, o, n, c, other, out);
}

}  // namespace det_ops
