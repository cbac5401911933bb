#pragma once

#include <pybind11/numpy.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace det_coco {

// A growing array that becomes a NumPy array without a copy. Large blocks grow by moving pages where the system can
// (realloc), so that no second copy is ever in memory.
template <typename T>
class Column {
 public:
  Column() = default;
  Column(Column&& other) noexcept : items_(std::exchange(other.items_, nullptr)) {}
  Column(const Column&) = delete;
  Column& operator=(const Column&) = delete;
  ~Column() { std::free(items_); }

  size_t size() const { return size_; }
  T& operator[](size_t place) { return items_[place]; }
  void truncate(size_t size) { size_ = size; }

  void push(const T& item) {
    if (size_ == room_) resize(room_ < 1024 ? 1024 : room_ + room_ / 2);
    items_[size_++] = item;
  }

  void append(const T* items, size_t count) {
    if (size_ + count > room_) resize(size_ + count + 1024 + room_ / 2);
    if (count > 0) std::memcpy(items_ + size_, items, count * sizeof(T));
    size_ += count;
  }

  pybind11::array_t<T> release() {
    resize(size_ > 0 ? size_ : 1);
    pybind11::capsule owner(items_, [](void* items) { std::free(items); });
    return pybind11::array_t<T>({size_}, {sizeof(T)}, std::exchange(items_, nullptr), owner);
  }

 private:
  void resize(size_t room) {
    void* moved = std::realloc(static_cast<void*>(items_), room * sizeof(T));
    if (moved == nullptr) throw std::bad_alloc();
    items_ = static_cast<T*>(moved);
    room_ = room;
  }

  T* items_ = nullptr;
  size_t size_ = 0, room_ = 0;
};

}  // namespace det_coco
