/* SPDX-License-Identifier: MIT
 * page.c - the explorer's model for a page: what JavaScript may call. The numbers are those of cli/explore_model.c, so the page and the terminal
 * show the same. Strings and rows are handed out as addresses in the module's memory.
 */
#include "page.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct explore explore;
char message[256];

EXPORT const char *page_message(void);
EXPORT const char *page_message(void) { return *message ? message : heed_error_message(); }

EXPORT int page_steps(void);
EXPORT int page_steps(void) { return explore_lesson_count(); }
EXPORT const char *page_title(int step);
EXPORT const char *page_title(int step) { return explore_lesson(step)->title; }
EXPORT const char *page_text(int step);
EXPORT const char *page_text(int step)
{
    static char text[LESSON_BYTES];
    return explore_lesson_text(step, true, text);
}

/* ---- rows: who computes ------------------------------------------------------ */

static const char *const kernels[] = {"cpu.vector.prefill", "cpu.scalar.prefill", "reference"};
enum { KERNELS = sizeof kernels / sizeof *kernels };
static int kernel;
static double differences[2]; /* of the weights, of the output */

EXPORT int page_kernels(void);
EXPORT int page_kernels(void) { return KERNELS; }
EXPORT const char *page_kernel(int n);
EXPORT const char *page_kernel(int n) { return kernels[n]; }
EXPORT const double *page_differences(void);
EXPORT const double *page_differences(void) { return differences; }
EXPORT int page_use(int n);
EXPORT int page_use(int n)
{
    if (n < 0 || n >= KERNELS) return 1;
    kernel = n;
    return page_compute();
}

static double apart(const float *a, const float *b, size_t count)
{
    double most = 0;
    for (size_t n = 0; n < count; n++) most = fmax(most, fabs((double)a[n] - (double)b[n]));
    return most;
}

EXPORT int page_compute(void)
{
    const size_t weights = (size_t)explore.queries * (size_t)explore.keys, output = (size_t)explore.queries * (size_t)explore.v_dim;
    float *kept = malloc((weights + output) * sizeof *kept);
    if (!kept) return 1;
    explore.kernel = NULL;
    heed_status status = explore_compute(&explore);
    memcpy(kept, explore.weights, weights * sizeof *kept);
    memcpy(kept + weights, explore.o, output * sizeof *kept);
    explore.kernel = kernels[kernel];
    if (status == HEED_OK) status = explore_compute(&explore);
    differences[0] = apart(kept, explore.weights, weights);
    differences[1] = apart(kept + weights, explore.o, output);
    free(kept);
    return status != HEED_OK;
}

/* ---- steps and settings -------------------------------------------------------- */

bool page_context(void)
{
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT};
    *message = 0;
    return explore.context || heed_context_create(&options, &explore.context) == HEED_OK;
}

/* 0: loaded and computed. */
EXPORT int page_load(int step);
EXPORT int page_load(int step)
{
    if (!page_context()) return 1;
    const bool capture = step == explore_lesson_count() - 1;
    if (!(capture ? explore_load_capture(&explore, NULL, NULL, NULL, NULL, message, sizeof message) : explore_load_lesson(&explore, step))) return 1;
    if (capture) explore.cursor.query = 9; /* `it` */
    return page_compute();
}

/* queries, keys, heads of q, dim, v_dim, query to begin with, causal, scaled, temperature, head */
EXPORT int page_number(int which);
EXPORT int page_number(int which)
{
    const int numbers[] = {explore.queries, explore.keys,   explore.q_heads, explore.dim,         explore.v_dim, explore.cursor.query,
                           explore.causal,  explore.scaled, explore.temperature, explore.head};
    return which >= 0 && which < (int)(sizeof numbers / sizeof *numbers) ? numbers[which] : 0;
}

EXPORT float page_temperature(int place);
EXPORT float page_temperature(int place) { return explore_temperatures[place]; }

EXPORT int page_set(int head, int causal, int scaled, int temperature);
EXPORT int page_set(int head, int causal, int scaled, int temperature)
{
    if (head < 0 || head >= explore.q_heads || temperature < 0 || temperature >= EXPLORE_TEMPERATURES) return 1;
    explore.head = head, explore.causal = causal != 0, explore.scaled = scaled != 0, explore.temperature = temperature;
    return page_compute();
}

/* ---- numbers ------------------------------------------------------------------- */

/* To be written by the page, then page_compute(). */
EXPORT float *page_row(int part, int token);
EXPORT float *page_row(int part, int token) { return explore_row(&explore, (enum part)part, token); }
EXPORT const float *page_weights(void);
EXPORT const float *page_weights(void) { return explore.weights; }
EXPORT const float *page_output(int query);
EXPORT const float *page_output(int query) { return explore.o + (size_t)query * (size_t)explore.v_dim; }

/* dot, cosine, angle (NaN: none), score (-infinity: hidden), weight */
EXPORT const double *page_relation(int query, int key);
EXPORT const double *page_relation(int query, int key)
{
    static double numbers[5];
    const struct relation r = explore_relation(&explore, query, key);
    numbers[0] = r.dot, numbers[1] = r.cosine, numbers[2] = r.angle, numbers[3] = (double)r.score, numbers[4] = (double)r.weight;
    return numbers;
}

EXPORT const char *page_label(int of_keys, int n);
EXPORT const char *page_label(int of_keys, int n)
{
    static char text[16];
    return explore_label(of_keys ? explore.k_labels : explore.q_labels, n, text);
}
