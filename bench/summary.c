/* SPDX-License-Identifier: MIT
 * summary.c - ratios over all points of a run. Two shapes are neighbours if they differ in one length, head count or dimension (or in q and kv
 * together where both are equal), by at most a factor of two. Neighbours should cost about the same per operation; where they do not, the
 * slower one is a finding: a missing tile, a lost row, a threshold at the wrong place.
 */
#include "summary.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double apart_finding = 1.5;

bool summary_add(struct summary *summary, const struct contest *contest, int32_t device, double work)
{
    if (summary->count == summary->room) {
        const int room = summary->room ? 2 * summary->room : 64;
        struct point *points = realloc(summary->points, sizeof *points * (size_t)room);
        if (!points) return false;
        summary->points = points;
        summary->room = room;
    }
    struct point *p = &summary->points[summary->count++];
    *p = (struct point){.line = contest->instance->line, .device = device, .seconds = contest->entrant[0].times.median, .least = contest->entrant[0].times.least, .work = work,
                        .baseline = NAN, .peer = NAN, .naive = NAN};
    p->gflops = 1e-9 * work / p->seconds;
    for (int n = 1; n < contest->count; n++) {
        const struct entrant *e = &contest->entrant[n];
        const double t = e->times.median;
        if (!e->timed) continue;
        if (e->peer == &peer_naive_row) {
            p->naive = t;
            continue;
        }
        const bool plain = e->peer == &peer_plain_loops || e->peer == &peer_openblas || e->peer == &peer_blis || e->peer == &peer_onednn ||
                           e->peer == &peer_clblast;
        if (plain && !(t >= p->baseline)) p->baseline = t, p->baseline_name = e->peer->name;
        if (!(t >= p->peer)) p->peer = t, p->peer_name = e->peer->name;
    }
    return true;
}

void summary_free(struct summary *summary)
{
    free(summary->points);
    memset(summary, 0, sizeof *summary);
}

/* ---- peers ------------------------------------------------------------------------ */

enum against { BASELINE, PEER, NAIVE };

static double seconds_of(const struct point *p, enum against against)
{
    return against == BASELINE ? p->baseline : against == PEER ? p->peer : p->naive;
}

static const char *name_of(const struct point *p, enum against against)
{
    return against == BASELINE ? p->baseline_name : against == PEER ? p->peer_name : "opencl.naive";
}

/* The worst ratio other / heed, and every point below 1. */
static void print_slower(const struct summary *s, enum against against, FILE *file)
{
    static const char *const what[] = {"best of plain loops and unfused products", "best peer", "table's last row, opencl.naive"};
    const struct point *worst = NULL;
    double worst_ratio = INFINITY, logs = 0;
    int compared = 0, slower = 0;
    for (int n = 0; n < s->count; n++) {
        const struct point *p = &s->points[n];
        const double ratio = seconds_of(p, against) / p->seconds;
        if (!(ratio > 0)) continue;
        compared++;
        logs += log(ratio);
        slower += ratio < 1;
        if (ratio < worst_ratio) worst_ratio = ratio, worst = p;
    }
    if (!compared) return;
    fprintf(file, "against the %s: %d points, geometric mean %.2fx, slower on %d, worst %.2fx: %s (%s)\n", what[against], compared,
            exp(logs / compared), slower, worst_ratio, worst->line.text, name_of(worst, against));
    for (int n = 0; n < s->count; n++) {
        const struct point *p = &s->points[n];
        const double ratio = seconds_of(p, against) / p->seconds;
        if (ratio < 1)
            fprintf(file, "  heed is slower: %.2fx  %s  %.4g ms against %.4g ms of %s\n", ratio, p->line.text, 1e3 * p->seconds,
                    1e3 * seconds_of(p, against), name_of(p, against));
    }
}

/* ---- neighbours --------------------------------------------------------------------- */

enum { DIMENSIONS = 8 };

static void dimensions_of(const struct problem_line *l, int32_t x[DIMENSIONS])
{
    const int32_t kv_heads = l->desc.kv_heads ? l->desc.kv_heads : l->desc.q_heads;
    const int32_t all[DIMENSIONS] = {l->batch, l->desc.q_heads, kv_heads, l->q_len, l->kv_len, l->desc.head_dim,
                                     l->desc.v_head_dim ? l->desc.v_head_dim : l->desc.head_dim, 0};
    memcpy(x, all, sizeof all);
}

/* Everything that is no size: types, flags, layout. Sizes are set to one value and the rest is compared as text. */
static bool same_kind(const struct problem_line *a, const struct problem_line *b)
{
    struct problem_line x = *a, y = *b;
    char text_x[LINE_BYTES], text_y[LINE_BYTES];
    y.batch = x.batch, y.q_len = x.q_len, y.kv_len = x.kv_len;
    y.desc.q_heads = x.desc.q_heads, y.desc.kv_heads = x.desc.kv_heads, y.desc.head_dim = x.desc.head_dim, y.desc.v_head_dim = x.desc.v_head_dim;
    y.desc.max_batch = x.desc.max_batch, y.desc.max_q_len = x.desc.max_q_len, y.desc.max_kv_len = x.desc.max_kv_len;
    y.desc.scale = x.desc.scale;
    line_format(&x, text_x, sizeof text_x);
    line_format(&y, text_y, sizeof text_y);
    return !strcmp(text_x, text_y);
}

static bool near_each_other(int32_t x, int32_t y)
{
    return x <= 2 * (int64_t)y && y <= 2 * (int64_t)x;
}

enum { Q = 3, KV = 4, D = 5, DV = 6 };

/* One size differs, or two that belong together (q = kv in both, d = dv in both, hq = hk in both). */
static bool neighbours(const struct point *a, const struct point *b)
{
    int32_t x[DIMENSIONS], y[DIMENSIONS];
    int differ = 0;
    dimensions_of(&a->line, x);
    dimensions_of(&b->line, y);
    for (int n = 0; n < DIMENSIONS; n++) {
        if (x[n] == y[n]) continue;
        if (!near_each_other(x[n], y[n])) return false;
        differ++;
    }
    if (x[Q] != y[Q] && x[KV] != y[KV] && x[Q] == x[KV] && y[Q] == y[KV]) differ--;
    if (x[D] != y[D] && x[DV] != y[DV] && x[D] == x[DV] && y[D] == y[DV]) differ--;
    if (x[1] != y[1] && x[2] != y[2] && x[1] == x[2] && y[1] == y[2]) differ--;
    return differ == 1 && a->device == b->device && same_kind(&a->line, &b->line);
}

static void print_neighbours(const struct summary *s, FILE *file)
{
    double worst = 0;
    int pairs = 0, findings = 0;
    for (int turn = 0; turn < 2; turn++) { /* the count first, then the list */
        for (int i = 0; i < s->count; i++)
            for (int j = i + 1; j < s->count; j++) {
                const struct point *slow = &s->points[i], *fast = &s->points[j];
                if (!neighbours(slow, fast)) continue;
                if (slow->gflops > fast->gflops) slow = &s->points[j], fast = &s->points[i];
                const double ratio = fast->gflops / slow->gflops;
                if (turn == 0) {
                    pairs++;
                    findings += ratio > apart_finding;
                    if (ratio > worst) worst = ratio;
                } else if (ratio > apart_finding) {
                    fprintf(file, "  apart: %.2fx  %s  %.1f GFLOP/s (%.4g ms)  beside  %s  %.1f GFLOP/s (%.4g ms)%s\n", ratio, slow->line.text,
                            slow->gflops, 1e3 * slow->seconds, fast->line.text, fast->gflops, 1e3 * fast->seconds,
                            slow->work < fast->work && slow->seconds < fast->seconds ? "; the smaller one" : "");
                }
            }
        if (turn == 0 && pairs)
            fprintf(file, "neighbours: %d pairs, worst ratio of GFLOP/s %.2f, %d above %.1f\n", pairs, worst, findings, apart_finding);
    }
}

/* ---- linear in the keys ---------------------------------------------------------------- */

/* Points that differ from the first in kv alone, in rising order as they were run: time per key, against the first of them. */
static void print_sweeps(const struct summary *s, FILE *file)
{
    enum { LEAST_STEPS = 4, LEAST_KEYS = 1024 };
    for (int i = 0; i < s->count; i++) {
        const struct point *first = &s->points[i];
        int32_t x[DIMENSIONS], y[DIMENSIONS];
        int steps = 0, keys = 0;
        double least = INFINITY, most = 0;
        char text[LINE_BYTES] = "";
        dimensions_of(&first->line, x);
        if (x[KV] < LEAST_KEYS) continue;
        for (int j = 0; j < s->count; j++) {
            const struct point *p = &s->points[j];
            dimensions_of(&p->line, y);
            const int32_t kv = y[KV];
            y[KV] = x[KV];
            if (kv < LEAST_KEYS || memcmp(x, y, sizeof x) || p->device != first->device || !same_kind(&first->line, &p->line)) continue;
            if (j < i) goto next; /* this sweep was printed with its first point */
            const double one = 1e9 * p->seconds / kv;
            least = one < least ? one : least;
            most = one > most ? one : most;
            steps++;
            const size_t length = strlen(text);
            snprintf(text + length, sizeof text - length, "  %d: %.4g", kv, one);
            if (kv > keys) keys = kv;
        }
        if (steps >= LEAST_STEPS && keys >= 16 * LEAST_KEYS)
            fprintf(file, "ns per key, %s and its like:%s; largest / smallest %.2f\n", first->line.text, text, most / least);
    next:;
    }
}

/* ---- scores and key sums ---------------------------------------------------------------- */

/* The line without what is written beside o and lse. */
static struct problem_line plain_line(const struct problem_line *line)
{
    struct problem_line plain = *line;
    plain.desc.flags &= ~(HEED_WRITE_SCORES | HEED_WRITE_KEY_SUMS | HEED_KEY_SUMS_ALL_HEADS);
    plain.desc.scores_stage = 0;
    plain.srows = plain.shead_count = 0;
    return plain;
}

/* What scores and sums cost over the same problem without: by the least times, which other work on the machine disturbs least. */
static void print_scores(const struct summary *s, FILE *file)
{
    double most = 0;
    int lines = 0;
    for (int n = 0; n < s->count; n++) {
        const struct point *p = &s->points[n];
        if (!(p->line.desc.flags & (HEED_WRITE_SCORES | HEED_WRITE_KEY_SUMS))) continue;
        const struct problem_line plain = plain_line(&p->line);
        for (int m = 0; m < s->count; m++) {
            const struct point *other = &s->points[m];
            char text[2][LINE_BYTES];
            line_format(&plain, text[0], LINE_BYTES);
            line_format(&other->line, text[1], LINE_BYTES);
            if (strcmp(text[0], text[1]) || other->device != p->device) continue;
            const double ratio = p->least / other->least;
            fprintf(file, "  %.2fx of the plain run  %s\n", ratio, p->line.text);
            if (ratio > most) most = ratio;
            lines++;
            break;
        }
    }
    if (lines) fprintf(file, "scores and key sums: %d lines, at most %.2fx of the same run without\n", lines, most);
}

void summary_print(const struct summary *s, FILE *file)
{
    print_slower(s, BASELINE, file);
    print_slower(s, PEER, file);
    print_slower(s, NAIVE, file);
    print_neighbours(s, file);
    print_sweeps(s, file);
    print_scores(s, file);
}
