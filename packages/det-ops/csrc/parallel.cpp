#include "parallel.h"

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define DET_OPS_FORK 1
#endif

namespace det_ops {
namespace {

struct Job {
  const std::function<void(int64_t, int64_t)>* body;
  int64_t n;
  int64_t grain;
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex error_mutex;
  std::exception_ptr error;

  void work() {
    while (!failed.load(std::memory_order_relaxed)) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= n) return;
      try {
        (*body)(begin, std::min(begin + grain, n));
      } catch (...) {
        std::lock_guard<std::mutex> lock(error_mutex);
        if (!error) error = std::current_exception();
        failed = true;
      }
    }
  }
};

thread_local bool inside = false;

class Pool {
 public:
  // False where another thread is using the pool: the caller then works alone, which is what it would get anyway.
  bool run(Job& job, int threads) {
    std::unique_lock<std::mutex> owner(owner_mutex_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    const int helpers = threads - 1;
    while (static_cast<int>(workers_.size()) < helpers) {
      const int index = static_cast<int>(workers_.size());
      workers_.emplace_back([this, index, seen = generation_] { loop(index, seen); });
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      wanted_ = helpers;
      pending_ = helpers;
      ++generation_;
    }
    wake_.notify_all();
    inside = true;
    job.work();
    inside = false;
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return pending_ == 0; });
    job_ = nullptr;
    return true;
  }

 private:
  void loop(int index, uint64_t seen) {
    inside = true;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return generation_ != seen; });
      seen = generation_;
      if (index >= wanted_) continue;
      Job* job = job_;
      lock.unlock();
      job->work();
      lock.lock();
      if (--pending_ == 0) done_.notify_one();
    }
  }

  std::mutex owner_mutex_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::vector<std::thread> workers_;
  Job* job_ = nullptr;
  int wanted_ = 0;
  int pending_ = 0;
  uint64_t generation_ = 0;
};

// Never destroyed: joining threads while the interpreter shuts down can hang, and the system ends them anyway.
std::atomic<Pool*> pool{nullptr};

Pool& the_pool() {
  Pool* current = pool.load(std::memory_order_acquire);
  if (current) return *current;
  Pool* fresh = new Pool;
  if (pool.compare_exchange_strong(current, fresh)) {
#ifdef DET_OPS_FORK
    // Threads do not survive fork (data loader workers): the child starts with a pool of its own.
    static std::once_flag once;
    std::call_once(once, [] {
      pthread_atfork(nullptr, nullptr, [] {
        pool.store(nullptr, std::memory_order_release);
        inside = false;
      });
    });
#endif
    return *fresh;
  }
  delete fresh;
  return *current;
}

}  // namespace

void parallel_chunks(int64_t n, int threads, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  Job job;
  job.body = &body;
  job.n = n;
  job.grain = grain;
  const int64_t chunks = (n + grain - 1) / grain;
  const int used = static_cast<int>(std::min<int64_t>(threads, chunks));
  if (used <= 1 || inside || !the_pool().run(job, used)) job.work();
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace det_ops
