/* SPDX-License-Identifier: MIT
 * sentences.c - see sentences.h.
 */
#include "sentences.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool sentences_add(struct sentences *s, const char *text, size_t bytes, int32_t line, struct message *message)
{
    if (s->count == s->room) {
        const int32_t room = s->room ? 2 * s->room : 64;
        struct sentence *all = s->room > INT32_MAX / 4 ? NULL : realloc(s->all, (size_t)room * sizeof *all);
        if (!all) return out_of_memory(message);
        s->all = all, s->room = room;
    }
    char *copy = malloc(bytes + 1);
    if (!copy) return out_of_memory(message);
    memcpy(copy, text, bytes);
    copy[bytes] = 0;
    s->all[s->count++] = (struct sentence){copy, bytes, line};
    return true;
}

static bool lines_read(FILE *file, bool blank, struct sentences *s, struct message *message)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    bool good = true;
    for (int32_t n = 1; good && (length = getline(&line, &room, file)) >= 0; n++) {
        while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r')) length--;
        line[length] = 0;
        if (!blank && strspn(line, " \t") == (size_t)length) continue;
        good = sentences_add(s, line, (size_t)length, n, message);
    }
    free(line);
    return good;
}

bool sentences_read(const char *path, bool blank, struct sentences *s, struct message *message)
{
    const bool standard = strcmp(path, "-") == 0;
    FILE *file = standard ? stdin : fopen(path, "re");
    if (!file) return refuse(message, 2, "%s: %s", path, strerror(errno));
    bool good = lines_read(file, blank, s, message);
    if (good && ferror(file)) good = refuse(message, 2, "%s: %s", path, strerror(errno));
    if (!standard) fclose(file);
    return good && (s->count > 0 || refuse(message, 2, "%s: no line with text", path));
}

void sentences_free(struct sentences *s)
{
    for (int32_t n = 0; n < s->count; n++) free(s->all[n].text);
    free(s->all);
    free(s->start);
    free(s->ids);
    *s = (struct sentences){0};
}

bool sentences_cut(struct sentences *s, const struct tokenizer *tokenizer, int32_t most_tokens, struct message *message)
{
    int32_t room = 0;
    s->start = calloc((size_t)s->count + 1, sizeof *s->start);
    if (!s->start) return out_of_memory(message);
    for (int32_t n = 0; n < s->count; n++) {
        if (room - s->start[n] < most_tokens) {
            room = s->start[n] > INT32_MAX / 4 ? 0 : 2 * s->start[n] + most_tokens;
            int32_t *ids = room ? realloc(s->ids, (size_t)room * sizeof *ids) : NULL;
            if (!ids) return out_of_memory(message);
            s->ids = ids;
        }
        const int32_t count = tokenizer_ids(tokenizer, s->all[n].text, s->all[n].bytes, most_tokens, s->ids + s->start[n]);
        if (count < 0) return out_of_memory(message);
        s->start[n + 1] = s->start[n] + count;
    }
    return true;
}

bool sentences_embed(const struct sentences *s, struct encoder *encoder, void (*told)(int32_t done, int32_t count), float *out,
                     struct message *message)
{
    const int32_t most = encoder_most_rows(encoder), hidden = encoder_config(encoder)->hidden;
    int32_t *start = calloc((size_t)s->count + 1, sizeof *start); /* of the batch: from 0 */
    bool good = start != NULL || out_of_memory(message);
    for (int32_t first = 0, count; good && first < s->count; first += count) {
        for (count = 0; first + count < s->count && s->start[first + count + 1] - s->start[first] <= most; count++)
            start[count + 1] = s->start[first + count + 1] - s->start[first];
        good = encoder_run(encoder, count, start, s->ids + s->start[first], out + (size_t)first * (size_t)hidden, message);
        if (good && told) told(first + count, s->count);
    }
    free(start);
    return good;
}
