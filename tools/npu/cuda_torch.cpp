// Preloaded where PyTorch is a CUDA build: lets torch_npu load beside its CUDA libraries, without a GPU, for the check alone.
//
// Both register the allocator option pinned_reserve_segment_size_mb; the second registration throws in a static initialiser and ends
// the process. Here each registration starts from PyTorch's own options.
#include <dlfcn.h>

#include <string>
#include <unordered_set>

#define KEYS "_ZN3c1016CachingAllocator26AcceleratorAllocatorConfig14getMutableKeysB5cxx11Ev"
using Keys = std::unordered_set<std::string>;

extern "C" Keys& keys() __asm__(KEYS);
extern "C" Keys& keys() {
  static auto original = (Keys & (*)()) dlsym(dlopen("libc10.so", RTLD_LAZY | RTLD_NOLOAD), KEYS);
  Keys& current = original();
  static Keys own = current;
  current = own;
  return current;
}
