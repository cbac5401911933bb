// Sampling for deformable convolution: channels-last maps to columns for a matrix product, and back.
//
// A sample is one tap of the kernel at one output pixel for one group of channels that share offsets: a weighted sum of
// up to four pixels, over contiguous channels. Backward: offsets and masks are the work of threads that own output
// pixels, gradients of the map of threads that own channels, so that no two write to the same address.
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "channels.h"
#include "parallel.h"
#include "registers.h"

namespace py = pybind11;

namespace det_ops {
namespace {

struct Geometry {
  int64_t channels, height, width, kernel_height, kernel_width, out_height, out_width, stride_y, stride_x, padding_y,
      padding_x, dilation_y, dilation_x, groups, offset_groups;

  explicit Geometry(const std::vector<int64_t>& v)
      : channels(v.at(0)),
        height(v.at(1)),
        width(v.at(2)),
        kernel_height(v.at(3)),
        kernel_width(v.at(4)),
        out_height(v.at(5)),
        out_width(v.at(6)),
        stride_y(v.at(7)),
        stride_x(v.at(8)),
        padding_y(v.at(9)),
        padding_x(v.at(10)),
        dilation_y(v.at(11)),
        dilation_x(v.at(12)),
        groups(v.at(13)),
        offset_groups(v.at(14)) {}

  int64_t taps() const { return kernel_height * kernel_width; }
  int64_t out_pixels() const { return out_height * out_width; }
};

// Channels that share offsets and are neighbours in the columns.
struct Run {
  int64_t channel, length, offset_group, group;
};

// All runs between two channels.
std::vector<Run> runs_of(const Geometry& g, int64_t begin, int64_t end) {
  const int64_t shared = g.channels / g.offset_groups, grouped = g.channels / g.groups;
  std::vector<Run> runs;
  for (int64_t c = begin; c < end;) {
    const int64_t next = std::min({end, (c / shared + 1) * shared, (c / grouped + 1) * grouped});
    runs.push_back({c, next - c, c / shared, c / grouped});
    c = next;
  }
  return runs;
}

// The pixels a sample reads: their place, bilinear weight, and the derivatives of that weight.
template <class T>
struct Sample {
  int n;
  int64_t offset[4];
  T weight[4], along_y[4], along_x[4], masked[4];
  T mask;
};

// One image, and the columns [groups, count, taps, channels / groups] of output pixels begin, begin + 1, ...
template <class T>
struct Job {
  const Geometry g;
  const T* input;   // [height, width, channels]
  const T* offset;  // [offset groups, taps, 2, out pixels]
  const T* mask;    // [offset groups, taps, out pixels], or null
  int64_t begin, count;

  int64_t plane(int64_t offset_group, int64_t tap) const { return offset_group * g.taps() + tap; }

  int64_t column(const Run& run, int64_t pixel, int64_t tap) const {
    const int64_t grouped = g.channels / g.groups;
    return ((run.group * count + pixel - begin) * g.taps() + tap) * grouped + run.channel - run.group * grouped;
  }

  void locate(int64_t pixel, int64_t tap, int64_t offset_group, Sample<T>& s) const {
    const int64_t pixels = g.out_pixels(), place = plane(offset_group, tap);
    s.n = 0;
    s.mask = mask ? mask[place * pixels + pixel] : T(1);
    const int64_t row = pixel / g.out_width * g.stride_y - g.padding_y + tap / g.kernel_width * g.dilation_y;
    const int64_t column = pixel % g.out_width * g.stride_x - g.padding_x + tap % g.kernel_width * g.dilation_x;
    const T y = T(row) + offset[2 * place * pixels + pixel], x = T(column) + offset[(2 * place + 1) * pixels + pixel];
    if (!(y >= T(-1) && y < T(g.height) && x >= T(-1) && x < T(g.width))) return;
    const T top = std::floor(y), left = std::floor(x);
    const int64_t y0 = static_cast<int64_t>(top), x0 = static_cast<int64_t>(left);
    const T weight_y[2] = {T(1) - (y - top), y - top}, weight_x[2] = {T(1) - (x - left), x - left};
    constexpr T slope[2] = {T(-1), T(1)};
    for (int i = 0; i < 2; ++i) {
      if (y0 + i < 0 || y0 + i >= g.height) continue;
      for (int j = 0; j < 2; ++j) {
        if (x0 + j < 0 || x0 + j >= g.width) continue;
        s.offset[s.n] = ((y0 + i) * g.width + x0 + j) * g.channels;
        s.weight[s.n] = weight_y[i] * weight_x[j];
        s.along_y[s.n] = slope[i] * weight_x[j];
        s.along_x[s.n] = weight_y[i] * slope[j];
        s.masked[s.n] = s.weight[s.n] * s.mask;
        ++s.n;
      }
    }
  }

  // Calls visit(sample, pixel, tap, runs of one offset group: from, to) for pixels [from, to) and all taps.
  template <class Visit>
  void each_sample(const std::vector<Run>& runs, int64_t from, int64_t to, Visit&& visit) const {
    Sample<T> sample;
    for (int64_t pixel = begin + from; pixel < begin + to; ++pixel) {
      for (int64_t tap = 0; tap < g.taps(); ++tap) {
        for (size_t first = 0, last; first < runs.size(); first = last) {
          for (last = first; last < runs.size() && runs[last].offset_group == runs[first].offset_group;) ++last;
          locate(pixel, tap, runs[first].offset_group, sample);
          visit(sample, pixel, tap, &runs[first], &runs[0] + last);
        }
      }
    }
  }

  void forward(int threads, T* columns) const {
    const std::vector<Run> runs = runs_of(g, 0, g.channels);
    const auto fill = [&](const Sample<T>& s, int64_t pixel, int64_t tap, const Run* run, const Run* end) {
      for (; run != end; ++run) {
        gather(input + run->channel, s.offset, s.masked, s.n, run->length, columns + column(*run, pixel, tap));
      }
    };
    parallel_for(count, threads, [&](int64_t from, int64_t to) { each_sample(runs, from, to, fill); }, 16);
  }

  void backward_to_offset(int threads, const T* grad, T* grad_offset, T* grad_mask) const {
    const std::vector<Run> runs = runs_of(g, 0, g.channels);
    const auto differentiate = [&](const Sample<T>& s, int64_t pixel, int64_t tap, const Run* run, const Run* end) {
      const int64_t pixels = g.out_pixels(), place = plane(run->offset_group, tap);
      T part[4], by_y = 0, by_x = 0, by_mask = 0;
      for (; run != end; ++run) {
        dots(input + run->channel, s.offset, s.n, run->length, grad + column(*run, pixel, tap), part);
        for (int k = 0; k < s.n; ++k) {
          by_y += s.along_y[k] * part[k];
          by_x += s.along_x[k] * part[k];
          by_mask += s.weight[k] * part[k];
        }
      }
      grad_offset[2 * place * pixels + pixel] = by_y * s.mask;
      grad_offset[(2 * place + 1) * pixels + pixel] = by_x * s.mask;
      if (grad_mask) grad_mask[place * pixels + pixel] = by_mask;
    };
    parallel_for(count, threads, [&](int64_t from, int64_t to) { each_sample(runs, from, to, differentiate); }, 16);
  }

  // Adds to `grad_input`.
  void backward_to_input(int threads, const T* grad, T* grad_input) const {
    constexpr int64_t line = 64 / sizeof(T);
    const int64_t share = std::max((g.channels + threads - 1) / threads + line - 1, line) / line * line;
    const auto spread = [&](const Sample<T>& s, int64_t pixel, int64_t tap, const Run* run, const Run* end) {
      for (; run != end; ++run) {
        scatter(grad_input + run->channel, s.offset, s.masked, s.n, run->length, grad + column(*run, pixel, tap));
      }
    };
    parallel_for((g.channels + share - 1) / share, threads, [&](int64_t from, int64_t to) {
      each_sample(runs_of(g, from * share, std::min(to * share, g.channels)), 0, count, spread);
    });
  }
};

template <class T>
Job<T> job_of(const std::vector<int64_t>& geometry, uintptr_t input, uintptr_t offset, uintptr_t mask, int64_t image,
              int64_t begin, int64_t count) {
  const Geometry g(geometry);
  const int64_t planes = g.offset_groups * g.taps() * g.out_pixels();
  return {g,
          reinterpret_cast<const T*>(input) + image * g.height * g.width * g.channels,
          reinterpret_cast<const T*>(offset) + image * 2 * planes,
          mask ? reinterpret_cast<const T*>(mask) + image * planes : nullptr,
          begin,
          count};
}

template <class T>
void columns(const std::vector<int64_t>& geometry, uintptr_t input, uintptr_t offset, uintptr_t mask, int64_t image,
             int64_t begin, int64_t count, int threads, uintptr_t out) {
  py::gil_scoped_release release;
  job_of<T>(geometry, input, offset, mask, image, begin, count).forward(threads, reinterpret_cast<T*>(out));
}

template <class T>
void columns_backward(const std::vector<int64_t>& geometry, uintptr_t input, uintptr_t offset, uintptr_t mask,
                      int64_t image, int64_t begin, int64_t count, int threads, uintptr_t grad, uintptr_t grad_input,
                      uintptr_t grad_offset, uintptr_t grad_mask) {
  py::gil_scoped_release release;
  const Job<T> job = job_of<T>(geometry, input, offset, mask, image, begin, count);
  const T* values = reinterpret_cast<const T*>(grad);
  if (grad_offset) {
    const int64_t planes = job.g.offset_groups * job.g.taps() * job.g.out_pixels();
    job.backward_to_offset(threads, values, reinterpret_cast<T*>(grad_offset) + image * 2 * planes,
                           grad_mask ? reinterpret_cast<T*>(grad_mask) + image * planes : nullptr);
  }
  if (grad_input) {
    const int64_t size = job.g.height * job.g.width * job.g.channels;
    job.backward_to_input(threads, values, reinterpret_cast<T*>(grad_input) + image * size);
  }
}

}  // namespace

void register_deform_conv(py::module_& module) {
  module.def("deform_columns_float32", &columns<float>);
  module.def("deform_columns_float64", &columns<double>);
  module.def("deform_columns_backward_float32", &columns_backward<float>);
  module.def("deform_columns_backward_float64", &columns_backward<double>);
}

}  // namespace det_ops
