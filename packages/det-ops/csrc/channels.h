// The inner loops over channels of kernels that sample channels-last maps: `n` pixels, at `base + offset[k]`, at a time.
#pragma once

#include <cstdint>

namespace det_ops {

// out = sum over k of weight[k] * pixel k
void gather(const float* base, const int64_t* offset, const float* weight, int n, int64_t channels, float* out);
void gather(const double* base, const int64_t* offset, const double* weight, int n, int64_t channels, double* out);

// pixel k += weight[k] * values
void scatter(float* base, const int64_t* offset, const float* weight, int n, int64_t channels, const float* values);
void scatter(double* base, const int64_t* offset, const double* weight, int n, int64_t channels, const double* values);

// out[k] = sum over channels of pixel k * other
void dots(const float* base, const int64_t* offset, int n, int64_t channels, const float* other, float* out);
void dots(const double* base, const int64_t* offset, int n, int64_t channels, const double* other, double* out);

}  // namespace det_ops
