/* SPDX-License-Identifier: MIT
 * foreign_check.c - the table tests itself where no test framework is at hand, as under an emulator: every CPU row against every line of
 * the problem files named, each element inside its bound, the same bits again; and rows of one arithmetic with the same bits on every
 * instruction set. test_agree.c does the first half on the machine at hand. Before that the words of each vector language (words.c).
 *
 *     foreign_check [--rows TEXT,...] [--most N] [--bits each] FILE...
 * TEXT: part of the rows' names; N: lines of at most so many multiply-adds; --bits each: also those of each line, to find the one that differs.
 * The closing lines are one hash of all f32 outputs by kind of row, the same on every machine, and `N passed, N failed, N skipped`.
 */
#include "context.h"
#include "harness.h"
#include "internal.h"
#include "registry.h"
#include "words.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 64 };

struct tally {
    int64_t passed, failed, skipped;
};

/* Rows that must agree bit for bit: the same kind of row by name ("cpu.avx2.decode" and "cpu.scalar.decode") with the same arithmetic. */
struct family {
    const char *kind; /* "decode", "prefill.grouped" */
    const struct kernel_row *row;
    uint64_t bits;    /* of the line at hand */
    bool known, counted; /* counted: in the hash */
    uint64_t hash;    /* of all lines with f32 outputs */
};

static const struct kernel_row *rows[MOST_ROWS];
static struct family families[MOST_ROWS];
static int row_count, family_count;

static const char *kind_of(const struct kernel_row *row)
{
    const char *isa = strchr(row->name, '.'), *kind = isa ? strchr(isa + 1, '.') : NULL;
    return kind ? kind + 1 : row->name;
}

static struct family *family_of(const struct kernel_row *row)
{
    for (int n = 0; n < family_count; n++)
        if (!strcmp(families[n].kind, kind_of(row)) && families[n].row->order == row->order &&
            !memcmp(&families[n].row->arithmetic, &row->arithmetic, sizeof row->arithmetic))
            return &families[n];
    families[family_count] = (struct family){.kind = kind_of(row), .row = row};
    return &families[family_count++];
}

/* Does the name hold one of the texts between commas? */
static bool is_wanted(const char *name, const char *texts)
{
    char part[64];
    for (;;) {
        const size_t length = strcspn(texts, ",");
        snprintf(part, sizeof part, "%.*s", (int)length, texts);
        if (strstr(name, part)) return true;
        if (!texts[length]) return false;
        texts += length + 1;
    }
}

/* Rows of attention that are wanted and whose instruction set this machine has. */
static void find_rows(heed_context *context, const char *text)
{
    struct device *device;
    const struct kernel_row *row;
    if (device_get(context, 0, &device) != HEED_OK) return;
    for (int32_t n = 0; row_count < MOST_ROWS && (row = registry_row(device->backend, n)); n++) {
        if (!(row->kinds & (KIND_BIT(KIND_PREFILL) | KIND_BIT(KIND_DECODE))) || !is_wanted(row->name, text)) continue;
        if (row->needs & ~context->services.isa) printf("not on this machine: %s\n", row->name);
        else {
            printf("on this machine: %s\n", row->name);
            rows[row_count++] = row;
        }
    }
}

/* Multiply-adds of a line, at most. */
static double cost_of(const struct problem_line *line)
{
    return (double)line->batch * line->desc.q_heads * line->q_len * line->kv_len * line->desc.head_dim;
}

static void check_line(heed_context *context, const struct problem_line *line, bool show, struct tally *tally)
{
    for (int n = 0; n < family_count; n++) families[n].known = families[n].counted = false;
    for (int n = 0; n < row_count; n++) {
        struct family *family = family_of(rows[n]);
        struct outcome outcome;
        line_check(context, 0, rows[n]->name, line, &outcome);
        if (outcome.verdict == VERDICT_PASS && family->known && family->bits != outcome.bits) {
            outcome.verdict = VERDICT_FAIL;
            snprintf(outcome.message, sizeof outcome.message, "other bits than %s", family->row->name);
        }
        if (outcome.verdict != VERDICT_SKIP && !family->known) {
            family->known = true;
            family->row = rows[n];
            family->bits = outcome.bits;
        }
        /* the bits that go abroad: not of steps that this instruction set alone takes for decode */
        if (outcome.verdict != VERDICT_SKIP && !family->counted && rows[n]->decode_rows <= 8) {
            family->counted = true;
            if (show) printf("%016llx %s %s\n", (unsigned long long)outcome.bits, family->kind, line->text);
            if (line->desc.o_type == HEED_TYPE_DEFAULT && line->desc.q_type == HEED_TYPE_DEFAULT)
                family->hash = family->hash * UINT64_C(0x9e3779b97f4a7c15) + outcome.bits;
        }
        tally->passed += outcome.verdict == VERDICT_PASS;
        tally->failed += outcome.verdict == VERDICT_FAIL;
        tally->skipped += outcome.verdict == VERDICT_SKIP;
        if (outcome.verdict == VERDICT_FAIL) printf("FAIL %s \"%s\": %s\n", rows[n]->name, line->text, outcome.message);
    }
}

/* The words of every instruction set that this machine has. */
static void check_words(uint32_t isa, struct tally *tally)
{
    static const struct {
        uint32_t isa;
        void (*check)(struct words_tally *tally);
    } sets[] = {
        {ISA_SCALAR, words_scalar},
        {ISA_VECTOR, words_vector},
#if defined(__x86_64__)
        {ISA_AVX2, words_avx2},
        {ISA_AVX512, words_avx512},
#if !defined(HEED_EMULATE_AVX512)
        {ISA_AVX512VBMI, words_avx512vbmi},
        {ISA_AVX512BF16, words_avx512bf16},
        {ISA_AMX, words_amx},
#endif
#elif defined(__aarch64__)
        {ISA_NEON, words_neon},
#endif
#if defined(HEED_ARM_BF16)
        {ISA_NEONBF16, words_neonbf16},
#endif
#if defined(HEED_SVE)
        {ISA_SVE128, words_sve128},
        {ISA_SVE256, words_sve256},
        {ISA_SVE512, words_sve512},
#endif
#if defined(HEED_RVV)
        {ISA_RVV128, words_rvv128},
        {ISA_RVV256, words_rvv256},
#endif
    };
    for (size_t n = 0; n < sizeof sets / sizeof *sets; n++) {
        struct words_tally words = {0};
        if (!(isa & sets[n].isa)) continue;
        sets[n].check(&words);
        tally->passed += words.passed > 0 && words.failed == 0;
        tally->failed += words.failed > 0;
    }
}

int main(int argc, char **argv)
{
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT};
    const char *text = "";
    heed_context *context = NULL;
    struct tally tally = {0};
    double most = 1e30;
    bool show = false;
    int first = 1;
    for (; first + 1 < argc && argv[first][0] == '-'; first += 2) {
        if (!strcmp(argv[first], "--rows")) text = argv[first + 1];
        else if (!strcmp(argv[first], "--most")) most = strtod(argv[first + 1], NULL);
        else if (!strcmp(argv[first], "--bits") && !strcmp(argv[first + 1], "each")) show = true;
        else most = 0;
    }
    if (!(most > 0) || first >= argc) {
        fprintf(stderr, "usage: foreign_check [--rows TEXT,...] [--most N] [--bits each] FILE...\n");
        return 2;
    }
    if (heed_context_create(&options, &context) != HEED_OK) {
        fprintf(stderr, "foreign_check: %s\n", heed_error_message());
        return 1;
    }
    check_words(context->services.isa, &tally);
    find_rows(context, text);
    for (int n = first; n < argc; n++) {
        char why[256] = "";
        int32_t count = 0;
        struct problem_line *lines = lines_read(argv[n], &count, why, sizeof why);
        if (!lines) {
            printf("FAIL %s: %s\n", argv[n], why);
            tally.failed++;
        }
        int32_t left_out = 0;
        for (int32_t i = 0; i < count; i++) {
            if (cost_of(&lines[i]) > most) left_out++;
            else check_line(context, &lines[i], show, &tally);
        }
        if (left_out) printf("skipped: %d lines of %s with more than %g multiply-adds\n", (int)left_out, argv[n], most);
        tally.skipped += left_out;
        free(lines);
    }
    heed_context_destroy(context);
    for (int n = 0; n < family_count; n++)
        if (families[n].hash) {
            const bool twice = families[n].row->arithmetic.exp_ulp > 1.2f; /* cpu.vector without an fma: other bits, and says so */
            printf("bits of %s, %s: %016llx\n", families[n].kind, twice ? "rounded twice" : "fused", (unsigned long long)families[n].hash);
        }
    printf("%lld passed, %lld failed, %lld skipped\n", (long long)tally.passed, (long long)tally.failed, (long long)tally.skipped);
    return tally.failed > 0;
}
