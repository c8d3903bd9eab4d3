/* SPDX-License-Identifier: MIT
 * overlap.c - do rows of two tensors, or two rows of one, share a byte? Decided from the strides alone, exactly, without memory.
 * Rows that interleave without touching ([token][q | k | v | o] in one buffer) are apart.
 *
 *     row x of a begins at A + sum_n x_n a_n and row y of b at B + sum_n y_n b_n; they share a byte iff
 *         -b_bytes < (B - A) + sum_n y_n b_n - sum_n x_n a_n < a_bytes
 *
 * Axes of equal stride are one axis of the difference. Then it is a search for whole numbers c_n in ranges with a sum in an interval. With
 * the axes in falling order of stride, all smaller axes together reach less than one step of the larger one in any sane layout, so each
 * level has one to three candidates. Layouts where it is otherwise are searched for a while and then called undecided.
 */
#include "mutant.h"
#include "ranges.h"

enum { MAX_AXES = 6, SEARCH_STEPS = 20000 };

struct axis {
    int64_t stride, from, to;    /* stride > 0; c in from .. to */
    int64_t rest_low, rest_high; /* reach of all axes behind this one */
};

struct search {
    struct axis axis[MAX_AXES];
    int axes;
    int64_t low, high; /* the sum must lie in low .. high */
    bool skip_zero;    /* all c = 0 is no answer: a row is not its own neighbour */
    int steps;
};

static void add_axis(struct search *s, int64_t stride, int64_t from, int64_t to)
{
    if (from == to || stride == 0) return;
    if (stride < 0) {
        int64_t last = -from;
        stride = -stride;
        from = -to;
        to = last;
    }
    int n = 0;
    while (n < s->axes && s->axis[n].stride > stride) n++;
    if (n < s->axes && s->axis[n].stride == stride) {
        s->axis[n].from += from;
        s->axis[n].to += to;
        return;
    }
    for (int m = s->axes++; m > n; m--) s->axis[m] = s->axis[m - 1];
    s->axis[n] = (struct axis){.stride = stride, .from = from, .to = to};
}

static void finish_axes(struct search *s)
{
    int64_t low = 0, high = 0;
    for (int n = s->axes - 1; n >= 0; n--) {
        struct axis *a = &s->axis[n];
        a->rest_low = low;
        a->rest_high = high;
        low += a->from * a->stride;
        high += a->to * a->stride;
    }
}

static int64_t floor_div(int64_t a, int64_t b) /* b > 0 */ { return a / b - (a % b < 0); }

static int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b > 0); }

static enum overlap search_axis(struct search *s, int n, int64_t sum, bool nonzero)
{
    if (n == s->axes) return sum >= s->low && sum <= s->high && (nonzero || !s->skip_zero) ? MEETING : APART;
    const struct axis *a = &s->axis[n];
    int64_t from = ceil_div(s->low - sum - a->rest_high, a->stride), to = floor_div(s->high - sum - a->rest_low, a->stride);
    if (from < a->from) from = a->from;
    if (to > a->to) to = a->to;
    for (int64_t c = from; c <= to; c++) {
        if (s->steps-- <= 0) return UNDECIDED;
        enum overlap found = search_axis(s, n + 1, sum + c * a->stride, nonzero || c != 0);
        if (found != APART) return found;
    }
    return APART;
}

enum overlap overlap_within(const struct placed *p)
{
    struct search s = {.low = 1 - p->shape.row_bytes, .high = p->shape.row_bytes - 1, .skip_zero = true, .steps = SEARCH_STEPS};
    const int64_t extents[] = {p->shape.batch, p->shape.token, p->shape.head};
    const int64_t strides[] = {p->view.batch, p->view.token, p->view.head};
    if (shape_empty(&p->shape)) return APART;
    for (int n = 0; n < 3; n++) {
        if (extents[n] <= 1) continue;
        if (strides[n] == 0) return MEETING;
        /* Equal strides of two axes: (1, 0) and (0, 1) are the same place. As one axis of the difference that would be lost. */
        for (int m = 0; m < n; m++)
            if (extents[m] > 1 && (strides[m] == strides[n] || strides[m] == -strides[n])) return MEETING;
        if (MUTANT(problem_overlap_heads_ignored) && n == 2) continue;
        add_axis(&s, strides[n], 1 - extents[n], extents[n] - 1);
    }
    finish_axes(&s);
    return search_axis(&s, 0, 0, false);
}

static bool same_memory(const struct view *a, const struct view *b)
{
    return a->mem == b->mem; /* NULL for everything that has addresses */
}

/* Of element 0: an address, or an offset in the device's memory. */
static int64_t place(const struct view *v) { return v->mem ? v->offset : (int64_t)(intptr_t)v->data; }

enum overlap overlap_between(const struct placed *a, const struct placed *b)
{
    if (!same_memory(&a->view, &b->view) || shape_empty(&a->shape) || shape_empty(&b->shape)) return APART;
    const int64_t at_a = place(&a->view), at_b = place(&b->view);
    if (at_a + a->box.end <= at_b + b->box.begin || at_b + b->box.end <= at_a + a->box.begin) return APART;

    const int64_t between = at_b - at_a; /* the sum of the axes must lie in (-b_bytes, a_bytes) - between */
    struct search s = {.low = 1 - b->shape.row_bytes - between, .high = a->shape.row_bytes - 1 - between, .steps = SEARCH_STEPS};
    add_axis(&s, b->view.batch, 0, b->shape.batch - 1);
    add_axis(&s, b->view.token, 0, b->shape.token - 1);
    add_axis(&s, b->view.head, 0, b->shape.head - 1);
    add_axis(&s, a->view.batch, 1 - a->shape.batch, 0);
    add_axis(&s, a->view.token, 1 - a->shape.token, 0);
    add_axis(&s, a->view.head, 1 - a->shape.head, 0);
    finish_axes(&s);
    return search_axis(&s, 0, 0, false);
}

bool same_rows(const struct placed *a, const struct placed *b)
{
    return same_memory(&a->view, &b->view) && place(&a->view) == place(&b->view) && a->view.batch == b->view.batch &&
           a->view.token == b->view.token && a->view.head == b->view.head && a->shape.batch == b->shape.batch &&
           a->shape.token == b->shape.token && a->shape.head == b->shape.head && a->shape.row_bytes == b->shape.row_bytes;
}
