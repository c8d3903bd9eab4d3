/* SPDX-License-Identifier: MIT
 * test_harness.c - the harness must not be blind: its words are read back, poison is where it should be, touched bytes are seen, guards trap, and
 * damaged cases are refused.
 */
#include "counting.h"
#include "dtype.h"
#include "harness_parts.h"
#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static struct problem_line parsed(const char *text)
{
    struct problem_line line;
    char why[256] = "";
    cr_assert(line_parse(text, &line, why, sizeof why), "%s: %s", text, why);
    return line;
}

static struct instance *made(const char *text, enum instance_variant variant)
{
    const struct problem_line line = parsed(text);
    char why[256] = "";
    struct instance *in = instance_new(&line, variant, why, sizeof why);
    cr_assert(in != NULL, "%s: %s", text, why);
    return in;
}

Test(harness, words)
{
    struct counts c = {0};
    static const char *const files[] = {"smoke", "features", "shapes", "models", "hostile"};
    for (int f = 0; f < 5; f++) {
        char path[1024], why[256] = "", text[LINE_BYTES];
        int32_t count;
        snprintf(path, sizeof path, "%s/tests/problems/%s.txt", HEED_SOURCE_DIR, files[f]);
        struct problem_line *lines = lines_read(path, &count, why, sizeof why);
        cr_assert(lines != NULL, "%s", why);
        for (int32_t n = 0; n < count; n++) {
            struct problem_line again;
            line_format(&lines[n], text, sizeof text);
            bool same = line_parse(text, &again, why, sizeof why);
            memcpy(again.text, lines[n].text, sizeof again.text);
            same = same && !memcmp(&again.desc, &lines[n].desc, sizeof again.desc) && again.seed == lines[n].seed && again.data == lines[n].data &&
                   again.q_len == lines[n].q_len && again.kv_len == lines[n].kv_len && again.batch == lines[n].batch && again.pos == lines[n].pos &&
                   again.ragged == lines[n].ragged && again.kvlens == lines[n].kvlens && again.tree == lines[n].tree && again.layout == lines[n].layout &&
                   again.bcast_b == lines[n].bcast_b && again.bcast_h == lines[n].bcast_h && again.bcast_q == lines[n].bcast_q &&
                   again.kvfirst == lines[n].kvfirst;
            count_check(&c, same, lines[n].text);
        }
        free(lines);
    }
    static const char *const wrong[] = {"d64 nonsense", "q", "q-1", "kv99999999999", "layout=odd", "data=", "bcast=x", "bcast=", "seed=-1", "pos=1x", "page=-1", "d64 d"};
    for (size_t n = 0; n < sizeof wrong / sizeof *wrong; n++) {
        struct problem_line line;
        char why[256] = "";
        count_check(&c, !line_parse(wrong[n], &line, why, sizeof why) && why[0], wrong[n]);
    }
    const struct problem_line last = parsed("q5 q7 kv3 # and a comment q9");
    count_check(&c, last.q_len == 7 && last.kv_len == 3, "test_harness.c: the later word wins, a comment is none");
    count_check(&c, parsed("q5").kv_len == 5 && parsed("q5 kv0").kv_len == 0, "test_harness.c: kv = q where it is not said");
    static const struct { const char *words, *why; } senseless[] = {
        {"layout=qkv page=4", "paged"}, {"layout=qkv q3 kv4", "one length"}, {"layout=qkv q3 kvlens", "one length"}, {"layout=qkv dv32", "one head dimension"},
        {"layout=qkv kv=f16", "one float type"}, {"tree pos=3", "tree and pos="}, {"ragged bcast=b mask=bool", "batch axis"},
        {"sheads=9 scores=1", "heads 0 to 0"}, {"hq4 sheads=1,3,1 scores=1", "head 1 twice"}, {"b2 pos=2147483647", "2^31"}, {"b9 kvfirst=2147483600", "2^31"},
        {"q9 tree kvfirst=2147483640", "32 bits"}, {"q9 tree kvfirst=-2147483648", "32 bits"}, {"b70000 q70000 d1 ragged", "packed"},
        {"b70000 d1 kv70000 page=1", "pages"}, {"b2000000000 hq64", "GiB"}, {"page=2000000000 hq64", "GiB"}, {"hq64 d1 q1000000 scores=1", "GiB"},
        {"hq64 d1 q1000000 mask=bool", "GiB"}, {"hq64 d1 q1000000 bias=f32", "GiB"}};
    for (size_t n = 0; n < sizeof senseless / sizeof *senseless; n++) {
        const struct problem_line line = parsed(senseless[n].words);
        char why[256] = "";
        count_check(&c, !line_possible(&line, why, sizeof why) && strstr(why, senseless[n].why), senseless[n].words);
        count_check(&c, instance_new(&line, INSTANCE_PLAIN, why, sizeof why) == NULL, senseless[n].words);
    }
    static const char *const sensible[] = {"b2 pos=2147483646", "b9 kvfirst=2147483591", "q9 tree kvfirst=2147483629", "hq4 sheads=3,0,1 scores=1", "layout=qkv q3",
                                           "hq64 d1 q1000000 mask=bool bcast=hq", "hq64 d1 q1000000 kv9 scores=1 srows=1"};
    for (size_t n = 0; n < sizeof sensible / sizeof *sensible; n++) {
        const struct problem_line line = parsed(sensible[n]);
        char why[256] = "";
        count_check(&c, line_possible(&line, why, sizeof why), sensible[n]);
    }
    count_end(&c);
}

/* Hidden keys are poison, visible ones are not; the same rows in every layout. */
Test(harness, poison)
{
    struct counts c = {0};
    static const char *const texts[] = {"b2 hq4 hk2 d16 q3 kv40 causal wl=5", "b2 hq4 hk2 d16 q3 kv40 causal wl=5 page=7 kvlens", "b2 hq4 hk2 d16 q3 kv40 mask=bits bcast=hq",
                                        "b3 hq4 hk2 d16 q9 kv40 ragged keyrange", "b2 hq2 d16 q2 kv30 bias=f32 causal pos=7"};
    for (size_t n = 0; n < sizeof texts / sizeof *texts; n++)
        for (int variant = 0; variant < 2; variant++) {
            struct instance *in = made(texts[n], (enum instance_variant)variant);
            int64_t hidden = 0, wrong = 0;
            for (int32_t b = 0; b < in->line.batch; b++)
                for (int32_t g = 0; g < in->problem.kv_heads; g++)
                    for (int32_t j = 0; j < in->kv_lens[b]; j++) {
                        bool seen = false;
                        for (int32_t h = g * in->problem.group; h < (g + 1) * in->problem.group; h++)
                            for (int32_t i = 0; i < in->q_lens[b]; i++) seen = seen || instance_visible(in, b, h, i, j);
                        float k[16], v[16];
                        row_to_f32(HEED_F32, instance_key_row(in, ROLE_K, b, g, j), 1, k, 16);
                        row_to_f32(HEED_F32, instance_key_row(in, ROLE_V, b, g, j), 1, v, 16);
                        for (int d = 0; d < 16; d++) wrong += seen != (fabsf(k[d]) < 1e6f) || seen != (fabsf(v[d]) < 1e6f);
                        hidden += !seen;
                    }
            count_check(&c, wrong == 0 && hidden > 0, texts[n]);
            instance_free(in);
        }
    struct instance *plain = made("b2 hq4 hk2 d16 q3 kv40 causal", INSTANCE_PLAIN), *other = made("b2 hq4 hk2 d16 q3 kv40 page=3", INSTANCE_GUARD_BEFORE);
    bool same = true;
    for (int32_t b = 0; b < 2; b++)
        for (int32_t j = 0; j < 38; j++) same = same && !memcmp(instance_key_row(plain, ROLE_K, b, 1, j), instance_key_row(other, ROLE_K, b, 1, j), 64);
    count_check(&c, same, "test_harness.c: the same rows in every layout");
    count_check(&c, plain->pairs == 2 * 4 * (38 + 39 + 40), "test_harness.c: visible pairs");
    instance_free(plain);
    instance_free(other);
    count_end(&c);
}

Test(harness, touched_bytes)
{
    struct counts c = {0};
    char why[256];
    struct instance *in = made("b2 hq4 hk2 d16 q3 kv40 causal lse seed=6", INSTANCE_GUARD_AFTER);
    count_check(&c, instance_untouched(in, why, sizeof why), "test_harness.c: a fresh instance is untouched");
    for (int role = 0; role < ROLE_COUNT; role++) {
        struct block *block = &in->block[role];
        for (size_t n = 0; block->map && n < block->open_bytes; n += 1 + block->open_bytes / 97) {
            const bool owned = block->owner && block->owner[n];
            block->open[n] ^= 0x10;
            if (instance_untouched(in, why, sizeof why) != owned) count_check(&c, false, role_name((enum role)role));
            block->open[n] ^= 0x10;
        }
    }
    const uint64_t bits = instance_bits(in);
    *instance_query_row(in, ROLE_LSE, 1, 3, 2) ^= 1;
    count_check(&c, instance_bits(in) != bits, "test_harness.c: the hash sees a bit of lse");
    instance_reset(in);
    count_check(&c, instance_bits(in) == bits && isnan(*(float *)(void *)instance_query_row(in, ROLE_LSE, 1, 3, 2)), "test_harness.c: reset results are NaN");
    instance_free(in);
    count_end(&c);
}

/* One byte beside a tensor ends the process: in a child. */
Test(harness, guards)
{
    struct counts c = {0};
    for (int variant = 0; variant < 2; variant++) {
        struct instance *in = made("b2 hq4 hk2 d16 q3 kv40 causal lse mask=bits bias=f16 keyrange alibi sinks seed=3", (enum instance_variant)variant);
        for (int role = 0; role < ROLE_COUNT; role++) {
            const struct block *block = &in->block[role];
            if (!block->map) continue;
            const pid_t child = fork();
            if (child == 0) {
                signal(SIGSEGV, SIG_DFL);
                const volatile unsigned char *at = variant == INSTANCE_GUARD_AFTER ? block->data + block->bytes : block->data - 1;
                _exit(*at ? 1 : 2);
            }
            int status = 0;
            waitpid(child, &status, 0);
            count_check(&c, WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) > 2), role_name((enum role)role)); /* sanitizers exit */
        }
        instance_free(in);
    }
    count_end(&c);
}

/* A wrong number is seen by the comparison: one unit in the last place too much where the bound is small, and anything in an empty row. */
Test(harness, sees_errors)
{
    struct counts c = {0};
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT};
    cr_assert(heed_context_create(&options, &context) == HEED_OK, "%s", heed_error_message());
    struct instance *in = made("b2 hq4 hk2 d16 q30 kv20 causal lse", INSTANCE_GUARD_AFTER);
    struct prepared p;
    heed_check_report report;
    cr_assert(prepared_make(context, 0, NULL, in, false, &p) == HEED_OK && prepared_reset(&p) == HEED_OK && prepared_run(&p) == HEED_OK, "%s", heed_error_message());
    count_check(&c, prepared_compare(&p, &report) == HEED_OK && report.outside == 0, "test_harness.c: right is right");
    float *o = (float *)(void *)instance_query_row(in, ROLE_O, 1, 2, 29), *empty = (float *)(void *)instance_query_row(in, ROLE_O, 0, 0, 0);
    float *lse = (float *)(void *)instance_query_row(in, ROLE_LSE, 0, 3, 25);
    float *const places[3] = {o + 5, empty + 3, lse};
    for (int n = 0; n < 3; n++) {
        const float kept = *places[n];
        *places[n] += n == 1 ? 1e-30f : fabsf(kept) * 1e-4f;
        count_check(&c, prepared_compare(&p, &report) == HEED_MISMATCH && report.outside == 1, "test_harness.c: a wrong number is seen");
        *places[n] = NAN;
        count_check(&c, prepared_compare(&p, &report) == HEED_MISMATCH && report.outside == 1, "test_harness.c: NaN is seen");
        *places[n] = kept;
    }
    prepared_release(&p);
    instance_free(in);
    heed_context_destroy(context);
    count_end(&c);
}

/* ---- damaged cases ------------------------------------------------------------------------------ */

static bool write_text(const char *folder, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/case.json", folder);
    FILE *file = fopen(path, "w");
    if (!file) return false;
    fputs(text, file);
    return fclose(file) == 0;
}

/* case.json of a golden case with every single value replaced by something it must not be: refused or read, never a crash. */
Test(harness, damaged_cases)
{
    struct counts c = {0};
    char folder[] = "/tmp/heed-case-XXXXXX", command[400], text[20000], changed[20100], why[512];
    cr_assert(mkdtemp(folder) != NULL);
    snprintf(command, sizeof command, "cp '%s/golden/paged_1_shuffled_poison'/* '%s/' 2>/dev/null || cp \"$(dirname \"$(grep -l '\"paged\"' '%s'/golden/*/case.json | head -1)\")\"/* '%s/'",
             HEED_BINARY_DIR, folder, HEED_BINARY_DIR, folder);
    cr_assert(system(command) == 0);
    snprintf(command, sizeof command, "%s/case.json", folder);
    FILE *file = fopen(command, "r");
    const size_t length = file ? fread(text, 1, sizeof text - 1, file) : 0;
    text[length] = 0;
    if (file) fclose(file);
    struct stored_case *whole = case_load(folder, INSTANCE_GUARD_AFTER, why, sizeof why);
    count_check(&c, whole != NULL, "test_harness.c: the undamaged case is read");
    case_free(whole);
    static const char *const instead[] = {"-1", "0", "2147483647", "\"x\"", "[]", "1e300", "null"};
    int64_t refused = 0, tried = 0;
    for (size_t at = 0; at + 1 < length; at++) { /* each value behind a ':' or in a list */
        if (!strchr(":[,", text[at])) continue;
        const size_t from = at + 1 + strspn(text + at + 1, " \n"), size = strcspn(text + from, ",]}\n");
        if (size == 0 || !strchr("-0123456789\"tfn", text[from])) continue;
        for (size_t n = 0; n < sizeof instead / sizeof *instead; n++) {
            snprintf(changed, sizeof changed, "%.*s%s%s", (int)from, text, instead[n], text + from + size);
            if (!write_text(folder, changed)) break;
            struct stored_case *stored = case_load(folder, INSTANCE_GUARD_AFTER, why, sizeof why);
            refused += stored == NULL;
            tried++;
            case_free(stored);
        }
    }
    count_check(&c, tried > 100 && refused > tried / 2, "test_harness.c: damaged cases are refused");
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    count_check(&c, system(command) == 0, command);
    count_end(&c);
}
