/* kd_plugin.h - the kdhost method-plugin ABI, version 1 (LP64). SPDX: MIT OR Apache-2.0
 *
 * The same definitions as the Rust crate kd-abi; a test compares size and offset of every field.
 * Lifetimes, in one line: whatever an argument points to is valid until the function returns.
 * One exception, so that a plugin can keep a graph: the memory of taps, params and targets given
 * to a forward stays valid and unchanged until the saved state of that forward is released (the
 * KdTensor structs that describe it do not).
 */
#ifndef KD_PLUGIN_H
#define KD_PLUGIN_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define KD_ABI_MAJOR 1u
#define KD_ABI_MINOR 0u

typedef int32_t KdStatus;
#define KD_OK              0
#define KD_E_INVALID_ARG   1
#define KD_E_UNSUPPORTED   2
#define KD_E_CONFIG        3
#define KD_E_SHAPE         4
#define KD_E_DTYPE         5
#define KD_E_DEVICE        6
#define KD_E_OOM           7
#define KD_E_CANCELLED     8
#define KD_E_NUMERIC       9
#define KD_E_STATE        10
#define KD_E_INTERNAL     11
#define KD_E_PANIC        12

/* tensor flags */
#define KD_T_READ_ONLY   (1u << 0)   /* same bit as DLPack READ_ONLY */
#define KD_T_IS_COPIED   (1u << 1)   /* same bit as DLPack IS_COPIED */
#define KD_T_ACCUMULATE  (1u << 16)  /* output: add into it, do not overwrite */
#define KD_T_ZEROED      (1u << 17)  /* output: the host has already zeroed it */

/* call flags */
#define KD_CALL_TRAINING      (1u << 0)  /* a training step */
#define KD_CALL_CHECK         (1u << 1)  /* a check; nothing of it reaches the run */
#define KD_CALL_DETERMINISTIC (1u << 2)  /* equal inputs and seed must give equal bits */
/* In this phase the losses send no gradient into student taps. The host cuts it for a method without
 * maps. A method with maps keeps its losses off the student's taps itself: their gradient through
 * the maps is still wanted, and the host cannot tell the two apart. */
#define KD_CALL_DETACH_STUDENT (1u << 3)

/* what a method does with a tap */
#define KD_USE_VALUE (1u << 0)
#define KD_USE_GRAD  (1u << 1)

/* symbolic extents */
#define KD_DIM_N (-1)  /* batch */
#define KD_DIM_H (-2)  /* height in cells */
#define KD_DIM_W (-3)  /* width in cells */
#define KD_DIM_T (-4)  /* ground-truth objects in the batch; may be 0 */

/* DLPack type codes and devices */
#define KD_DTYPE_INT     0
#define KD_DTYPE_UINT    1
#define KD_DTYPE_FLOAT   2
#define KD_DTYPE_BFLOAT  4
#define KD_DTYPE_BOOL    6
#define KD_DEVICE_CPU    1
#define KD_DEVICE_CUDA   2

/* alloc lifetimes */
#define KD_ALLOC_CALL  0u
#define KD_ALLOC_SAVED 1u

/* log levels */
#define KD_LOG_ERROR 1
#define KD_LOG_WARN  2
#define KD_LOG_INFO  3
#define KD_LOG_DEBUG 4
#define KD_LOG_TRACE 5

/* borrowed UTF-8, not NUL-terminated; ptr may be NULL when len == 0 */
typedef struct KdStr    { const char *ptr; uint64_t len; } KdStr;
typedef struct KdDType  { uint8_t code, bits; uint16_t lanes; } KdDType;   /* == DLDataType */
typedef struct KdDevice { int32_t kind, id; } KdDevice;                    /* == DLDevice   */

/* byte for byte DLTensor of DLPack 1.x; strides (in elements) is never NULL when ndim > 0 */
typedef struct KdDlTensor {
  void *data; KdDevice device; int32_t ndim; KdDType dtype;
  const int64_t *shape; const int64_t *strides; uint64_t byte_offset;
} KdDlTensor;

typedef struct KdTensor {            /* borrowed for one call */
  KdDlTensor dl;
  uint64_t   span_bytes;             /* bytes reachable from data + byte_offset */
  uint32_t   flags;                  /* KD_T_* */
  uint32_t   slot;                   /* index in the plan, for messages */
} KdTensor;

typedef struct KdHost  KdHost;
typedef struct KdInst  KdInst;       /* plugin-owned, opaque to the host */
typedef struct KdSaved KdSaved;      /* plugin-owned, opaque to the host */

typedef struct KdCall {              /* host-owned; valid until the callee returns */
  uint32_t struct_size;
  uint32_t flags;                    /* KD_CALL_* */
  const KdHost *host;
  void *host_ctx;                    /* hand back to every KdHost function */
  const uint32_t *cancel;            /* relaxed atomic load; non-zero: return KD_E_CANCELLED */
  uint32_t stage, phase;             /* indices into the schedule */
  /* of the run; in a phase of the method alone, step, total_steps and epoch are of the phase */
  uint64_t step;                     /* optimizer steps done */
  uint64_t phase_step, phase_steps;  /* steps done in this phase, steps it will have */
  uint64_t total_steps;              /* steps there will be */
  uint64_t epoch;                    /* epochs completed */
  uint64_t seed;                     /* the only permitted source of randomness; new for each micro-batch */
  KdDevice device;
  uint64_t stream;                   /* CUstream; 0 on CPU */
} KdCall;

struct KdHost {                      /* callable only inside a call, on its thread */
  uint32_t struct_size;
  uint32_t abi_minor;
  int32_t  (*log_enabled)(void *host_ctx, int32_t level, KdStr target);
  void     (*log)(void *host_ctx, int32_t level, KdStr target, KdStr message, KdStr fields_json);
  void     (*set_error)(void *host_ctx, KdStatus status, KdStr message, KdStr detail_json);
  KdStatus (*alloc)(void *host_ctx, uint32_t lifetime, uint64_t bytes, uint64_t align, void **out);
  void     (*metric)(void *host_ctx, KdStr name, double value);
  const void *(*get_extension)(void *host_ctx, KdStr id);
};

typedef struct KdSpec {              /* a named tensor that the plan declares */
  KdStr name; KdDType dtype; int32_t ndim; const int64_t *shape; KdStr attrs_json;
} KdSpec;

typedef struct KdTap {               /* a tap the host has bound */
  KdStr name;                        /* neck.p3, head.cls_logits.p4, ... */
  KdStr role;                        /* student, teacher, or a further teacher's name */
  KdDType dtype; int32_t ndim;
  const int64_t *shape;              /* batch symbolic; height and width in cells, symbolic unless
                                        every training image of the run has one size */
  uint32_t stride;                   /* input pixels per cell; 0: no grid */
  uint32_t use_bits;                 /* KD_USE_* asked for by the manifest's pattern */
} KdTap;

typedef struct KdPlanSink {          /* host-implemented; plan declares through it */
  uint32_t struct_size; uint32_t reserved; void *sink;
  KdStatus (*param)(void *sink, const KdSpec *spec, uint32_t *slot);
  KdStatus (*buffer)(void *sink, const KdSpec *spec, uint32_t *slot);
  KdStatus (*loss)(void *sink, KdStr name, double default_weight, uint32_t *slot);
  KdStatus (*map)(void *sink, const KdSpec *spec, uint32_t replaces_tap, uint32_t *slot);
  /* use_bits 0: the tap then crosses without elements */
  KdStatus (*tap_use)(void *sink, uint32_t tap, uint32_t use_bits);
  KdStatus (*schedule)(void *sink, KdStr schedule_json);
  /* index in the manifest's targets; use_bits 0: it then crosses without elements */
  KdStatus (*target_use)(void *sink, uint32_t target, uint32_t use_bits);
} KdPlanSink;

typedef struct KdForward {
  uint32_t struct_size;
  uint32_t n_taps, n_params, n_buffers, n_targets, n_losses, n_maps;
  uint32_t reserved;
  const KdTensor *taps, *params;
  KdTensor       *buffers;
  const KdTensor *targets;                /* in the manifest's order */
  KdTensor       *losses, *maps;          /* losses: f32, rank 0 */
} KdForward;

typedef struct KdBackward {
  uint32_t struct_size;
  uint32_t n_taps, n_params, n_losses, n_maps, reserved;
  const KdTensor *taps, *params;          /* the same values forward saw */
  const KdTensor *d_losses, *d_maps;      /* upstream gradients, the host's weights folded in */
  KdTensor *d_taps, *d_params;            /* dl.data == NULL: not wanted */
} KdBackward;

/* No function pointer may be NULL; none may unwind. One instance is never entered concurrently. */
typedef struct KdMethod {
  uint32_t struct_size;
  uint32_t flags;
  KdStr    id;
  KdStatus (*create)(const KdCall *call, KdStr config_json, KdInst **out);
  void     (*destroy)(KdInst *inst);
  KdStatus (*plan)(KdInst *inst, const KdCall *call, const KdTap *taps, uint32_t n_taps,
                   const KdPlanSink *sink);
  KdStatus (*init_state)(KdInst *inst, const KdCall *call, KdTensor *params, uint32_t n_params,
                         KdTensor *buffers, uint32_t n_buffers);
  KdStatus (*forward)(KdInst *inst, const KdCall *call, const KdForward *args, KdSaved **saved);
  KdStatus (*backward)(KdInst *inst, const KdCall *call, const KdBackward *args, KdSaved *saved);
  void     (*release_saved)(KdInst *inst, KdSaved *saved);
  const void *(*get_extension)(KdInst *inst, KdStr id);
} KdMethod;

typedef struct KdPlugin {
  uint32_t struct_size;
  uint32_t abi_major, abi_minor;
  uint32_t n_methods;
  const KdMethod *const *methods;
  KdStatus (*init)(const KdHost *host, void *host_ctx);
  void     (*deinit)(void);
} KdPlugin;

/* Extensions of the host: tables beyond version 1, from KdHost.get_extension inside a call. An id
 * stands for one layout and one meaning for good. A host may lack any and answers NULL. */

/* The host's convolution: static; call it only inside a call, on its thread, with its host_ctx.
 * Memory: f32, row-major, contiguous, borrowed until the function returns. Maps are
 * [cells, channels], cells level by level, image by image, row by row; weights are
 * [c_out, c_in, kernel, kernel]. Every element of an output is overwritten; outputs overlap neither
 * inputs nor each other. What breaks this is refused with KD_E_INVALID_ARG, a call out of place with
 * KD_E_STATE: the host's log says why, and no output was written. */
#define KD_EXT_CONV "kd.conv/1"
#define KD_CONV_RELU (1u << 0)       /* negative results become 0; the gradient at 0 is 0 */

typedef struct KdMapSize { uint64_t n, h, w; } KdMapSize;  /* images, rows, columns of a level */

typedef struct KdConv {              /* stride 1, zeros around: maps keep their size */
  uint32_t struct_size;
  uint32_t n_sizes;
  const KdMapSize *sizes;            /* the levels, in the order in which their cells lie */
  uint32_t c_in, c_out;
  uint32_t kernel;                   /* height and width; odd */
  uint32_t flags;                    /* KD_CONV_* */
} KdConv;

typedef struct KdConvTable {
  uint32_t struct_size;
  uint32_t reserved;
  /* y = x * weight + bias (cross-correlation), then ReLU if the flags say so */
  KdStatus (*forward)(void *host_ctx, const KdConv *conv, const float *x, const float *weight,
                      const float *bias, float *y);
  /* gradients of sum(dy * y), NULL where none is wanted; y: what forward wrote, read with
   * KD_CONV_RELU alone, else it may be NULL */
  KdStatus (*backward)(void *host_ctx, const KdConv *conv, const float *x, const float *weight,
                       const float *y, const float *dy, float *dx, float *dweight, float *dbias);
} KdConvTable;

#if defined(__GNUC__)
#define KD_EXPORT __attribute__((visibility("default"), used))
#else
#define KD_EXPORT
#endif
/* the one required symbol besides the note: const, no side effects, no allocation */
KD_EXPORT const KdPlugin *kd_plugin_v1(void);

#define KD_STR(literal) { literal, sizeof(literal) - 1u }

/* ELF note carrying the JSON manifest: KD_MANIFEST("{\"schema\":1,...}") at file scope */
#define KD_NOTE_TYPE 0x4b440001u
#define KD_MANIFEST(json)                                                              \
  __attribute__((used, section(".note.kdhost"), aligned(4)))                           \
  static const struct { uint32_t namesz, descsz, type; char name[8];                   \
                        char desc[(sizeof(json) + 3u) & ~3u]; }                        \
  kd_manifest_note = { 7u, (uint32_t)(sizeof(json) - 1u), KD_NOTE_TYPE, "kdhost", json }

/* Entries of a method without parameters, saved state or extensions. */
#if defined(__GNUC__)
#define KD_UNUSED __attribute__((unused))
#else
#define KD_UNUSED
#endif
KD_UNUSED static KdStatus kd_no_init(const KdHost *host, void *host_ctx) {
  (void)host; (void)host_ctx; return KD_OK;
}
KD_UNUSED static void kd_no_deinit(void) {}
KD_UNUSED static KdStatus kd_no_state(KdInst *inst, const KdCall *call, KdTensor *params,
                                      uint32_t n_params, KdTensor *buffers, uint32_t n_buffers) {
  (void)inst; (void)call; (void)params; (void)buffers;
  return n_params + n_buffers == 0 ? KD_OK : KD_E_STATE;
}
KD_UNUSED static void kd_no_release(KdInst *inst, KdSaved *saved) { (void)inst; (void)saved; }
KD_UNUSED static const void *kd_no_extension(KdInst *inst, KdStr id) {
  (void)inst; (void)id; return 0;
}

/* Host extension: get_extension(host_ctx, "kd.task/1") gives a const KdTask *, valid until the entry
 * returns, from plan on. */
#define KD_EXT_TASK "kd.task/1"
typedef struct KdTask {
  uint32_t struct_size;
  uint32_t num_classes; /* classes of the data set, background excluded; labels are below it */
} KdTask;

/* Method extension: get_extension(inst, "kd.graph/1") of an instance that has planned gives a static
 * const KdGraphTable *: the method as data, for the host to execute on its own device. The format of
 * programs is that of the Rust SDK; a C plugin answers NULL. */
#define KD_EXT_GRAPH "kd.graph/1"
#define KD_GRAPH_ONLY (1u << 0)      /* cannot compute by itself: init_state, forward, backward refuse */
#define KD_TRACE_FORWARD (1u << 0)   /* no second part is wanted */
#define KD_TRACE_INIT (1u << 1)      /* a program for initial parameters and buffers instead */

typedef struct KdTrace {             /* tensors have shapes and types and no memory */
  uint32_t struct_size;
  uint32_t flags;                    /* KD_TRACE_* */
  uint32_t n_taps, n_params, n_buffers, n_targets, n_losses;
  KdDType int_dtype;                 /* of integers that the program makes by itself */
  uint32_t bool_bytes;               /* of a truth value on the host's device: 0 native, 1 or 4 */
  uint32_t reserved;
  const KdTensor *taps, *params, *buffers, *targets;
  const uint8_t *loss_wanted;        /* per loss, 0: computed and not differentiated */
} KdTrace;

typedef struct KdProgramSink {
  uint32_t struct_size;
  uint32_t reserved;
  void *sink;
  KdStatus (*program)(void *sink, const uint8_t *bytes, uint64_t len); /* copies the bytes */
} KdProgramSink;

typedef struct KdGraphTable {
  uint32_t struct_size;
  uint32_t flags;                    /* KD_GRAPH_* */
  KdStr format;                      /* such as "burn-ir 0.22.1" */
  /* hands the program for these shapes to the sink, once */
  KdStatus (*trace)(KdInst *inst, const KdCall *call, const KdTrace *trace,
                    const KdProgramSink *sink);
} KdGraphTable;

#ifdef __cplusplus
}
#endif
#endif
