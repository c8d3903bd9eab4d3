/* SPDX-License-Identifier: MIT
 * backend.c - what ggml sees: a registry with one device of type ACCEL and its backend. ggml's scheduler puts such devices in front of the CPU and
 * asks supports_op() for every node. Nothing here may fail at start: a program that cannot use heed runs as if the plug-in were not there.
 */
#include "plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CREWS = 4 }; /* thread counts remembered: a program has one for prompts and one for single tokens */

struct state {
    struct crew *crew[CREWS]; /* most recently used first; the first is never NULL */
    struct rooms rooms;
    uint64_t nodes;
};

static bool verbose; /* HEED_GGML=verbose */

static void say(const char *text) { fprintf(stderr, "heed: ggml plug-in: %s\n", text); }

/* ---- backend: runs the nodes that the scheduler hands over ------------------------- */

static const char *heed_name(void) { return "HEED"; }

static const char *backend_name(ggml_backend_t backend)
{
    (void)backend;
    return heed_name();
}

static void backend_free(ggml_backend_t backend)
{
    struct state *state = backend->context;
    if (verbose) {
        char text[64];
        snprintf(text, sizeof text, "%llu attention nodes computed", (unsigned long long)state->nodes);
        say(text);
    }
    for (int n = 0; n < CREWS; n++) crew_destroy(state->crew[n]);
    free(state->rooms.ranges.data);
    free(state->rooms.bias.data);
    free(state);
    free(backend);
}

/* Puts the crew with so many threads first; where none can be made the present one goes on. */
static void set_n_threads(ggml_backend_t backend, int threads)
{
    struct state *state = backend->context;
    struct crew *wanted = NULL;
    int n = 0;
    while (n < CREWS - 1 && state->crew[n] && crew_threads(state->crew[n]) != threads) n++;
    if (state->crew[n] && crew_threads(state->crew[n]) == threads) {
        wanted = state->crew[n];
    } else {
        wanted = crew_create(threads);
        if (!wanted) return;
        crew_destroy(state->crew[n]); /* the last one, if all places are taken */
    }
    memmove(state->crew + 1, state->crew, (size_t)n * sizeof *state->crew);
    state->crew[0] = wanted;
}

static enum ggml_status backend_compute(ggml_backend_t backend, struct ggml_cgraph *graph)
{
    struct state *state = backend->context;
    for (int n = 0; n < ggml_graph_n_nodes(graph); n++) {
        const struct ggml_tensor *node = ggml_graph_node(graph, n);
        if (node->op != GGML_OP_FLASH_ATTN_EXT || !(node->flags & GGML_TENSOR_FLAG_COMPUTE)) continue; /* views compute nothing */
        const heed_status status = attend(crew_context(state->crew[0]), &state->rooms, node);
        if (status != HEED_OK) {
            say(status == HEED_OUT_OF_MEMORY ? "out of memory" : heed_error_message());
            return status == HEED_OUT_OF_MEMORY ? GGML_STATUS_ALLOC_FAILED : GGML_STATUS_FAILED;
        }
        state->nodes++;
    }
    return GGML_STATUS_SUCCESS;
}

static ggml_backend_t device_init(ggml_backend_dev_t dev, const char *params)
{
    static ggml_guid guid = {'h', 'e', 'e', 'd', 0x9e, 0x1c, 0x4b, 0x07, 0xa3, 0x52, 0x6d, 0xf0, 0x18, 0x2b, 0xc5, 0x71};
    ggml_backend_t backend = calloc(1, sizeof *backend);
    struct state *state = calloc(1, sizeof *state);
    (void)params;
    if (state) state->crew[0] = crew_create(GGML_DEFAULT_N_THREADS);
    if (state && !state->crew[0]) state->crew[0] = crew_create(1);
    if (!backend || !state || !state->crew[0]) {
        free(backend);
        free(state);
        return NULL;
    }
    backend->guid = &guid;
    backend->device = dev;
    backend->context = state;
    backend->iface.get_name = backend_name;
    backend->iface.free = backend_free;
    backend->iface.graph_compute = backend_compute;
    return backend;
}

/* ---- device: what it can do, and where its data may lie ------------------------------ */

static const char *device_name(ggml_backend_dev_t dev)
{
    (void)dev;
    return heed_name();
}

static const char *device_description(ggml_backend_dev_t dev)
{
    (void)dev;
    return "attention by heed";
}

static enum ggml_backend_dev_type device_type(ggml_backend_dev_t dev)
{
    (void)dev;
    return GGML_BACKEND_DEVICE_TYPE_ACCEL;
}

static ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t dev)
{
    (void)dev;
    return ggml_backend_cpu_buffer_type();
}

static bool device_takes_buffer(ggml_backend_dev_t dev, ggml_backend_buffer_type_t type)
{
    (void)dev;
    return ggml_backend_buft_is_host(type);
}

static ggml_backend_buffer_t device_wrap_host(ggml_backend_dev_t dev, void *data, size_t bytes, size_t most)
{
    (void)dev;
    (void)most;
    return ggml_backend_cpu_buffer_from_ptr(data, bytes);
}

static void device_memory(ggml_backend_dev_t dev, size_t *free_bytes, size_t *total_bytes)
{
    (void)dev;
    *free_bytes = *total_bytes = 0; /* none of its own */
}

static void device_props(ggml_backend_dev_t dev, struct ggml_backend_dev_props *props)
{
    memset(props, 0, sizeof *props);
    props->name = device_name(dev);
    props->description = device_description(dev);
    props->type = device_type(dev);
    props->caps.buffer_from_host_ptr = true;
}

/* One line for each reason, the first time. */
static void say_refused(const char *reason)
{
    static const char *said[32];
    char text[320];
    for (size_t n = 0; n < sizeof said / sizeof *said; n++) {
        if (said[n] == reason) return;
        if (said[n]) continue;
        said[n] = reason;
        snprintf(text, sizeof text, "left to others: %s", reason);
        say(text);
        return;
    }
}

static bool device_supports(ggml_backend_dev_t dev, const struct ggml_tensor *node)
{
    const char *reason;
    (void)dev;
    switch (node->op) {
    case GGML_OP_NONE:
    case GGML_OP_RESHAPE:
    case GGML_OP_VIEW:
    case GGML_OP_PERMUTE:
    case GGML_OP_TRANSPOSE: return true;
    case GGML_OP_FLASH_ATTN_EXT:
        reason = node_refused(node);
        if (reason && verbose) say_refused(reason);
        return !reason;
    default: return false;
    }
}

/* ---- registry -------------------------------------------------------------------------- */

static bool usable; /* else there is no device */
static struct ggml_backend_device device;

static const char *registry_name(ggml_backend_reg_t reg)
{
    (void)reg;
    return heed_name();
}

static size_t registry_count(ggml_backend_reg_t reg)
{
    (void)reg;
    return usable ? 1 : 0;
}

static ggml_backend_dev_t registry_device(ggml_backend_reg_t reg, size_t index)
{
    (void)reg;
    (void)index;
    return &device;
}

static void *registry_function(ggml_backend_reg_t reg, const char *name)
{
    const ggml_backend_set_n_threads_t function = set_n_threads;
    void *found = NULL;
    (void)reg;
    if (!strcmp(name, "ggml_backend_set_n_threads")) memcpy(&found, &function, sizeof found);
    return found;
}

/* The structs and numbers compiled into this file are those of one ggml; are they those of the ggml that loads it? The interface version does not
 * say so: structs and enums have changed below one version. */
static const char *stranger(void)
{
    const size_t object = 4 * sizeof(size_t);
    if (strcmp(ggml_op_name(GGML_OP_FLASH_ATTN_EXT), "FLASH_ATTN_EXT")) return "other operation numbers";
    if (strcmp(ggml_type_name(GGML_TYPE_Q8_0), "q8_0") || strcmp(ggml_type_name(GGML_TYPE_BF16), "bf16")) return "other type numbers";
    if (ggml_tensor_overhead() != object + sizeof(struct ggml_tensor)) return "another struct ggml_tensor";
    return NULL;
}

/* Is everything there that device_init() will need? */
static bool can_start(void)
{
    const char *wish = getenv("HEED_GGML"), *other = stranger();
    char text[320];
    verbose = wish && !strcmp(wish, "verbose");
    if (wish && (!strcmp(wish, "off") || !strcmp(wish, "0"))) return false;
    if (wish && *wish && !verbose && strcmp(wish, "on") && strcmp(wish, "1")) say("HEED_GGML is on, off or verbose; it is taken as on");
    if (other) {
        snprintf(text, sizeof text, "built for ggml " HEED_GGML_BUILT_FOR ", loaded by ggml %s, which has %s: not used", ggml_version(), other);
        say(text);
        return false;
    }
    struct crew *crew = crew_create(1);
    if (!crew) {
        snprintf(text, sizeof text, "not used: %s", heed_error_message());
        say(text);
        return false;
    }
    crew_destroy(crew);
    if (verbose) {
        snprintf(text, sizeof text, "built for ggml " HEED_GGML_BUILT_FOR ", loaded by ggml %s", ggml_version());
        say(text);
    }
    return true;
}

__attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init(void);

ggml_backend_reg_t ggml_backend_init(void)
{
    static struct ggml_backend_reg reg;
    reg.api_version = GGML_BACKEND_API_VERSION;
    reg.iface.get_name = registry_name;
    reg.iface.get_device_count = registry_count;
    reg.iface.get_device = registry_device;
    reg.iface.get_proc_address = registry_function;
    device.reg = &reg;
    device.iface.get_name = device_name;
    device.iface.get_description = device_description;
    device.iface.get_memory = device_memory;
    device.iface.get_type = device_type;
    device.iface.get_props = device_props;
    device.iface.init_backend = device_init;
    device.iface.get_buffer_type = device_buffer_type;
    device.iface.buffer_from_host_ptr = device_wrap_host;
    device.iface.supports_op = device_supports;
    device.iface.supports_buft = device_takes_buffer;
    usable = can_start();
    return &reg;
}
