/* SPDX-License-Identifier: MIT
 * harness_line.c - problem strings: the words that belong to the harness; those of heed_desc are left to heed_desc_parse(). Files of lines.
 */
#include "dtype.h"
#include "harness_parts.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *const layout_names[] = {"blhd", "bhld", "qkv"};
static const char *const data_names[] = {"normal", "huge", "equal", "spike", "denormal", "onehot"};

void message_set(char *message, size_t capacity, const char *format, ...)
{
    if (!message || !capacity) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, capacity, format, arguments);
    va_end(arguments);
}

/* ---- single words ---------------------------------------------------------- */

/* Decimal digits alone, with a sign where allowed. */
static bool number_of(const char *text, bool negative, int64_t *value)
{
    char *end;
    if (!*text || !(strchr("0123456789", *text) || (negative && *text == '-' && text[1]))) return false;
    *value = strtoll(text, &end, 10);
    return !*end && strlen(text) < 20;
}

static bool length_word(const char *word, const char *name, int32_t *value, bool *seen)
{
    int64_t n;
    size_t length = strlen(name);
    if (strncmp(word, name, length) || !number_of(word + length, false, &n) || n > INT32_MAX) return false;
    *value = (int32_t)n;
    if (seen) *seen = true;
    return true;
}

static bool int_word(const char *word, const char *name, int32_t *value, bool *given)
{
    int64_t n;
    size_t length = strlen(name);
    if (strncmp(word, name, length) || !number_of(word + length, true, &n) || n > INT32_MAX || n < INT32_MIN) return false;
    *value = (int32_t)n;
    *given = true;
    return true;
}

static bool seed_word(const char *word, uint64_t *seed)
{
    int64_t n;
    if (strncmp(word, "seed=", 5) || !number_of(word + 5, false, &n)) return false;
    *seed = (uint64_t)n;
    return true;
}

static bool name_word(const char *word, const char *name, const char *const *names, int count, int *value)
{
    size_t length = strlen(name);
    if (strncmp(word, name, length)) return false;
    for (int n = 0; n < count; n++)
        if (!strcmp(word + length, names[n])) {
            *value = n;
            return true;
        }
    return false;
}

static bool bcast_word(const char *word, struct problem_line *line)
{
    if (strncmp(word, "bcast=", 6) || !word[6] || strspn(word + 6, "bhq") != strlen(word + 6)) return false;
    line->bcast_b = strchr(word + 6, 'b') != NULL;
    line->bcast_h = strchr(word + 6, 'h') != NULL;
    line->bcast_q = strchr(word + 6, 'q') != NULL;
    return true;
}

/* sheads=3,0: query heads, each once; whether they are there is the library's to say. */
static bool heads_word(const char *word, struct problem_line *line)
{
    if (strncmp(word, "sheads=", 7) || !word[7]) return false;
    line->shead_count = 0;
    for (const char *at = word + 6; *at;) {
        char *end;
        const long head = strtol(at + 1, &end, 10);
        if (end == at + 1 || at[1] < '0' || at[1] > '9' || head > 65535 || (*end && *end != ',') || line->shead_count == LINE_HEADS) return false;
        line->sheads[line->shead_count++] = (int32_t)head;
        at = end;
    }
    return true;
}

static bool flag_word(const char *word, const char *name, bool *flag)
{
    if (strcmp(word, name)) return false;
    return *flag = true;
}

/* true: the word is the harness's own, and taken. */
static bool take_word(const char *word, struct problem_line *line, bool *kv_seen)
{
    int value;
    if (name_word(word, "layout=", layout_names, 3, &value)) return line->layout = (enum line_layout)value, true;
    if (name_word(word, "data=", data_names, DATA_COUNT, &value)) return line->data = (enum line_data)value, true;
    return length_word(word, "b", &line->batch, NULL) || length_word(word, "q", &line->q_len, NULL) ||
           length_word(word, "kv", &line->kv_len, kv_seen) || int_word(word, "pos=", &line->pos, &line->pos_given) ||
           int_word(word, "kvfirst=", &line->kvfirst, &line->kvfirst_given) || flag_word(word, "tree", &line->tree) ||
           flag_word(word, "ragged", &line->ragged) || flag_word(word, "kvlens", &line->kvlens) || seed_word(word, &line->seed) ||
           bcast_word(word, line) || length_word(word, "srows=", &line->srows, NULL) || heads_word(word, line);
}

/* What is wrong with a word that begins like one of the harness's own; NULL: it does not. */
static const char *own_word_rule(const char *word)
{
    static const struct { const char *begin, *rule; } rules[] = {
        {"layout=", "there are layout=blhd, bhld and qkv"},
        {"data=", "there are data=normal, huge, equal, spike, denormal and onehot"},
        {"bcast=", "its letters are b, h and q"},
        {"seed=", "a whole number from 0"},
        {"pos=", "a whole number"},
        {"kvfirst=", "a whole number"},
        {"srows=", "a whole number from 0"},
        {"sheads=", "query heads, parted by commas, at most 64"},
    };
    for (size_t n = 0; n < sizeof rules / sizeof *rules; n++)
        if (!strncmp(word, rules[n].begin, strlen(rules[n].begin))) return rules[n].rule;
    return NULL;
}

/* ---- lines ------------------------------------------------------------------ */

/* The line without comment, line end and blanks at its ends. */
static bool trimmed(const char *text, char *to)
{
    size_t from = strspn(text, " \t\r\n"), length = strcspn(text + from, "#\n\r");
    while (length && strchr(" \t", text[from + length - 1])) length--;
    if (length >= LINE_BYTES) return false;
    memcpy(to, text + from, length);
    to[length] = 0;
    return true;
}

bool line_parse(const char *text, struct problem_line *line, char *message, size_t capacity)
{
    char words[LINE_BYTES], rest[LINE_BYTES] = "", *state = NULL;
    *line = (struct problem_line){.batch = 1, .q_len = 1, .seed = 1};
    if (!trimmed(text, line->text)) {
        message_set(message, capacity, "a problem string may have %d bytes", LINE_BYTES - 1);
        return false;
    }
    bool kv_seen = false;
    memcpy(words, line->text, sizeof words);
    for (char *word = strtok_r(words, " \t", &state); word; word = strtok_r(NULL, " \t", &state)) {
        if (take_word(word, line, &kv_seen)) continue;
        if (own_word_rule(word)) {
            message_set(message, capacity, "word \"%s\": %s", word, own_word_rule(word));
            return false;
        }
        if (*rest) strcat(rest, " "); /* never longer than the text it came from */
        strcat(rest, word);
    }
    if (!kv_seen) line->kv_len = line->q_len;
    if (heed_desc_parse(rest, &line->desc) != HEED_OK || heed_desc_check(&line->desc) != HEED_OK) {
        message_set(message, capacity, "%s", heed_error_message());
        return false;
    }
    line->desc.max_batch = line->batch;
    line->desc.max_q_len = line->q_len;
    line->desc.max_kv_len = line->kv_len;
    return true;
}

size_t line_format(const struct problem_line *line, char *text, size_t capacity)
{
    heed_desc desc = line->desc;
    desc.max_batch = desc.max_q_len = desc.max_kv_len = 0;
    char words[LINE_BYTES], more[LINE_BYTES] = "";
    int n = 0;
    heed_desc_format(&desc, words, sizeof words);
#define ADD(...) n += snprintf(more + n, sizeof more - (size_t)n, __VA_ARGS__)
    if (line->pos_given) ADD(" pos=%d", (int)line->pos);
    if (line->kvfirst_given) ADD(" kvfirst=%d", (int)line->kvfirst);
    if (line->tree) ADD(" tree");
    if (line->ragged) ADD(" ragged");
    if (line->kvlens) ADD(" kvlens");
    if (line->layout) ADD(" layout=%s", layout_names[line->layout]);
    if (line->bcast_b || line->bcast_h || line->bcast_q)
        ADD(" bcast=%s%s%s", line->bcast_b ? "b" : "", line->bcast_h ? "h" : "", line->bcast_q ? "q" : "");
    if (line->srows) ADD(" srows=%d", (int)line->srows);
    for (int32_t k = 0; k < line->shead_count; k++) ADD("%s%d", k ? "," : " sheads=", (int)line->sheads[k]);
    if (line->seed != 1) ADD(" seed=%llu", (unsigned long long)line->seed);
    if (line->data) ADD(" data=%s", data_names[line->data]);
#undef ADD
    return (size_t)snprintf(text, capacity, "b%d q%d kv%d %s%s", (int)line->batch, (int)line->q_len, (int)line->kv_len, words, more);
}

struct problem_line *lines_read(const char *path, int32_t *count, char *message, size_t capacity)
{
    FILE *file = fopen(path, "r");
    struct problem_line *lines = NULL;
    char text[2 * LINE_BYTES], why[256];
    int32_t number = 0;
    *count = 0;
    if (!file) {
        message_set(message, capacity, "%s cannot be opened", path);
        return NULL;
    }
    while (fgets(text, sizeof text, file)) {
        number++;
        if (strchr(" \t\r\n#", text[0]) && !text[strspn(text, " \t\r\n")]) continue;
        if (text[strspn(text, " \t")] == '#') continue;
        struct problem_line *longer = realloc(lines, (size_t)(*count + 1) * sizeof *lines);
        if (longer) lines = longer;
        if (longer && line_parse(text, &lines[*count], why, sizeof why)) {
            (*count)++;
            continue;
        }
        message_set(message, capacity, "%s:%d: %s", path, (int)number, longer ? why : "no memory");
        free(lines);
        fclose(file);
        return NULL;
    }
    fclose(file);
    if (!lines) message_set(message, capacity, "%s holds no problem", path);
    return lines;
}

void counts_report(int64_t passed, int64_t failed, int64_t skipped)
{
    const char *path = getenv("HEED_TEST_COUNTS");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (!file) return;
    fprintf(file, "%lld %lld %lld\n", (long long)passed, (long long)failed, (long long)skipped);
    fclose(file);
}
