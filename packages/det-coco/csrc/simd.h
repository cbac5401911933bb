// DET_COCO_CLONES before a function compiles it for several instruction sets; the best one is chosen when it is loaded.
// The loops inside are plain C++ that the compiler vectorises. Wheels stay portable: the default clone runs anywhere.
#pragma once

#include <cstdint>  // defines __GLIBC__, where there is one

// Needs GNU indirect functions: glibc has them, musl has not. Define it empty to build without.
#if defined(DET_COCO_CLONES)
#elif defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
// Levels, not processors: GCC takes "arch=skylake-avx512" on that one model only and leaves all later ones the default.
#if __GNUC__ >= 12
#define DET_COCO_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define DET_COCO_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define DET_COCO_CLONES
#endif

// What a function with clones calls in its hot loop: inlined, it is compiled for the instruction set of each clone.
#if defined(__GNUC__)
#define DET_COCO_INLINE __attribute__((always_inline)) inline
#else
#define DET_COCO_INLINE inline
#endif
