/* SPDX-License-Identifier: MIT
 * tokenizer.h - text to word pieces as BERT's uncased tokenizer does it (WordPiece: Schuster and Nakajima, 2012; Devlin et al., 2019):
 *     "Héllo, unbelievable" -> [CLS] hello , un ##bel ##ie ##vable [SEP]
 * Only this recipe: vocab.txt, lower case, no accents. Not a reader of tokenizer.json.
 */
#ifndef MINILM_TOKENIZER_H
#define MINILM_TOKENIZER_H

#include "message.h"
#include <stddef.h>
#include <stdint.h>

struct tokenizer;

/* vocab.txt: piece n on line n, counted from 0. The file stays open. */
bool tokenizer_open(const char *path, struct tokenizer **tokenizer, struct message *message);
void tokenizer_close(struct tokenizer *tokenizer);
int32_t tokenizer_size(const struct tokenizer *tokenizer);
/* Not ended by a zero: `*bytes` long. */
const char *tokenizer_piece(const struct tokenizer *tokenizer, int32_t id, int32_t *bytes);

/* [CLS], the pieces of the text, [SEP] into ids[0 .. most), most >= 2: a longer text is cut. Bytes that are not UTF-8 count for nothing.
 * The number of ids; -1 when out of memory. */
int32_t tokenizer_ids(const struct tokenizer *tokenizer, const char *text, size_t bytes, int32_t most, int32_t *ids);

#endif
