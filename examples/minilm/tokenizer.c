/* SPDX-License-Identifier: MIT
 * tokenizer.c - see tokenizer.h. Three steps: the text is cleaned (control characters go, every space becomes ' ', Han characters stand alone,
 * accents and capitals go), cut into words at spaces and at punctuation, and each word into the longest pieces that the vocabulary has.
 * What Unicode says of a character comes from utf8proc.
 */
#include "tokenizer.h"
#include "file.h"
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum {
    MOST_PIECES = 1 << 20,
    WORD_LENGTH = 100, /* characters; a longer word is [UNK] unseen, as in the original */
    MARK_BYTES = 2,    /* "##" before a piece that goes on with a word */
    SPECIALS = 5
};

/* These stand for themselves when a text spells them: so do the Python tokenizers of this model. */
static const char *const special_texts[SPECIALS] = {"[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"};
enum { UNKNOWN, FIRST, LAST, NEEDED };

struct piece {
    const char *text; /* in the file */
    int32_t bytes;
};

struct tokenizer {
    struct file file;
    struct piece *pieces; /* [count] */
    int32_t count, longest; /* bytes of the longest piece */
    int32_t *slots; /* open addressing: a number of a piece, or -1; a power of two, at most half full */
    uint32_t slot_mask;
    int32_t special[SPECIALS]; /* -1: not in this vocabulary */
};

struct ids {
    int32_t *ids, count, most;
};

/* ---- vocabulary -------------------------------------------------------------------------------------------------------------- */

static uint32_t hash_of(const char *text, int32_t bytes) /* FNV-1a */
{
    uint32_t hash = 2166136261u;
    for (int32_t n = 0; n < bytes; n++) hash = (hash ^ (unsigned char)text[n]) * 16777619u;
    return hash;
}

/* The slot of the piece, or the empty one where it would stand. */
static int32_t *slot_of(const struct tokenizer *t, const char *text, int32_t bytes)
{
    uint32_t n = hash_of(text, bytes) & t->slot_mask;
    for (; t->slots[n] >= 0; n = (n + 1) & t->slot_mask) {
        const struct piece *piece = &t->pieces[t->slots[n]];
        if (piece->bytes == bytes && memcmp(piece->text, text, (size_t)bytes) == 0) break;
    }
    return &t->slots[n];
}

static int32_t find(const struct tokenizer *t, const char *text, int32_t bytes)
{
    return bytes > t->longest ? -1 : *slot_of(t, text, bytes);
}

static int64_t lines_of(const struct file *file)
{
    int64_t lines = 0;
    for (size_t n = 0; n < file->bytes; n++) lines += file->data[n] == '\n';
    return lines + (file->bytes > 0 && file->data[file->bytes - 1] != '\n');
}

static bool pieces_read(struct tokenizer *t, const char *path, struct message *message)
{
    const char *line = t->file.data, *end = line + t->file.bytes;
    for (int32_t id = 0; line < end; id++) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop) stop = end;
        const ptrdiff_t bytes = stop - line - (stop > line && stop[-1] == '\r');
        if (bytes > INT32_MAX / 2) return refuse(message, 2, "%s: line %d is too long for a piece", path, id + 1);
        t->pieces[id] = (struct piece){line, (int32_t)bytes};
        int32_t *slot = slot_of(t, line, (int32_t)bytes);
        if (*slot >= 0) return refuse(message, 2, "%s: line %d repeats line %d", path, id + 1, *slot + 1);
        *slot = id;
        if (bytes > t->longest) t->longest = (int32_t)bytes;
        line = stop + 1;
    }
    return true;
}

static bool vocabulary_read(struct tokenizer *t, const char *path, struct message *message)
{
    if (!file_open(path, &t->file, message)) return false;
    const int64_t lines = lines_of(&t->file);
    if (lines < 1 || lines > MOST_PIECES)
        return refuse(message, 2, "%s: %lld lines, a vocabulary has 1 to %d", path, (long long)lines, MOST_PIECES);
    t->count = (int32_t)lines;
    uint32_t slots = 16;
    while (slots < 2 * (uint32_t)lines) slots *= 2;
    t->slot_mask = slots - 1;
    t->pieces = calloc((size_t)lines, sizeof *t->pieces);
    t->slots = malloc(slots * sizeof *t->slots);
    if (!t->pieces || !t->slots) return out_of_memory(message);
    memset(t->slots, 0xff, slots * sizeof *t->slots);
    if (!pieces_read(t, path, message)) return false;
    for (int n = 0; n < SPECIALS; n++) {
        t->special[n] = find(t, special_texts[n], (int32_t)strlen(special_texts[n]));
        if (n < NEEDED && t->special[n] < 0) return refuse(message, 2, "%s: has no line %s: not a vocabulary of BERT's", path, special_texts[n]);
    }
    return true;
}

bool tokenizer_open(const char *path, struct tokenizer **tokenizer, struct message *message)
{
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t) return out_of_memory(message);
    if (!vocabulary_read(t, path, message)) {
        tokenizer_close(t);
        return false;
    }
    *tokenizer = t;
    return true;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t) return;
    free(t->pieces);
    free(t->slots);
    file_close(&t->file);
    free(t);
}

int32_t tokenizer_size(const struct tokenizer *t)
{
    return t->count;
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id, int32_t *bytes)
{
    *bytes = t->pieces[id].bytes;
    return t->pieces[id].text;
}

/* ---- characters -------------------------------------------------------------------------------------------------------------- */

static bool is_space(int32_t c)
{
    const utf8proc_category_t category = utf8proc_category(c);
    return c == '\t' || c == '\n' || c == '\r' || category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
           category == UTF8PROC_CATEGORY_ZP;
}

static bool is_dropped(int32_t c)
{
    const utf8proc_category_t category = utf8proc_category(c);
    return c == 0xfffd || category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_CO ||
           category == UTF8PROC_CATEGORY_CS;
}

static bool is_punctuation(int32_t c)
{
    if (c < 128) return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
    const utf8proc_category_t category = utf8proc_category(c);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

/* The blocks of Han characters that the model was trained with (not Hangul, not kana); the seventh begins late in the tokenizer used then. */
static bool is_han(int32_t c)
{
    static const int32_t blocks[][2] = {{0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df}, {0x2a700, 0x2b73f},
                                        {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf}, {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};
    for (size_t n = 0; n < sizeof blocks / sizeof blocks[0]; n++)
        if (c >= blocks[n][0] && c <= blocks[n][1]) return true;
    return false;
}

/* ---- cleaning ---------------------------------------------------------------------------------------------------------------- */

/* Room for 3 bytes for each of the text: a Han character of 3 gets a space on either side, a space of 1 stays one. */
static size_t clean(const char *text, size_t bytes, unsigned char *to)
{
    size_t length = 0;
    for (size_t n = 0; n < bytes;) {
        int32_t c;
        const utf8proc_ssize_t step = utf8proc_iterate((const utf8proc_uint8_t *)text + n, (utf8proc_ssize_t)(bytes - n), &c);
        n += step > 0 ? (size_t)step : 1;
        if (step <= 0) continue; /* not UTF-8: as the replacement character, which is dropped */
        if (is_space(c)) {
            to[length++] = ' ';
        } else if (is_han(c)) {
            to[length++] = ' ';
            length += (size_t)utf8proc_encode_char(c, to + length);
            to[length++] = ' ';
        } else if (!is_dropped(c)) {
            length += (size_t)utf8proc_encode_char(c, to + length);
        }
    }
    return length;
}

/* The text as characters, clean, decomposed (e and its accent apart), without accents, in lower case. NULL when out of memory. */
static int32_t *normalise(const char *text, size_t bytes, size_t *count)
{
    const utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    unsigned char *cleaned = malloc(bytes * 3 + 1);
    if (!cleaned) return NULL;
    const utf8proc_ssize_t length = (utf8proc_ssize_t)clean(text, bytes, cleaned), room = utf8proc_decompose(cleaned, length, NULL, 0, options);
    int32_t *c = room < 0 ? NULL : malloc(((size_t)room + 1) * sizeof *c);
    if (c) utf8proc_decompose(cleaned, length, c, room, options);
    free(cleaned);
    *count = 0;
    for (utf8proc_ssize_t n = 0; c && n < room; n++)
        if (utf8proc_category(c[n]) != UTF8PROC_CATEGORY_MN) c[(*count)++] = utf8proc_tolower(c[n]);
    return c;
}

/* ---- words and pieces -------------------------------------------------------------------------------------------------------- */

static void push(struct ids *ids, int32_t id)
{
    if (ids->count < ids->most) ids->ids[ids->count++] = id;
}

/* From the front, each time the longest piece there is; a word of which any rest is unknown is unknown as a whole. */
static void add_word(const struct tokenizer *t, const int32_t *word, size_t length, struct ids *ids)
{
    char text[MARK_BYTES + WORD_LENGTH * 4];
    int32_t at[WORD_LENGTH + 1], pieces[WORD_LENGTH], count = 0; /* at: where character n begins */
    if (length > WORD_LENGTH) {
        push(ids, t->special[UNKNOWN]);
        return;
    }
    at[0] = MARK_BYTES;
    for (size_t n = 0; n < length; n++) at[n + 1] = at[n] + (int32_t)utf8proc_encode_char(word[n], (utf8proc_uint8_t *)text + at[n]);
    for (size_t start = 0, end; start < length; start = end) {
        const int32_t from = start ? at[start] - MARK_BYTES : at[start];
        if (start) text[from] = text[from + 1] = '#'; /* over characters that are done */
        int32_t id = -1;
        for (end = length; end > start && (id = find(t, text + from, at[end] - from)) < 0; end--) {}
        if (id < 0) {
            push(ids, t->special[UNKNOWN]);
            return;
        }
        pieces[count++] = id;
    }
    for (int32_t n = 0; n < count; n++) push(ids, pieces[n]);
}

/* A stretch of text without special pieces. */
static bool add_text(const struct tokenizer *t, const char *text, size_t bytes, struct ids *ids)
{
    size_t count, start = 0;
    int32_t *c = normalise(text, bytes, &count);
    if (!c) return false;
    for (size_t n = 0; n <= count && ids->count < ids->most; n++) {
        const bool cut = n < count && is_punctuation(c[n]);
        if (n < count && c[n] != ' ' && !cut) continue;
        if (n > start) add_word(t, c + start, n - start, ids);
        if (cut) add_word(t, c + n, 1, ids);
        start = n + 1;
    }
    free(c);
    return true;
}

/* A special piece spelt at this place: its number, else SPECIALS. */
static int special_at(const struct tokenizer *t, const char *text, size_t bytes)
{
    int n = 0;
    for (; n < SPECIALS; n++) {
        const size_t length = strlen(special_texts[n]);
        if (t->special[n] >= 0 && bytes >= length && memcmp(text, special_texts[n], length) == 0) break;
    }
    return n;
}

int32_t tokenizer_ids(const struct tokenizer *t, const char *text, size_t bytes, int32_t most, int32_t *out)
{
    struct ids ids = {.ids = out, .most = most - 1};
    size_t start = 0;
    push(&ids, t->special[FIRST]);
    for (size_t n = 0; n < bytes; n++) {
        const int special = text[n] == '[' ? special_at(t, text + n, bytes - n) : SPECIALS;
        if (special == SPECIALS) continue;
        if (!add_text(t, text + start, n - start, &ids)) return -1;
        push(&ids, t->special[special]);
        n += strlen(special_texts[special]) - 1;
        start = n + 1;
    }
    if (!add_text(t, text + start, bytes - start, &ids)) return -1;
    ids.most++;
    push(&ids, t->special[LAST]);
    return ids.count;
}
