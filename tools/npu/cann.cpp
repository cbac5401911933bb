// A stand-in for CANN, compiled by standin.py: the memory of the "device" is the host's, operators are only noted.
//
// It knows what torch_npu's host code needs to run: a device with its name, memory, copies, streams, events, tensors as
// descriptors, and the collectives of a single process. standin_take() gives what was called since the last time: kernels by name,
// with the attributes of the older interface (aclop), copies between host and device, and waits of the host.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

#define API extern "C" __attribute__((visibility("default")))

namespace {
std::mutex mutex;
std::string notes;
thread_local int32_t device = 0;
uintptr_t handle = 0x1000;
void* captured_stream = nullptr;
void* captured_graph = nullptr;
void (*on_replay)(void*) = nullptr;

void note(const std::string& line) {
  std::lock_guard<std::mutex> guard(mutex);
  notes += line + "\n";
}

struct Tensor {
  int64_t shape[16], stride[16];
  uint64_t ndim;
  int dtype, format;
  char* data;
};

size_t item_size(int dtype) {
  switch (dtype) {
    case 1: case 6: case 7: case 27: return 2;
    case 2: case 4: case 12: return 1;
    case 9: case 10: case 11: case 16: return 8;
    case 17: return 16;
    default: return 4;
  }
}

int allocate(void** pointer, size_t size) {
  size = (size + 511) / 512 * 512 + 512;
  *pointer = aligned_alloc(512, size);
  if (!*pointer) return 207001;
  memset(*pointer, 0, size);
  return 0;
}

int copy_memory(void* to, const void* from, size_t size, int kind) {
  static const char* kinds[] = {"host to host", "host to device", "device to host", "device to device"};
  if (kind == 1 || kind == 2) note(std::string("copy ") + kinds[kind]);
  memmove(to, from, size);
  return 0;
}

std::string list(int n, const int64_t* values) {
  std::string text = "(";
  for (int i = 0; i < n; i++) text += (i ? "," : "") + std::to_string(values[i]);
  return text + ")";
}
}  // namespace

// --- for the check
API const char* standin_take() {
  static std::string taken;
  std::lock_guard<std::mutex> guard(mutex);
  taken.swap(notes);
  notes.clear();
  return taken.c_str();
}
API long standin_kernel(const char* name) { note(name); return 0; }

// --- the device
API int aclInit(const char*) { return 0; }
API int aclFinalize() { return 0; }
API int aclrtGetDeviceCount(uint32_t* count) { *count = 1; return 0; }
API int aclrtGetDevice(int32_t* id) { *id = device; return 0; }
API int aclrtSetDevice(int32_t id) { device = id; return 0; }
API const char* aclrtGetSocName() { const char* name = getenv("STANDIN_SOC"); return name ? name : "Ascend910B3"; }
API int aclrtGetMemInfo(int, size_t* free, size_t* total) { *total = (size_t)8 << 30; *free = (size_t)7 << 30; return 0; }
API int aclrtDeviceCanAccessPeer(int32_t* can, int32_t, int32_t) { *can = 1; return 0; }
API int aclrtGetCurrentContext(void** context) { *context = (void*)0x10; return 0; }
API int aclrtSetCurrentContext(void*) { return 0; }
API int aclrtCreateContext(void** context, int32_t) { *context = (void*)0x10; return 0; }
API int aclrtGetSysParamOpt(int, int64_t* value) { *value = 0; return 0; }
API int aclrtSetSysParamOpt(int, int64_t) { return 0; }
API int aclrtCtxGetSysParamOpt(int, int64_t* value) { *value = 0; return 0; }
API int aclrtCtxSetSysParamOpt(int, int64_t) { return 0; }
API const char* aclGetRecentErrMsg() { return ""; }
API size_t aclGetCompileoptSize(int) { return 8; }
API int aclGetCompileopt(int, char* value, size_t n) { strncpy(value, "disable", n); return 0; }

// --- memory
API int aclrtMalloc(void** pointer, size_t size, int) { return allocate(pointer, size); }
API int aclrtMallocAlign32(void** pointer, size_t size, int) { return allocate(pointer, size); }
API int aclrtMallocHost(void** pointer, size_t size) { return allocate(pointer, size); }
API int aclrtFree(void* pointer) { free(pointer); return 0; }
API int aclrtFreeHost(void* pointer) { free(pointer); return 0; }
API int aclrtMemcpy(void* to, size_t, const void* from, size_t n, int kind) { return copy_memory(to, from, n, kind); }
API int aclrtMemcpyAsync(void* to, size_t, const void* from, size_t n, int kind, void*) { return copy_memory(to, from, n, kind); }
API int aclrtMemset(void* to, size_t, int value, size_t n) { memset(to, value, n); return 0; }
API int aclrtMemsetAsync(void* to, size_t, int value, size_t n, void*) { memset(to, value, n); return 0; }

// --- streams and events: everything is done when it is asked for
static int make(void** out) { *out = (void*)(handle += 16); return 0; }
API int aclrtCreateStream(void** stream) { return make(stream); }
API int aclrtCreateStreamWithConfig(void** stream, uint32_t, uint32_t) { return make(stream); }
API int aclrtCreateEvent(void** event) { return make(event); }
API int aclrtCreateEventWithFlag(void** event, uint32_t) { return make(event); }
API int aclrtCreateEventExWithFlag(void** event, uint32_t) { return make(event); }
API int aclrtSynchronizeStream(void* stream) {
  // torch_npu's generator of random numbers has a stream of its own, for which it waits where the other is captured.
  note(captured_stream && stream != captured_stream ? "another stream is waited for" : "wait for the stream");
  return 0;
}
API int aclrtSynchronizeStreamWithTimeout(void* stream, int) { return aclrtSynchronizeStream(stream); }
API int aclrtSynchronizeDevice() { note("wait for the device"); return 0; }
API int aclrtSynchronizeEvent(void*) { note("wait for an event"); return 0; }
API int aclrtQueryEventStatus(void*, int* status) { *status = 1; return 0; }
API int aclrtQueryEventWaitStatus(void*, int* status) { *status = 1; return 0; }
API int aclrtEventElapsedTime(float* milliseconds, void*, void*) { *milliseconds = 1; return 0; }
API int aclrtGetStreamAttribute(void*, int, void*) { return 0; }
API int aclrtStreamQuery(void*, int* status) { *status = 0; return 0; }

// --- graphs: what is launched in a capture is not done; standin_on_replay() names the function that does it for a replay
API void standin_on_replay(void (*function)(void*)) { on_replay = function; }
API void* standin_capture() { return captured_stream ? captured_graph : nullptr; }
API int aclmdlRICaptureBegin(void* stream, int) {
  captured_stream = stream;
  note("capture begins");
  return make(&captured_graph);
}
API int aclmdlRICaptureGetInfo(void* stream, int* status, void** graph) {
  *status = captured_stream && stream == captured_stream;
  if (graph) *graph = captured_graph;
  return 0;
}
API int aclmdlRICaptureEnd(void*, void** graph) {
  *graph = captured_graph;
  captured_stream = nullptr;
  return 0;
}
API int aclmdlRICaptureThreadExchangeMode(int*) { return 0; }
API int aclmdlRIDestroy(void*) { return 0; }
API int aclmdlRIExecuteAsync(void* graph, void*) {
  note("replay");
  if (on_replay) on_replay(graph);
  return 0;
}

// --- arguments of kernels of today's interface (aclnn)
API void* aclCreateTensor(const int64_t* shape, uint64_t ndim, int dtype, const int64_t* stride, int64_t offset, int format,
                          const int64_t*, uint64_t, void* data) {
  Tensor* tensor = new Tensor{};
  tensor->ndim = ndim; tensor->dtype = dtype; tensor->format = format;
  for (uint64_t i = 0; i < ndim; i++) { tensor->shape[i] = shape[i]; tensor->stride[i] = stride[i]; }
  tensor->data = (char*)data + offset * (int64_t)item_size(dtype);
  return tensor;
}
API int aclDestroyTensor(void* tensor) { delete (Tensor*)tensor; return 0; }
API int aclGetViewShape(const void* tensor, int64_t** shape, uint64_t* ndim) {
  *shape = new int64_t[16];
  memcpy(*shape, ((const Tensor*)tensor)->shape, sizeof(Tensor::shape));
  *ndim = ((const Tensor*)tensor)->ndim;
  return 0;
}
API void* aclCreateScalar(void*, int) { return new char; }
API void* aclCreateIntArray(const int64_t*, uint64_t) { return new char; }
API void* aclCreateFloatArray(const float*, uint64_t) { return new char; }
API void* aclCreateBoolArray(const bool*, uint64_t) { return new char; }
API void* aclCreateTensorList(void* const*, uint64_t) { return new char; }
API void* aclCreateScalarList(void* const*, uint64_t) { return new char; }
API int aclDestroyScalar(void* value) { delete (char*)value; return 0; }
API int aclDestroyIntArray(void* value) { delete (char*)value; return 0; }
API int aclDestroyFloatArray(void* value) { delete (char*)value; return 0; }
API int aclDestroyBoolArray(void* value) { delete (char*)value; return 0; }
API int aclDestroyTensorList(void* value) { delete (char*)value; return 0; }
API int aclDestroyScalarList(void* value) { delete (char*)value; return 0; }

// The one kernel that is computed here: torch_npu copies with it inside others.
API long aclnnInplaceCopyGetWorkspaceSize(void* to, void* from, uint64_t*, void**) {
  note("aclnnInplaceCopy");
  const Tensor &a = *(Tensor*)to, &b = *(Tensor*)from;
  if (a.dtype != b.dtype) return 0;
  size_t size = item_size(a.dtype);
  int64_t place[16] = {0}, count = 1;
  for (uint64_t i = 0; i < a.ndim; i++) count *= a.shape[i];
  for (int64_t k = 0; k < count; k++) {
    int64_t x = 0, y = 0;
    for (uint64_t i = 0; i < a.ndim; i++) {
      int64_t j = (int64_t)i - (int64_t)(a.ndim - b.ndim);
      x += place[i] * a.stride[i];
      if (j >= 0 && b.shape[j] != 1) y += place[i] * b.stride[j];
    }
    memcpy(a.data + x * (int64_t)size, b.data + y * (int64_t)size, size);
    for (int i = (int)a.ndim - 1; i >= 0; i--) {
      if (++place[i] < a.shape[i]) break;
      place[i] = 0;
    }
  }
  return 0;
}

// --- kernels of the older interface (aclop), which Ascend 950 does not have
API int aclopCompileAndExecute(const char* name, int, void**, void**, int, void**, void**, void* attributes, int, int, const char*, void*) {
  note(std::string("aclop:") + name + (attributes ? *(std::string*)attributes : ""));
  return 0;
}
API int aclopCompileAndExecuteV2(const char* name, int a, void** b, void** c, int d, void** e, void** f, void* attributes, int g, int h,
                                 const char* i, void* j) {
  return aclopCompileAndExecute(name, a, b, c, d, e, f, attributes, g, h, i, j);
}
API void* aclCreateTensorDesc(int dtype, int ndim, const int64_t* shape, int format) {
  return aclCreateTensor(shape, (uint64_t)ndim, dtype, shape, 0, format, nullptr, 0, nullptr);
}
API void aclDestroyTensorDesc(void* tensor) { delete (Tensor*)tensor; }
API void* aclCreateDataBuffer(void*, size_t) { return new char; }
API int aclDestroyDataBuffer(void* buffer) { delete (char*)buffer; return 0; }
API size_t aclGetTensorDescNumDims(void* tensor) { return ((Tensor*)tensor)->ndim; }
API int aclGetTensorDescDimV2(void* tensor, size_t i, int64_t* size) { *size = ((Tensor*)tensor)->shape[i]; return 0; }
API int aclGetTensorDescType(void* tensor) { return ((Tensor*)tensor)->dtype; }
API int aclGetTensorDescFormat(void* tensor) { return ((Tensor*)tensor)->format; }
API void* aclopCreateAttr() { return new std::string; }
API void aclopDestroyAttr(void* attributes) { delete (std::string*)attributes; }
static int set(void* attributes, const char* key, const std::string& value) {
  *(std::string*)attributes += std::string(" ") + key + "=" + value;
  return 0;
}
API int aclopSetAttrBool(void* a, const char* key, uint8_t value) { return set(a, key, std::to_string(value)); }
API int aclopSetAttrInt(void* a, const char* key, int64_t value) { return set(a, key, std::to_string(value)); }
API int aclopSetAttrFloat(void* a, const char* key, float value) { return set(a, key, std::to_string(value)); }
API int aclopSetAttrString(void* a, const char* key, const char* value) { return set(a, key, value); }
API int aclopSetAttrDataType(void* a, const char* key, int value) { return set(a, key, std::to_string(value)); }
API int aclopSetAttrListInt(void* a, const char* key, int n, const int64_t* values) { return set(a, key, list(n, values)); }
API int aclopSetAttrListFloat(void* a, const char* key, int n, const float*) { return set(a, key, std::to_string(n) + " numbers"); }

// --- collectives of a single process
static int collective(const char* name, void* from, void* to, uint64_t n, int dtype) {
  static const size_t sizes[] = {1, 2, 4, 2, 4, 8, 8, 1, 2, 4, 8, 2};
  note(name);
  if (from != to) memmove(to, from, n * (dtype < 12 ? sizes[dtype] : 4));
  return 0;
}
API int HcclAllReduce(void* from, void* to, uint64_t n, int dtype, int, void*, void*) { return collective("HcclAllReduce", from, to, n, dtype); }
API int HcclAllGather(void* from, void* to, uint64_t n, int dtype, void*, void*) { return collective("HcclAllGather", from, to, n, dtype); }
API int HcclReduceScatter(void* from, void* to, uint64_t n, int dtype, int, void*, void*) {
  return collective("HcclReduceScatter", from, to, n, dtype);
}
API int HcclBroadcast(void*, uint64_t, int, uint32_t, void*, void*) { note("HcclBroadcast"); return 0; }
