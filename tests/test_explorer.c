/* SPDX-License-Identifier: MIT
 * test_explorer.c - the numbers of `heed explore`: every step, every action, captures from files. Expected values are computed here in double,
 * from the text of the lesson. The screen is tested in test_explore.sh.
 */
#include "counting.h"
#include "explore_lessons.h"
#include "npy.h"
#include <math.h>
#include <unistd.h>

static heed_context *context_new(void)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT};
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK);
    return context;
}

static double dot_of(const float *a, const float *b, int32_t n)
{
    double sum = 0;
    for (int32_t d = 0; d < n; d++) sum += (double)a[d] * (double)b[d];
    return sum;
}

/* Of the chosen head, by the layout alone. */
static const float *row_of(const struct explore *x, enum part part, int32_t token)
{
    const int32_t group = x->q_heads / x->kv_heads;
    if (part == PART_Q) return x->q + (token * x->q_heads + x->head) * x->dim;
    return part == PART_K ? x->k + (token * x->kv_heads + x->head / group) * x->dim : x->v + (token * x->kv_heads + x->head / group) * x->v_dim;
}

static bool near(double got, double expected, double tolerance) { return fabs(got - expected) <= tolerance * (1 + fabs(expected)); }

/* One query of the model against the formulas. */
static bool row_is_right(const struct explore *x, int32_t i)
{
    double weights[EXPLORE_MAX_TOKENS], sum = 0, most = -INFINITY;
    const double scale = (x->scaled ? 1 / sqrt(x->dim) : 1) / (double)explore_temperatures[x->temperature];
    const float *q = row_of(x, PART_Q, i);
    bool good = true;
    const int32_t seen = x->causal ? x->keys - x->queries + i + 1 : x->keys;
    for (int32_t j = 0; j < x->keys; j++) most = j < seen ? fmax(most, scale * dot_of(q, row_of(x, PART_K, j), x->dim)) : most;
    for (int32_t j = 0; j < x->keys; j++) sum += weights[j] = j < seen ? exp(scale * dot_of(q, row_of(x, PART_K, j), x->dim) - most) : 0;
    for (int32_t j = 0; j < x->keys; j++) {
        const float *k = row_of(x, PART_K, j);
        const struct relation r = explore_relation(x, i, j);
        const double dot = dot_of(q, k, x->dim), lengths = sqrt(dot_of(q, q, x->dim) * dot_of(k, k, x->dim));
        good = good && near(r.dot, dot, 1e-12) && near(r.plain_score, dot / sqrt(x->dim), 1e-12) && r.hidden == (j >= seen);
        good = good && (r.hidden || near((double)r.score, scale * dot, 1e-5)) && near((double)r.weight, weights[j] / sum, 1e-5);
        good = good && (lengths == 0 ? isnan(r.angle) && r.cosine == 0 : near(r.cosine, dot / lengths, 1e-12));
        good = good && (lengths == 0 || near(cos(r.angle * acos(-1) / 180), dot / lengths, 1e-9));
    }
    for (int32_t d = 0; d < x->v_dim; d++) {
        double o = 0;
        for (int32_t j = 0; j < x->keys; j++) o += weights[j] / sum * (double)row_of(x, PART_V, j)[d];
        good = good && near((double)x->o[i * x->v_dim + d], o, 1e-5);
    }
    return good;
}

static bool all_right(const struct explore *x)
{
    bool good = true;
    for (int32_t i = 0; i < x->queries; i++) good = good && row_is_right(x, i);
    return good;
}

static bool load(struct explore *x, int step)
{
    char message[256];
    const bool loaded = step < explore_lesson_count() - 1 ? explore_load_lesson(x, step) : explore_load_capture(x, NULL, NULL, NULL, NULL, message, sizeof message);
    return loaded && explore_compute(x) == HEED_OK;
}

/* What each step says is what its numbers do. */
Test(explore, lessons_say_the_truth)
{
    struct counts c = {0};
    struct explore x = {.context = context_new()};
    for (int n = 0; n < explore_lesson_count(); n++) {
        count_check(&c, load(&x, n) && all_right(&x), explore_lesson(n)->title);
        char text[LESSON_BYTES];
        count_check(&c, strlen(explore_lesson_text(n, false, text)) <= 240, "test_explorer.c: the text fits three lines");
        count_check(&c, strlen(explore_lesson_text(n, true, text)) < LESSON_BYTES - 1, "test_explorer.c: the page's text is whole");
    }
    load(&x, 0);
    count_check(&c, explore_strongest(&x, 0) == 2, "test_explorer.c: the longer arrow wins");
    load(&x, 1);
    const struct relation opposed = explore_relation(&x, 0, 1);
    count_check(&c, opposed.dot == -2 && near(opposed.angle, 180, 1e-6) && opposed.weight > 0, "test_explorer.c: opposed is negative and not hidden");
    load(&x, 2);
    const struct relation aside = explore_relation(&x, 0, 1);
    count_check(&c, aside.dot == 0 && aside.angle == 90 && aside.weight > explore_relation(&x, 0, 3).weight, "test_explorer.c: perpendicular beats opposed");
    load(&x, 3);
    const float scaled = x.weights[explore_strongest(&x, 0)];
    explore_act(&x, ACTION_SCALED);
    count_check(&c, scaled < 0.6f && x.weights[explore_strongest(&x, 0)] > 0.8f, "test_explorer.c: without the scale one key takes all");
    load(&x, 4);
    count_check(&c, explore_relation(&x, 4, 5).hidden && !explore_relation(&x, 4, 4).hidden && x.weights[0] == 1, "test_explorer.c: the mask hides what comes later");
    load(&x, explore_lesson_count() - 1);
    count_check(&c, x.queries == 37 && x.q_heads == 4 && !strcmp(x.k_labels[explore_strongest(&x, 9)], "animal"), "test_explorer.c: `it` looks at `animal`");
    explore_free(&x);
    heed_context_destroy(x.context);
    count_end(&c);
}

/* Every action, one by one, from a place where it has something to do. */
Test(explore, actions)
{
    struct counts c = {0};
    struct explore x = {.context = context_new()};
    load(&x, 0);
    explore_act(&x, ACTION_MORE);
    count_check(&c, x.q[0] == 2.1f && all_right(&x), "test_explorer.c: more");
    for (int n = 0; n < 21; n++) explore_act(&x, ACTION_LESS);
    count_check(&c, x.q[0] == 0 && !signbit(x.q[0]) && all_right(&x), "test_explorer.c: 21 steps back are exactly 0");
    explore_act(&x, ACTION_MUCH_LESS);
    explore_act(&x, ACTION_NEGATE);
    count_check(&c, x.q[0] == 1 && all_right(&x), "test_explorer.c: negate");
    explore_act(&x, ACTION_ZERO);
    explore_act(&x, ACTION_RIGHT);
    explore_act(&x, ACTION_ZERO);
    count_check(&c, x.q[0] == 0 && x.q[1] == 0 && x.weights[0] == 0.25f && isnan(explore_relation(&x, 0, 0).angle), "test_explorer.c: a zero query: all alike");
    explore_act(&x, ACTION_RIGHT);
    count_check(&c, x.cursor.d == 1, "test_explorer.c: no further than the last number");
    for (int n = 0; n < 3; n++) explore_act(&x, ACTION_DOWN);
    explore_act(&x, ACTION_MUCH_MORE);
    count_check(&c, x.cursor.part == PART_K && x.cursor.key == 2 && x.k[2 * 2 + 1] == 3 && all_right(&x), "test_explorer.c: the third key");
    for (int n = 0; n < 4; n++) explore_act(&x, ACTION_DOWN);
    explore_act(&x, ACTION_MUCH_MORE);
    count_check(&c, x.cursor.part == PART_V && x.cursor.key == 2 && x.v[2 * 2 + 1] == 2 && all_right(&x), "test_explorer.c: its value");
    for (int n = 0; n < 20; n++) explore_act(&x, ACTION_DOWN);
    count_check(&c, x.cursor.part == PART_V && x.cursor.key == 3, "test_explorer.c: the last row");
    for (int n = 0; n < 200; n++) explore_act(&x, ACTION_MUCH_MORE);
    count_check(&c, x.v[3 * 2 + 1] == 99, "test_explorer.c: no more than a column can show");
    explore_act(&x, ACTION_LAST_QUERY);
    explore_act(&x, ACTION_SORTED);
    bool falls = x.cursor.query == 2;
    for (int32_t n = 1; n < x.keys; n++) falls = falls && x.weights[2 * x.keys + x.order[n - 1]] >= x.weights[2 * x.keys + x.order[n]];
    count_check(&c, falls, "test_explorer.c: keys by weight");
    explore_act(&x, ACTION_NEXT_QUERY);
    count_check(&c, x.cursor.key == 3, "test_explorer.c: the cursor stays on a value");
    for (int n = 0; n < 20; n++) explore_act(&x, ACTION_UP);
    explore_act(&x, ACTION_SORTED);
    explore_act(&x, ACTION_SORTED);
    count_check(&c, x.cursor.part == PART_Q && x.cursor.key == explore_strongest(&x, 0), "test_explorer.c: from the query the strongest key is looked at");
    count_check(&c, x.cursor.query == 0, "test_explorer.c: round to the first query");
    for (int n = 0; n < 20; n++) explore_act(&x, ACTION_COOLER);
    count_check(&c, explore_temperatures[x.temperature] == 0.1f && all_right(&x), "test_explorer.c: coldest");
    for (int n = 0; n < 20; n++) explore_act(&x, ACTION_WARMER);
    explore_act(&x, ACTION_CAUSAL);
    count_check(&c, explore_temperatures[x.temperature] == 10 && all_right(&x), "test_explorer.c: hottest, with a mask: the last query sees all keys");
    load(&x, explore_lesson_count() - 1);
    for (int32_t h = 1; h <= 4; h++) {
        explore_act(&x, ACTION_NEXT_HEAD);
        count_check(&c, x.head == (h < 4 ? h : 3) && all_right(&x), "test_explorer.c: heads of the capture");
    }
    explore_act(&x, ACTION_LAST_HEAD);
    count_check(&c, x.head == 2 && all_right(&x), "test_explorer.c: back");
    explore_free(&x);
    heed_context_destroy(x.context);
    count_end(&c);
}

/* Whatever is pressed: the cursor stays inside and the numbers stay right. */
Test(explore, anything_pressed)
{
    struct counts c = {0};
    struct explore x = {.context = context_new()};
    uint32_t state = 7;
    for (int n = 0; n < 6; n++) {
        load(&x, n);
        bool good = true;
        for (int k = 0; k < 400; k++) {
            state = state * 1664525u + 1013904223u;
            good = good && explore_act(&x, (enum action)(state >> 16) % ACTIONS) == HEED_OK;
            const struct cursor *at = &x.cursor;
            good = good && at->query >= 0 && at->query < x.queries && at->key >= 0 && at->key < x.keys && at->d >= 0 && at->d < explore_row_length(&x, at->part);
            good = good && x.order[explore_rank(&x, at->key)] == at->key;
        }
        count_check(&c, good && all_right(&x), explore_lesson(n)->title);
    }
    explore_free(&x);
    heed_context_destroy(x.context);
    count_end(&c);
}

struct files {
    char q[64], k[64], v[64], tokens[64];
};

static void write_npy(const char *path, enum npy_type type, int32_t rank, int64_t a, int64_t b, int64_t c, int64_t d, const void *data)
{
    char message[200];
    const int64_t shape[4] = {a, b, c, d};
    cr_assert(npy_write(path, type, rank, shape, data, message, sizeof message), "%s", message);
}

static bool refused(struct explore *x, const struct files *f, const char *v, const char *tokens, const char *word)
{
    char message[256] = "";
    const bool loaded = explore_load_capture(x, f->q, f->k, v, tokens, message, sizeof message);
    if (loaded || !strstr(message, word)) fprintf(stderr, "FAIL wanted \"%s\", got \"%s\"\n", word, message);
    return !loaded && strstr(message, word) && x->q == NULL;
}

Test(explore, captures_from_files)
{
    struct counts c = {0};
    struct explore x = {.context = context_new()};
    struct files f;
    char folder[] = "/tmp/heed-explore-XXXXXX", message[256];
    cr_assert(mkdtemp(folder));
    snprintf(f.q, sizeof f.q, "%s/q.npy", folder);
    snprintf(f.k, sizeof f.k, "%s/k.npy", folder);
    snprintf(f.v, sizeof f.v, "%s/v.npy", folder);
    snprintf(f.tokens, sizeof f.tokens, "%s/tokens", folder);
    static float q[2 * 4 * 3], v[5 * 2 * 2];
    static double k[5 * 2 * 3];
    for (int n = 0; n < 24; n++) q[n] = (float)(n % 7) - 3;
    for (int n = 0; n < 30; n++) k[n] = n % 5 - 2;
    for (int n = 0; n < 20; n++) v[n] = (float)(n % 3);
    write_npy(f.q, NPY_F4, 3, 2, 4, 3, 0, q);
    write_npy(f.k, NPY_F8, 4, 1, 5, 2, 3, k);
    write_npy(f.v, NPY_F4, 3, 5, 2, 2, 0, v);
    FILE *file = fopen(f.tokens, "w");
    fputs("a\nb\r\nc\n\xc3\xa9\ne", file);
    fclose(file);
    bool good = explore_load_capture(&x, f.q, f.k, f.v, f.tokens, message, sizeof message) && explore_compute(&x) == HEED_OK;
    count_check(&c, good && x.queries == 2 && x.keys == 5 && x.q_heads == 4 && x.kv_heads == 2 && x.dim == 3 && x.v_dim == 2, "test_explorer.c: shapes");
    count_check(&c, good && !strcmp(x.k_labels[1], "b") && !strcmp(x.q_labels[0], "\xc3\xa9") && !strcmp(x.q_labels[1], "e"), "test_explorer.c: the last tokens are the queries");
    for (int n = 0; good && n < 4; n++, explore_act(&x, ACTION_NEXT_HEAD)) count_check(&c, all_right(&x), "test_explorer.c: two heads share one of k");
    explore_act(&x, ACTION_CAUSAL);
    count_check(&c, good && all_right(&x), "test_explorer.c: the mask with a cache");
    good = explore_load_capture(&x, f.q, f.k, NULL, NULL, message, sizeof message) && explore_compute(&x) == HEED_OK;
    count_check(&c, good && x.v_dim == 3 && !x.k_labels && all_right(&x), "test_explorer.c: without values and labels");
    file = fopen(f.tokens, "w");
    fputs("a\nb\n", file);
    fclose(file);
    count_check(&c, refused(&x, &f, f.v, f.tokens, "2 labels for 5 keys"), "test_explorer.c: labels that do not fit");
    count_check(&c, refused(&x, &f, f.v, "/no/such/file", "/no/such/file"), "test_explorer.c: a file that is not there");
    count_check(&c, refused(&x, &f, f.q, NULL, "5 tokens of 2 heads"), "test_explorer.c: values of another length");
    write_npy(f.k, NPY_F4, 1, 30, 0, 0, 0, k);
    count_check(&c, refused(&x, &f, f.v, NULL, "wanted [len, heads, dim]"), "test_explorer.c: one axis");
    write_npy(f.k, NPY_F4, 2, 5, 6, 0, 0, k);
    count_check(&c, refused(&x, &f, NULL, NULL, "rows of q have 3 elements, rows of k 6"), "test_explorer.c: two axes are one head");
    write_npy(f.k, NPY_I4, 3, 5, 2, 2, 0, k);
    count_check(&c, refused(&x, &f, f.v, NULL, "<i4"), "test_explorer.c: integers");
    write_npy(f.k, NPY_F4, 3, 5, 2, 2, 0, k);
    count_check(&c, refused(&x, &f, f.v, NULL, "rows of q have 3"), "test_explorer.c: rows of another length");
    write_npy(f.k, NPY_F4, 3, 0, 2, 3, 0, k);
    count_check(&c, refused(&x, &f, f.v, NULL, "len from 1 to 1024"), "test_explorer.c: no key");
    unlink(f.q), unlink(f.k), unlink(f.v), unlink(f.tokens), rmdir(folder);
    explore_free(&x);
    heed_context_destroy(x.context);
    count_end(&c);
}

/* The same numbers whether heads or tokens come first, with two axes, and from every row that can compute them. */
Test(explore, arrays_and_rows)
{
    struct counts c = {0};
    struct explore x = {.context = context_new()}, y = {.context = x.context};
    char message[256];
    static float q[4 * 2 * 3], q_first[4 * 2 * 3], k[5 * 2 * 3], k_first[5 * 2 * 3];
    for (int t = 0; t < 5; t++)
        for (int h = 0; h < 2; h++)
            for (int d = 0; d < 3; d++) {
                const int at = (t * 2 + h) * 3 + d;
                k[at] = k_first[(h * 5 + t) * 3 + d] = (float)(at * 7 % 11) / 4 - 1;
                if (t < 4) q[at] = q_first[(h * 4 + t) * 3 + d] = (float)(at * 5 % 13) / 4 - 1;
            }
    const char *const names[3] = {"q", "k", "v"};
    const struct npy aq = {.type = NPY_F4, .rank = 3, .shape = {4, 2, 3}, .count = 24, .data = q}, ak = {.type = NPY_F4, .rank = 3, .shape = {5, 2, 3}, .data = k};
    const struct npy bq = {.type = NPY_F4, .rank = 4, .shape = {1, 2, 4, 3}, .count = 24, .data = q_first}, bk = {.type = NPY_F4, .rank = 3, .shape = {2, 5, 3}, .data = k_first};
    const struct npy cq = {.type = NPY_F4, .rank = 2, .shape = {4, 3}, .data = q_first + 12}, ck = {.type = NPY_F4, .rank = 2, .shape = {5, 3}, .data = k_first + 15};
    bool good = explore_load_arrays(&x, names, (const struct npy *const[]){&aq, &ak, &ak}, false, message, sizeof message);
    good = good && explore_load_arrays(&y, names, (const struct npy *const[]){&bq, &bk, &bk}, true, message, sizeof message);
    count_check(&c, good && !memcmp(x.q, y.q, sizeof q) && !memcmp(x.k, y.k, sizeof k) && !memcmp(x.v, y.v, sizeof k), "test_explorer.c: heads first");
    x.head = 1, x.causal = true;
    good = good && explore_compute(&x) == HEED_OK && all_right(&x);
    count_check(&c, good && explore_label_tokens(&x, "lines", "a\nb\nc\nd\ne\n", 10, message, sizeof message) && !strcmp(x.q_labels[0], "b"), "test_explorer.c: labels");
    count_check(&c, good && !explore_label_tokens(&x, "lines", "a\nb", 3, message, sizeof message) && strstr(message, "2 labels for 5 keys") && !x.k_labels, "test_explorer.c: too few labels");
    static const char *const kernels[] = {"cpu.scalar.prefill", "cpu.vector.prefill", "reference"};
    for (size_t n = 0; good && n < sizeof kernels / sizeof *kernels; n++) {
        y.kernel = kernels[n];
        bool same = explore_load_arrays(&y, names, (const struct npy *const[]){&bq, &bk, &bk}, true, message, sizeof message) && y.kernel == kernels[n];
        y.head = 1, y.causal = true, y.temperature = 3;
        same = same && explore_compute(&y) == HEED_OK && all_right(&y);
        count_check(&c, same, kernels[n]);
    }
    y.kernel = "no such row";
    count_check(&c, explore_compute(&y) == HEED_INVALID_ARGUMENT, "test_explorer.c: a row that is not there");
    y.kernel = NULL;
    good = explore_load_arrays(&y, names, (const struct npy *const[]){&cq, &ck, &ck}, true, message, sizeof message) && explore_compute(&y) == HEED_OK;
    x.temperature = EXPLORE_PLAIN, x.causal = false;
    good = good && explore_compute(&x) == HEED_OK;
    count_check(&c, good && !memcmp(x.weights, y.weights, sizeof *x.weights * 20), "test_explorer.c: two axes are one head");
    explore_free(&x);
    explore_free(&y);
    heed_context_destroy(x.context);
    count_end(&c);
}
