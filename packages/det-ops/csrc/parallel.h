// parallel_for over a small pool of std::thread: no OpenMP, so the module shares no runtime with torch or NumPy.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

namespace det_ops {

// Calls `body(begin, end)` on chunks of at most `grain` indices that cover [0, n), on up to `threads` threads, the
// caller among them. Chunks are handed out in order as threads become free. The first exception is rethrown here.
// Call it without the GIL. It may be called from several threads at once and from inside a body (then it runs inline).
void parallel_chunks(int64_t n, int threads, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

template <class Body>
void parallel_for(int64_t n, int threads, Body&& body, int64_t grain = 1) {
  if (n <= 0) return;
  if (threads <= 1 || n <= grain) {
    body(int64_t{0}, n);
  } else {
    parallel_chunks(n, threads, std::max<int64_t>(grain, 1), std::ref(body));
  }
}

}  // namespace det_ops
