/* SPDX-License-Identifier: MIT
 * sentences.h - lines of a text file, their word pieces, and their embeddings batch by batch. Neither a search index nor a store.
 */
#ifndef MINILM_SENTENCES_H
#define MINILM_SENTENCES_H

#include "encoder.h"
#include "tokenizer.h"

struct sentence {
    char *text; /* ended by a zero, which may also stand inside */
    size_t bytes;
    int32_t line; /* in the file, from 1 */
};

struct sentences {
    struct sentence *all; /* [count] */
    int32_t count, room;
    int32_t *start, *ids; /* [count + 1], [start[count]], after sentences_cut() */
};

/* "-": standard input. Blank lines are left out unless `blank`. */
bool sentences_read(const char *path, bool blank, struct sentences *sentences, struct message *message);
bool sentences_add(struct sentences *sentences, const char *text, size_t bytes, int32_t line, struct message *message);
void sentences_free(struct sentences *sentences);

/* Word pieces of all. */
bool sentences_cut(struct sentences *sentences, const struct tokenizer *tokenizer, int32_t most_tokens, struct message *message);
/* out [count, hidden]. told(), where given, hears after each batch how many are done. */
bool sentences_embed(const struct sentences *sentences, struct encoder *encoder, void (*told)(int32_t done, int32_t count), float *out,
                     struct message *message);

#endif
