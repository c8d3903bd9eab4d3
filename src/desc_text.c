/* SPDX-License-Identifier: MIT
 * desc_text.c - a descriptor as one line of words (doc/command.md), and back; the same in every locale.
 * It knows the words that are fields of heed_desc and no rules: problem.c says whether the numbers make sense.
 */
#include "dtype.h"
#include "mutant.h"
#include "problem.h"
#include "status.h"
#include <string.h>

/* ---- the words --------------------------------------------------------------- */

/* "hq32": a field and its number. Those not `always` written are left out at 0. Longer names first where one begins another. */
static const struct {
    const char *word;
    size_t field;
    bool always;
} numbers[] = {
    {"hq", offsetof(heed_desc, q_heads), true},      {"hk", offsetof(heed_desc, kv_heads), false},
    {"dv", offsetof(heed_desc, v_head_dim), false},  {"d", offsetof(heed_desc, head_dim), true},
    {"b", offsetof(heed_desc, max_batch), false},    {"q", offsetof(heed_desc, max_q_len), false},
    {"kv", offsetof(heed_desc, max_kv_len), false},  {"page=", offsetof(heed_desc, page_size), false},
    {"rope=", offsetof(heed_desc, rope_dim), false}, {"ropeoff=", offsetof(heed_desc, rope_offset), false},
};

static const struct {
    const char *word;
    uint64_t flag;
} flags[] = {
    {"causal", HEED_CAUSAL},
    {"topleft", HEED_TOP_LEFT},
    {"alibi", HEED_ALIBI},
    {"sinks", HEED_SINKS},
    {"mask=bool", HEED_MASK_BOOL},
    {"mask=bits", HEED_MASK_BITS},
    {"biasfirst", HEED_BIAS_FIRST},
    {"keyrange", HEED_KEY_RANGE},
    {"lse", HEED_WRITE_LSE},
    {"lse2", HEED_LSE_BASE2},
    {"lsenosink", HEED_LSE_WITHOUT_SINK},
    {"invariant", HEED_INVARIANT},
    {"ropeil", HEED_ROPE_INTERLEAVED},
    {"keysums", HEED_WRITE_KEY_SUMS},
    {"sumheads", HEED_KEY_SUMS_ALL_HEADS},
};

enum { NUMBER_COUNT = sizeof numbers / sizeof *numbers, FLAG_COUNT = sizeof flags / sizeof *flags };

static int32_t *number_field(heed_desc *desc, int n) { return (int32_t *)(void *)((unsigned char *)desc + numbers[n].field); }

/* ---- to text ------------------------------------------------------------------ */

struct line {
    char *text;
    size_t capacity, length;
};

#define WORD(line, ...)                                                                                       \
    ((line)->length = text_append((line)->text, (line)->capacity, (line)->length, (line)->length ? " " : ""), \
     (line)->length = text_append((line)->text, (line)->capacity, (line)->length, __VA_ARGS__))

static void write_types(struct line *line, const heed_desc *d)
{
    static const char *const names[] = {"k", "v", "o"};
    const heed_type given[] = {d->k_type, d->v_type, d->o_type};
    if (type_known(d->q_type)) WORD(line, "%s", type_name(d->q_type));
    for (int n = 0; n < 3; n++)
        if (type_known(given[n])) WORD(line, "%s=%s", names[n], type_name(given[n]));
}

static void write_number(struct line *line, const char *word, float x)
{
    char text[40];
    if (x == 0) return;
    text_of_float(x, text, sizeof text);
    WORD(line, "%s=%s", word, text);
}

static void write_window(struct line *line, const heed_desc *d)
{
    if (!(d->flags & HEED_WINDOW)) return;
    if (d->window_left != -1 || d->window_right == -1) WORD(line, "wl=%d", d->window_left);
    if (d->window_right != -1) WORD(line, "wr=%d", d->window_right);
}

size_t heed_desc_format(const heed_desc *desc, char *text, size_t capacity)
{
    heed_desc d;
    struct line line = {text, text ? capacity : 0, 0};
    if (line.capacity) text[0] = '\0';
    if (struct_take(&d, sizeof d, desc, "heed_desc")) return 0;
    for (int n = 0; n < NUMBER_COUNT; n++) {
        int32_t x = *number_field(&d, n);
        if (numbers[n].field == offsetof(heed_desc, max_batch)) write_types(&line, &d); /* shape, types, hints, features */
        if (numbers[n].always || x) WORD(&line, "%s%d", numbers[n].word, x);
    }
    for (int n = 0; n < FLAG_COUNT; n++)
        if (d.flags & flags[n].flag) WORD(&line, "%s", flags[n].word);
    if (d.flags & HEED_BIAS) WORD(&line, "bias=%s", type_name(d.bias_type ? d.bias_type : d.q_type ? d.q_type : HEED_F32));
    write_window(&line, &d);
    write_number(&line, "scale", d.scale);
    write_number(&line, "softcap", d.softcap);
    if (d.flags & HEED_WRITE_SCORES) WORD(&line, "scores=%d", d.scores_stage);
    return line.length;
}

/* ---- from text ------------------------------------------------------------------ */

struct word {
    const char *text;
    size_t length;
};

/* What a line of words says so far. Types wait until the end: "k=i8 f16" is "f16 k=i8". */
struct reading {
    heed_desc desc;
    heed_type all, q, k, v, o;
};

static bool word_is(const struct word *word, const char *text)
{
    return strlen(text) == word->length && memcmp(word->text, text, word->length) == 0;
}

static bool word_begins(const struct word *word, const char *text, struct word *rest)
{
    size_t length = strlen(text);
    if (word->length <= length || memcmp(word->text, text, length)) return false;
    *rest = (struct word){word->text + length, word->length - length};
    return true;
}

static bool read_int(const struct word *word, int32_t *x)
{
    const char *c = word->text, *end = c + word->length;
    bool negative = *c == '-';
    int64_t value = 0;
    if (negative) c++;
    if (c == end) return false;
    for (; c < end; c++) {
        if (*c < '0' || *c > '9') return false;
        value = value * 10 + (*c - '0');
        if (value > (int64_t)INT32_MAX + 1) return false;
    }
    if (negative) value = -value;
    if (value > INT32_MAX) return false;
    *x = (int32_t)value;
    return true;
}

static bool read_float(const struct word *word, float *x)
{
    double value;
    if (!double_from_text(word->text, word->length, &value)) return false;
    *x = (float)value;
    return true;
}

static heed_status bad_value(const struct word *word, const char *rule)
{
    return fail(HEED_INVALID_ARGUMENT, "word \"%.*s\": %s", (int)word->length, word->text, rule);
}

/* Every reader answers HEED_OK with *known false where the word is none of its own. */
static heed_status read_number(const struct word *word, struct reading *r, bool *known)
{
    struct word rest;
    for (int n = 0; n < NUMBER_COUNT; n++) {
        /* "d64" is a number, "data=..." is somebody else's word */
        if (!word_begins(word, numbers[n].word, &rest)) continue;
        if (!strchr(numbers[n].word, '=') && *rest.text != '-' && (*rest.text < '0' || *rest.text > '9')) continue;
        *known = true;
        if (!read_int(&rest, number_field(&r->desc, n))) return bad_value(word, "no whole number of 32 bits");
        return HEED_OK;
    }
    return HEED_OK;
}

static heed_status read_flag(const struct word *word, struct reading *r, bool *known)
{
    for (int n = 0; n < FLAG_COUNT; n++) {
        if (!word_is(word, flags[n].word)) continue;
        const uint64_t masks = HEED_MASK_BOOL | HEED_MASK_BITS;
        *known = true;
        if (flags[n].flag & masks) r->desc.flags &= ~masks; /* the later wins */
        r->desc.flags |= flags[n].flag;
        return HEED_OK;
    }
    return HEED_OK;
}

static heed_status read_type(const struct word *word, struct reading *r, bool *known)
{
    heed_type type, *one = NULL, *other = NULL;
    struct word rest = *word;
    if (type_from_name(word->text, word->length, &type)) {
        *known = true;
        r->all = type;
        return HEED_OK;
    }
    if (word_begins(word, "q=", &rest))
        one = &r->q;
    else if (word_begins(word, "k=", &rest))
        one = &r->k;
    else if (word_begins(word, "v=", &rest))
        one = &r->v;
    else if (word_begins(word, "o=", &rest))
        one = &r->o;
    else if (word_begins(word, "kv=", &rest))
        one = &r->k, other = &r->v;
    else if (word_begins(word, "bias=", &rest))
        one = &r->desc.bias_type;
    else
        return HEED_OK;
    *known = true;
    if (!type_from_name(rest.text, rest.length, &type)) return bad_value(word, "no such type: f32 f16 bf16 i8 q8_0 q4_0 f8_e4m3 f8_e5m2");
    *one = type;
    if (other) *other = type;
    if (one == &r->desc.bias_type) r->desc.flags |= HEED_BIAS;
    return HEED_OK;
}

static heed_status read_window(const struct word *word, struct reading *r, bool *known)
{
    struct word rest;
    int32_t *side = NULL;
    if (word_begins(word, "wl=", &rest))
        side = &r->desc.window_left;
    else if (word_begins(word, "wr=", &rest))
        side = &r->desc.window_right;
    else
        return HEED_OK;
    *known = true;
    if (!(r->desc.flags & HEED_WINDOW)) r->desc.window_left = r->desc.window_right = -1;
    r->desc.flags |= HEED_WINDOW;
    return read_int(&rest, side) ? HEED_OK : bad_value(word, "no whole number of 32 bits");
}

static heed_status read_logits(const struct word *word, struct reading *r, bool *known)
{
    struct word rest;
    *known = true;
    if (word_begins(word, "scale=", &rest)) return read_float(&rest, &r->desc.scale) ? HEED_OK : bad_value(word, "not a number");
    if (word_begins(word, "softcap=", &rest)) return read_float(&rest, &r->desc.softcap) ? HEED_OK : bad_value(word, "not a number");
    if (word_begins(word, "scores=", &rest)) {
        r->desc.flags |= HEED_WRITE_SCORES;
        return read_int(&rest, &r->desc.scores_stage) ? HEED_OK : bad_value(word, "no whole number of 32 bits");
    }
    *known = false;
    return HEED_OK;
}

/* Steps from one word to the other: letters changed, added, left out, or two swapped (restricted Damerau-Levenshtein), capitals ignored;
 * 9 where a word is too long to be a slip of one of ours. */
static int distance(const struct word *word, const char *to)
{
    enum { LONGEST = 12 };
    const int n = (int)word->length, m = (int)strlen(to);
    int d[LONGEST + 1][LONGEST + 1];
    if (word->length > LONGEST || m > LONGEST) return 9;
    for (int x = 0; x <= n; x++)
        for (int y = 0; y <= m; y++) {
            if (!x || !y) {
                d[x][y] = x + y;
                continue;
            }
            const char a = word->text[x - 1], small = a >= 'A' && a <= 'Z' ? (char)(a - 'A' + 'a') : a;
            const int change = d[x - 1][y - 1] + (small != to[y - 1]), gap = 1 + (d[x - 1][y] < d[x][y - 1] ? d[x - 1][y] : d[x][y - 1]);
            d[x][y] = change < gap ? change : gap;
            if (x > 1 && y > 1 && word->text[x - 2] == to[y - 1] && a == to[y - 2] && d[x - 2][y - 2] + 1 < d[x][y])
                d[x][y] = d[x - 2][y - 2] + 1;
        }
    return d[n][m];
}

/* The word that was meant, if it is a type's name elsewhere or one of ours is a slip away; else NULL. */
static const char *word_meant(const struct word *word)
{
    static const struct { const char *elsewhere, *here; } types[] = {{"float", "f32"}, {"float32", "f32"}, {"half", "f16"}, {"float16", "f16"},
                                                                     {"bfloat16", "bf16"}, {"int8", "i8"}};
    for (size_t n = 0; n < sizeof types / sizeof *types; n++)
        if (word_is(word, types[n].elsewhere)) return types[n].here;
    const char *best = NULL;
    int least = word->length < 3 ? 0 : word->length < 6 ? 1 : 2;
    for (int n = 0; n < FLAG_COUNT + 8; n++) {
        const char *known = n < FLAG_COUNT ? flags[n].word : type_name((heed_type)(n - FLAG_COUNT + 1));
        const int steps = distance(word, known);
        if (steps < least + !best) best = known, least = steps;
    }
    return best;
}

static heed_status unknown_word(const struct word *word)
{
    const char *meant = word_meant(word);
    struct word rest;
    for (int n = 0; n < NUMBER_COUNT; n++)
        if (word_is(word, numbers[n].word)) return bad_value(word, "its number is missing (as in b2 q5 kv9 d64 page=16)");
    if (word->text[word->length - 1] == '=') return bad_value(word, "its value is missing, or is apart from it");
    if (word_begins(word, "mask=", &rest)) return bad_value(word, "there are mask=bool and mask=bits");
    if (meant)
        return fail(HEED_INVALID_ARGUMENT, "word \"%.*s\": this is no field of heed_desc; did you mean \"%s\"?", (int)word->length,
                    word->text, meant);
    return bad_value(word, "this is no field of heed_desc (doc/command.md lists the words)");
}

static heed_status read_word(const struct word *word, struct reading *r)
{
    static heed_status (*const readers[])(const struct word *, struct reading *, bool *) = {read_type, read_flag, read_window, read_logits,
                                                                                            read_number};
    bool known = false;
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
        heed_status status = readers[i](word, r, &known);
        if (status || known) return status;
    }
    return unknown_word(word);
}

/* A type of its own beats the type of all; where q has a type of its own, the others can no longer follow it. */
static void settle_types(struct reading *r)
{
    heed_type others = HEED_TYPE_DEFAULT;
    r->desc.q_type = r->q ? r->q : r->all;
    if (r->q && r->q != r->all) others = r->all ? r->all : HEED_F32;
    if (MUTANT(desc_text_types_follow_q)) others = HEED_TYPE_DEFAULT;
    r->desc.k_type = r->k ? r->k : others;
    r->desc.v_type = r->v ? r->v : others;
    r->desc.o_type = r->o ? r->o : others;
}

heed_status heed_desc_parse(const char *text, heed_desc *desc)
{
    struct reading r = {.desc = {.struct_size = sizeof r.desc, .q_heads = 1, .head_dim = 64}};
    if (!text) return fail(HEED_INVALID_ARGUMENT, "text is NULL");
    if (!desc) return fail(HEED_INVALID_ARGUMENT, "desc is NULL");
    for (;;) {
        text += strspn(text, " \t\r\n");
        struct word word = {text, strcspn(text, " \t\r\n")};
        if (word.length == 0) break;
        heed_status status = read_word(&word, &r);
        if (status) return status;
        text += word.length;
    }
    settle_types(&r);
    *desc = r.desc;
    return HEED_OK;
}
