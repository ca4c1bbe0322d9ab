/* A stand-in for NVIDIA's libcuda.so.1, for pycuda itself: one device whose memory is the host's, streams that do their
 * work at once, and graphs of copies. What engines/cuda.py and engines/cuda_graph.py never call answers "not supported"
 * (the test adds such stubs). Types are those of cuda.h on a 64-bit machine. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NO_CONTEXT = 201, BAD_HANDLE = 400, ILLEGAL_ADDRESS = 700,
       MISALIGNED = 716, LAUNCH_FAILED = 719, CAPTURING = 900, CAPTURE_BROKEN = 901 };
enum { CALLS = 64, DEPTH = 8 };

typedef struct { void *to; const void *from; size_t size; } Copy;
typedef struct { Copy copies[CALLS]; int count, capturing, broken; } Stream;
typedef struct { Copy copies[CALLS]; int count; } Graph;

static int sticky;
static int the_context;
static _Thread_local int depth;

#define ENTER if (sticky) return sticky; if (depth == 0) return NO_CONTEXT

/* cuda-python asks for every function by its plain name. */
int cuGetProcAddress_v2(const char *name, void **found, int version, uint64_t flags, int *result) {
  char newer[128];
  void *self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  (void)version; (void)flags; (void)result;
  const char *other = strcmp(name, "cuGraphInstantiate") == 0 ? "cuGraphInstantiateWithFlags" : name;
  snprintf(newer, sizeof newer, "%s_v2", other);
  *found = dlsym(self, newer);
  if (*found == NULL) *found = dlsym(self, other);
  return *found ? OK : 500;
}

int cuInit(unsigned flags) { (void)flags; return OK; }
int cuDriverGetVersion(int *version) { *version = 12060; return OK; }
int cuDeviceGet(int *device, int ordinal) { *device = 0; return ordinal == 0 ? OK : 101; }
int cuDeviceGetCount(int *count) { *count = 1; return OK; }
int cuDeviceGetName(char *name, int size, int device) { (void)device; strncpy(name, "Stand-in", size); return OK; }
int cuDeviceComputeCapability(int *major, int *minor, int device) { (void)device; *major = 8; *minor = 7; return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  *value = attribute == 18 /* CU_DEVICE_ATTRIBUTE_INTEGRATED */ && getenv("STANDIN_SHARED") != NULL;
  if (attribute == 16 /* CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT */) *value = 16;
  return OK;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = (size_t)62841 << 20; return OK; }
/* As driver 580 says them. */
static const struct { int code; const char *text; } TEXTS[] = {
  {1, "invalid argument"}, {2, "out of memory"}, {4, "driver shutting down"}, {201, "invalid device context"},
  {214, "uncorrectable ECC error encountered"}, {220, "uncorrectable NVLink error detected during the execution"},
  {226, "Invalid access of peer GPU memory over nvlink or a hardware error"}, {400, "invalid resource handle"},
  {700, "an illegal memory access was encountered"}, {702, "the launch timed out and was terminated"},
  {709, "context is destroyed"}, {710, "device-side assert triggered"}, {714, "hardware stack error"},
  {715, "an illegal instruction was encountered"}, {716, "misaligned address"},
  {717, "operation not supported on global/shared address space"}, {718, "invalid program counter"},
  {719, "unspecified launch failure"}, {721, "tensor memory not completely freed"},
  {810, "the MPS client has been terminated by the server"}, {900, "operation not permitted when stream is capturing"},
  {801, "operation not supported"},
  {901, "operation failed due to a previous error during capture"},
};
int cuGetErrorString(int code, const char **text) {
  *text = NULL;
  for (unsigned i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) if (TEXTS[i].code == code) *text = TEXTS[i].text;
  return *text ? OK : INVALID;
}

int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = &the_context; return OK; }
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return OK; }
int cuCtxPushCurrent_v2(void *context) {
  if (context != &the_context || depth == DEPTH) return INVALID;
  depth++;
  return OK;
}
int cuCtxPopCurrent_v2(void **context) {
  if (depth == 0) return NO_CONTEXT;
  depth--;
  *context = &the_context;
  return OK;
}
int cuCtxSynchronize(void) { ENTER; return OK; }

int cuStreamCreate(Stream **stream, unsigned flags) {
  ENTER;
  if (flags > 1) return INVALID;
  *stream = calloc(1, sizeof **stream);
  return OK;
}
int cuStreamDestroy_v2(Stream *stream) { ENTER; free(stream); return OK; }
int cuStreamSynchronize(Stream *stream) {
  ENTER;
  if (stream->capturing) { stream->broken = 1; return CAPTURING; }
  return OK;
}
/* From one recorded event to the next takes a millisecond. */
int cuEventCreate(int **event, unsigned flags) { ENTER; if (flags > 7) return INVALID; *event = calloc(1, sizeof **event); return OK; }
int cuEventDestroy_v2(int *event) { ENTER; free(event); return OK; }
int cuEventRecord(int *event, Stream *stream) {
  static int last;
  ENTER;
  if (event == NULL || stream == NULL) return INVALID;
  *event = ++last;
  return OK;
}
int cuEventElapsedTime(float *ms, int *begin, int *end) { ENTER; *ms = *end - *begin; return OK; }
int cuEventElapsedTime_v2(float *ms, int *begin, int *end) { return cuEventElapsedTime(ms, begin, end); }
int cuEventSynchronize(void *event) { ENTER; return event ? OK : INVALID; }

static int allocate(void **memory, size_t size) {
  if (size > (size_t)1 << 40) return NO_MEMORY;
  *memory = malloc(size);
  return *memory ? OK : NO_MEMORY;
}
int cuMemAlloc_v2(void **memory, size_t size) { ENTER; return allocate(memory, size); }
int cuMemFree_v2(void *memory) { ENTER; free(memory); return OK; }
int cuMemHostAlloc(void **memory, size_t size, unsigned flags) { ENTER; return flags > 7 ? INVALID : allocate(memory, size); }
int cuMemFreeHost(void *memory) { ENTER; free(memory); return OK; }
int cuMemHostGetDevicePointer_v2(void **address, void *memory, unsigned flags) {
  ENTER;
  *address = memory;
  return flags == 0 ? OK : INVALID;
}

static int copy(void *to, const void *from, size_t size, Stream *stream) {
  ENTER;
  if (stream == NULL) return INVALID; /* the default stream: never ours */
  if (!stream->capturing) { memcpy(to, from, size); return OK; }
  if (stream->count == CALLS) return NO_MEMORY;
  stream->copies[stream->count++] = (Copy){to, from, size};
  return OK;
}
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t size, Stream *stream) { return copy(to, from, size, stream); }
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t size, Stream *stream) { return copy(to, from, size, stream); }

int cuStreamBeginCapture_v2(Stream *stream, int mode) {
  ENTER;
  if (mode < 0 || mode > 2 || stream->capturing) return INVALID;
  stream->capturing = 1;
  stream->broken = stream->count = 0;
  return OK;
}
int cuStreamEndCapture(Stream *stream, Graph **graph) {
  ENTER;
  int broken = stream->broken;
  *graph = NULL;
  stream->capturing = 0;
  if (broken) return CAPTURE_BROKEN;
  *graph = calloc(1, sizeof **graph);
  (*graph)->count = stream->count;
  memcpy((*graph)->copies, stream->copies, sizeof stream->copies);
  return OK;
}
int cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long flags) {
  ENTER;
  if (flags != 0 || graph == NULL) return INVALID;
  *executable = malloc(sizeof **executable);
  **executable = *graph;
  return OK;
}
int cuGraphLaunch(Graph *executable, Stream *stream) {
  ENTER;
  for (int i = 0; i < executable->count; i++) {
    int code = copy(executable->copies[i].to, executable->copies[i].from, executable->copies[i].size, stream);
    if (code) return code;
  }
  return OK;
}
int cuGraphExecDestroy(Graph *executable) { ENTER; free(executable); return OK; }
int cuGraphDestroy(Graph *graph) { ENTER; free(graph); return OK; }

/* Kernels are known by their names (tests/gpu/kernels.py) and done here. */
enum { WRITE_NOWHERE = 1, WRITE_ASKEW, TRAP, ADD_ONE, SPIN };
int cuModuleLoadDataEx(void **module, const void *image, unsigned count, int *options, void **values) {
  ENTER;
  (void)image; (void)count; (void)options; (void)values;
  *module = malloc(1);
  return OK;
}
int cuModuleUnload(void *module) { ENTER; free(module); return OK; }
int cuModuleGetFunction(intptr_t *function, void *module, const char *name) {
  ENTER;
  static const char *names[] = {"write_nowhere", "write_askew", "trap", "add_one", "spin"};
  (void)module;
  for (int i = 0; i < 5; i++) if (strcmp(name, names[i]) == 0) { *function = i + 1; return OK; }
  return 500;
}
int cuFuncSetBlockShape(intptr_t function, int x, int y, int z) { ENTER; (void)function; (void)x; (void)y; (void)z; return OK; }
int cuLaunchKernel(intptr_t function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, Stream *stream, void **parameters, void **extra) {
  ENTER;
  (void)gx; (void)gy; (void)gz; (void)bx; (void)by; (void)bz; (void)shared; (void)stream; (void)parameters;
  if (function == WRITE_NOWHERE) sticky = ILLEGAL_ADDRESS;
  if (function == WRITE_ASKEW) sticky = MISALIGNED;
  if (function == TRAP) sticky = LAUNCH_FAILED;
  if (function == ADD_ONE) { /* extra: CU_LAUNCH_PARAM_BUFFER_POINTER, the arguments one behind the other */
    float *values = *(float **)extra[1];
    for (int i = 0; i < *(int *)((char *)extra[1] + 8); i++) values[i] += 1;
  }
  return OK;
}
