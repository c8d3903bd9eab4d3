/* SPDX-License-Identifier: MIT
 * harness_lengths.c - lengths, positions and pages of a problem, from its words and its seed. No tensors.
 */
#include "dtype.h"
#include "harness_parts.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int32_t *ints_new(int64_t count) { return calloc((size_t)(count > 0 ? count : 1), sizeof(int32_t)); }

/* A length that varies by sequence: the largest for one of them, sometimes 0, else anything. */
static int32_t varied(struct random *random, int32_t b, int32_t full_at, int32_t largest)
{
    int32_t any = largest > 0 ? random_below(random, largest + 1) : 0;
    if (b == full_at) return largest;
    return random_below(random, 7) == 0 ? 0 : any;
}

static void sequence_lengths(struct instance *in)
{
    const struct problem_line *line = &in->line;
    struct random random = {hash_of(line->seed, 1001, 0, 0, 0)};
    for (int32_t b = 0; b < line->batch; b++) {
        int32_t q = varied(&random, b, 0, line->q_len), kv = varied(&random, b, line->batch - 1, line->kv_len);
        in->q_lens[b] = line->ragged ? q : line->q_len;
        in->kv_lens[b] = line->ragged || line->kvlens ? kv : line->kv_len;
        if (line->layout == LAYOUT_QKV) in->kv_lens[b] = in->q_lens[b];
    }
}

static int32_t *running_sum(const int32_t *lens, int32_t batch)
{
    int32_t *sum = ints_new(batch + 1);
    for (int32_t b = 0; sum && b < batch; b++) sum[b + 1] = sum[b] + lens[b];
    return sum;
}

/* Positions of a draft tree behind the cache: query i hangs on some earlier query, its position is its depth. */
static void tree_positions(struct instance *in)
{
    struct random random = {hash_of(in->line.seed, 1002, 0, 0, 0)};
    int32_t *next = in->q_positions;
    for (int32_t b = 0; b < in->line.batch; b++, next += in->q_lens[b - 1]) {
        int32_t root = instance_first(in, b) + in->kv_lens[b] - in->q_lens[b];
        for (int32_t i = 0; i < in->q_lens[b]; i++) next[i] = i ? next[random_below(&random, i)] + 1 : root;
    }
}

/* ---- pages ------------------------------------------------------------------- */

static int32_t pages_of(const struct instance *in, int32_t b)
{
    const int32_t size = in->problem.page_size;
    return in->kv_lens[b] / size + (in->kv_lens[b] % size != 0);
}

/* Shuffled pages; two belong to nobody. Entries behind a sequence's last page hold what must not matter: -1, a far number, a used page. */
static bool make_pages(struct instance *in)
{
    const int32_t batch = in->line.batch;
    struct random random = {hash_of(in->line.seed, 1003, 0, 0, 0)};
    int32_t total = 2, columns = 2;
    for (int32_t b = 0; b < batch; b++) {
        int32_t n = pages_of(in, b);
        total += n;
        if (n + 2 > columns) columns = n + 2;
    }
    int32_t *order = ints_new(total);
    in->page_table = ints_new((int64_t)batch * columns);
    if (!order || !in->page_table) {
        free(order);
        return false;
    }
    for (int32_t n = 0; n < total; n++) order[n] = n;
    for (int32_t n = total - 1; n > 0; n--) {
        int32_t other = random_below(&random, n + 1), kept = order[n];
        order[n] = order[other];
        order[other] = kept;
    }
    for (int32_t b = 0, used = 0; b < batch; b++)
        for (int32_t n = 0; n < columns; n++) {
            const int32_t unused[3] = {-1, INT32_MAX, order[0]};
            in->page_table[(int64_t)b * columns + n] = n < pages_of(in, b) ? order[used++] : unused[n % 3];
        }
    free(order);
    in->lengths.page_table = in->page_table;
    in->lengths.page_table_stride = columns;
    in->shape[ROLE_K].batches = total;
    return true;
}

/* ---- all of it ---------------------------------------------------------------- */

/* Words of heed_desc that each make sense and together with the harness's own do not; NULL: nothing is wrong. */
static const char *packed_rule(const struct problem_line *line, const struct problem *p)
{
    if (line->layout != LAYOUT_QKV) return NULL;
    if (p->page_size) return "a paged cache has no packed q";
    if (line->kvlens || line->kv_len != line->q_len) return "packed q, k and v have one length";
    if (p->head_dim != p->v_head_dim) return "packed q, k and v have one head dimension";
    if (p->q_type != p->k_type || p->k_type != p->v_type || p->q_type > HEED_BF16) return "packed q, k and v have one float type";
    return NULL;
}

/* Positions, running sums and page numbers are 32 bits wide. */
static const char *width_rule(const struct problem_line *line, const struct problem *p)
{
    const int64_t last = line->batch > 0 ? line->batch - 1 : 0, first = line->kvfirst_given ? line->kvfirst + 7 * last : 0;
    const int64_t columns = p->page_size ? line->kv_len / p->page_size + 3 : 0;
    if (line->pos_given && line->pos + last > INT32_MAX) return "pos= of the last sequence is beyond 2^31 - 1";
    if (line->kvfirst_given && first > INT32_MAX) return "kvfirst= of the last sequence is beyond 2^31 - 1";
    if (line->tree && (first + line->kv_len + line->q_len > INT32_MAX || (int64_t)line->kvfirst - line->q_len < INT32_MIN))
        return "positions of the tree are beyond 32 bits";
    if (line->ragged && (line->batch * (int64_t)line->q_len > INT32_MAX || line->batch * (int64_t)line->kv_len > INT32_MAX))
        return "more than 2^31 - 1 packed queries or keys";
    if (line->batch * columns > INT32_MAX) return "more than 2^31 - 1 pages";
    return NULL;
}

/* Each head that is there, once. */
static bool heads_fit(const struct problem_line *line, const struct problem *p, char *message, size_t capacity)
{
    for (int32_t n = 0; n < line->shead_count; n++) {
        const int32_t head = line->sheads[n];
        if (head >= p->q_heads) {
            message_set(message, capacity, "no query head %d: there are heads 0 to %d", (int)head, (int)p->q_heads - 1);
            return false;
        }
        for (int32_t m = 0; m < n; m++)
            if (line->sheads[m] == head) {
                message_set(message, capacity, "sheads= names query head %d twice", (int)head);
                return false;
            }
    }
    return true;
}

/* Refused before memory is touched: a slip like b2000000000 would otherwise fill the machine. Dense tensors, and
 * some 64 bytes a sequence for lengths, in bytes. */
static bool fits_memory(const struct problem_line *line, const struct problem *p, char *message, size_t capacity)
{
    const double pages = p->page_size ? (double)line->batch * (line->kv_len / p->page_size + (line->kv_len % p->page_size != 0)) + 2 : 0;
    const double tokens = p->page_size ? pages * p->page_size : (double)line->batch * line->kv_len;
    const double rows_q = (double)line->batch * line->q_len * p->q_heads, rows_kv = tokens * p->kv_heads;
    const double grid = (line->bcast_b ? 1.0 : line->batch) * (line->bcast_h ? 1.0 : p->q_heads) * (line->bcast_q ? 1.0 : line->q_len) * line->kv_len;
    const double scored = line->srows > 0 && line->srows < line->q_len ? line->srows : line->q_len;
    double bytes = rows_q * (double)(type_row_bytes(p->q_type, p->head_dim) + type_row_bytes(p->o_type, p->v_head_dim)) +
                   rows_kv * (double)(type_row_bytes(p->k_type, p->head_dim) + type_row_bytes(p->v_type, p->v_head_dim)) + 64.0 * line->batch;
    if (p->flags & HEED_MASK_BOOL) bytes += grid;
    if (p->flags & HEED_MASK_BITS) bytes += grid / 8;
    if (p->flags & HEED_BIAS) bytes += grid * (double)type_row_bytes(p->bias_type, 1);
    if (p->flags & HEED_WRITE_SCORES) bytes += 4.0 * line->batch * (line->shead_count ? line->shead_count : p->q_heads) * scored * line->kv_len;
    const double here = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (here <= 0 || bytes <= here) return true;
    message_set(message, capacity, "tensors and lengths of %.3g GiB, this machine has %.3g GiB", bytes / 0x1p30, here / 0x1p30);
    return false;
}

bool line_possible(const struct problem_line *line, char *message, size_t capacity)
{
    struct problem p;
    if (problem_from_desc(&line->desc, &p) != HEED_OK) {
        message_set(message, capacity, "%s", heed_error_message());
        return false;
    }
    const char *why = packed_rule(line, &p);
    if (!why && line->tree && line->pos_given) why = "tree and pos= both say where queries stand";
    if (!why && line->bcast_b && line->ragged) why = "masks of packed queries have no batch axis";
    if (!why) why = width_rule(line, &p);
    if (why) message_set(message, capacity, "%s", why);
    return !why && heads_fit(line, &p, message, capacity) && fits_memory(line, &p, message, capacity);
}

bool instance_lengths(struct instance *in, char *message, size_t capacity)
{
    const struct problem_line *line = &in->line;
    const int32_t batch = line->batch;
    sequence_lengths(in);
    for (int32_t b = 0; b < batch; b++) in->q_total += in->q_lens[b];

    in->lengths = (heed_lengths){.struct_size = sizeof in->lengths, .batch = batch, .q_len = line->q_len, .kv_len = line->kv_len};
    in->lengths.score_rows = line->srows;
    in->lengths.score_heads = line->shead_count ? in->line.sheads : NULL;
    in->lengths.score_head_count = line->shead_count;
    bool enough = true;
    if (line->ragged) enough = (in->lengths.q_start = in->q_start = running_sum(in->q_lens, batch)) != NULL;
    if (line->ragged && !in->problem.page_size)
        enough = enough && (in->lengths.kv_start = in->kv_start = running_sum(in->kv_lens, batch)) != NULL;
    else if (line->ragged || line->kvlens)
        in->lengths.kv_lens = in->kv_lens;
    if (line->kvfirst_given) {
        in->kv_first = ints_new(batch);
        for (int32_t b = 0; in->kv_first && b < batch; b++) in->kv_first[b] = line->kvfirst + 7 * b;
        enough = enough && (in->lengths.kv_first = in->kv_first);
    }
    if (line->pos_given) {
        in->q_position = ints_new(batch);
        for (int32_t b = 0; in->q_position && b < batch; b++) in->q_position[b] = line->pos + b;
        enough = enough && (in->lengths.q_position = in->q_position);
    }
    if (line->tree) {
        in->q_positions = ints_new(in->q_total);
        if (in->q_positions) tree_positions(in);
        enough = enough && (in->lengths.q_positions = in->q_positions);
    }
    if (enough && in->problem.page_size) enough = make_pages(in);
    if (!enough) message_set(message, capacity, "no memory for the lengths of %s", line->text);
    return enough;
}

/* ---- positions, read by the harness's own rules -------------------------------- */

int32_t instance_first(const struct instance *in, int32_t b) { return in->kv_first ? in->kv_first[b] : 0; }

int64_t instance_position(const struct instance *in, int32_t b, int32_t i)
{
    int64_t before = 0;
    if (in->q_positions) {
        for (int32_t n = 0; n < b; n++) before += in->q_lens[n];
        return in->q_positions[before + i];
    }
    if (in->q_position) return (int64_t)in->q_position[b] + i;
    int64_t first = instance_first(in, b);
    return (in->problem.flags & HEED_TOP_LEFT ? first : first + in->kv_lens[b] - in->q_lens[b]) + i;
}
