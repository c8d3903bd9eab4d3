/* SPDX-License-Identifier: MIT
 * config.c - see config.h. config.json must be there; the other files may be absent, but what they say must be what encoder.c does.
 */
#include "config.h"
#include <jansson.h>
#include <string.h>
#include <unistd.h>

struct json_file {
    char path[4096];
    json_t *root; /* NULL: an optional file that is not there */
};

static bool json_open(const char *folder, const char *name, bool needed, struct json_file *file, struct message *message)
{
    json_error_t error;
    file->root = NULL;
    if (snprintf(file->path, sizeof file->path, "%s/%s", folder, name) >= (int)sizeof file->path)
        return refuse(message, 2, "the path of the model is too long");
    if (!needed && access(file->path, F_OK) != 0) return true;
    file->root = json_load_file(file->path, JSON_REJECT_DUPLICATES, &error);
    if (!file->root) return refuse(message, 2, "%s: %s", file->path, error.text);
    return true;
}

/* A field that must have this value where it stands; absent is fine. */
static bool expect(const struct json_file *file, const char *field, json_t *wanted, struct message *message)
{
    const json_t *value = json_object_get(file->root, field);
    const bool good = !value || json_equal(value, wanted);
    json_decref(wanted);
    return good || refuse(message, 2, "%s: %s is not what this program computes", file->path, field);
}

static bool count(const struct json_file *file, const char *field, int32_t most, int32_t *number, struct message *message)
{
    const json_t *value = json_object_get(file->root, field);
    if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > most)
        return refuse(message, 2, "%s: %s is not a whole number from 1 to %d", file->path, field, most);
    *number = (int32_t)json_integer_value(value);
    return true;
}

static bool shape_read(const struct json_file *f, struct config *c, struct message *m)
{
    const json_t *epsilon = json_object_get(f->root, "layer_norm_eps");
    if (!expect(f, "model_type", json_string("bert"), m) || !expect(f, "hidden_act", json_string("gelu"), m) ||
        !expect(f, "position_embedding_type", json_string("absolute"), m) || !expect(f, "is_decoder", json_false(), m) ||
        !count(f, "hidden_size", 65536, &c->hidden, m) || !count(f, "num_attention_heads", 1024, &c->heads, m) ||
        !count(f, "num_hidden_layers", 1024, &c->layers, m) || !count(f, "intermediate_size", 1 << 20, &c->inner, m) ||
        !count(f, "max_position_embeddings", 1 << 20, &c->positions, m) || !count(f, "type_vocab_size", 1024, &c->segments, m) ||
        !count(f, "vocab_size", 1 << 20, &c->vocabulary, m))
        return false;
    if (c->hidden % c->heads != 0) return refuse(m, 2, "%s: hidden_size %d is no multiple of num_attention_heads %d", f->path, c->hidden, c->heads);
    if (!json_is_number(epsilon) || !(json_number_value(epsilon) > 0)) return refuse(m, 2, "%s: layer_norm_eps is not a number above 0", f->path);
    c->epsilon = (float)json_number_value(epsilon);
    return true;
}

/* The lesser of what the sentence model and the table of positions allow. */
static bool most_read(const struct json_file *f, struct config *c, struct message *m)
{
    int32_t most = c->positions;
    if (json_object_get(f->root, "max_seq_length") && !count(f, "max_seq_length", 1 << 20, &most, m)) return false;
    c->most_tokens = most < c->positions ? most : c->positions;
    return c->most_tokens >= 2 || refuse(m, 2, "%s: no room for [CLS] and [SEP] in %d tokens", f->path, c->most_tokens);
}

static bool tokenizer_check(const struct json_file *f, struct config *c, struct message *m)
{
    (void)c;
    return expect(f, "do_lower_case", json_true(), m);
}

static bool pooling_check(const struct json_file *f, struct config *c, struct message *m)
{
    (void)c;
    return expect(f, "pooling_mode_mean_tokens", json_true(), m) && expect(f, "pooling_mode_cls_token", json_false(), m) &&
           expect(f, "pooling_mode_max_tokens", json_false(), m);
}

bool config_read(const char *folder, struct config *config, struct message *message)
{
    static const struct {
        const char *name;
        bool needed, (*read)(const struct json_file *, struct config *, struct message *);
    } files[] = {{"config.json", true, shape_read},
                 {"sentence_bert_config.json", false, most_read},
                 {"tokenizer_config.json", false, tokenizer_check},
                 {"1_Pooling/config.json", false, pooling_check}};
    for (size_t n = 0; n < sizeof files / sizeof files[0]; n++) {
        struct json_file file;
        if (!json_open(folder, files[n].name, files[n].needed, &file, message)) return false;
        const bool good = files[n].read(&file, config, message);
        json_decref(file.root);
        if (!good) return false;
    }
    return true;
}
