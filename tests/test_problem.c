/* SPDX-License-Identifier: MIT
 * test_problem.c - descriptors and lengths: every rule broken once, defaults filled in, and the text form there and back.
 */
#include "inner.h"
#include "dtype.h"
#include <criterion/criterion.h>
#include <limits.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

static heed_desc plain(void) { return (heed_desc){.struct_size = sizeof(heed_desc), .q_heads = 8, .kv_heads = 2, .head_dim = 64}; }

#define EXPECT(call, expected, fragment)                                                                                  \
    do {                                                                                                                  \
        heed_status got_ = (call);                                                                                        \
        cr_expect_eq(got_, expected, "%s: %s, \"%s\"", #call, heed_status_string(got_), heed_error_message());            \
        cr_expect(strstr(heed_error_message(), fragment), "\"%s\" does not hold \"%s\"", heed_error_message(), fragment); \
    } while (0)

/* ---- bad descriptors ------------------------------------------------------------------ */

/* One field set to one value, by its offset. */
struct bad_int {
    const char *field;
    size_t offset;
    int32_t value;
    heed_status status;
    const char *fragment;
};
#define BAD(field, value, status, fragment)                         \
    {                                                               \
#field, offsetof(heed_desc, field), value, status, fragment \
    }

static const struct bad_int bad_ints[] = {
    BAD(q_type, 9, HEED_INVALID_ARGUMENT, "q_type is 9"),
    BAD(q_type, -1, HEED_INVALID_ARGUMENT, "q_type is -1"),
    BAD(k_type, 15, HEED_INVALID_ARGUMENT, "k_type is 15"),
    BAD(v_type, 48, HEED_INVALID_ARGUMENT, "v_type is 48"),
    BAD(o_type, INT_MAX, HEED_INVALID_ARGUMENT, "o_type is 2147483647"),
    BAD(bias_type, 77, HEED_INVALID_ARGUMENT, "bias_type is 77"),
    BAD(q_type, HEED_I8, HEED_UNSUPPORTED, "q_type is i8"),
    BAD(q_type, HEED_Q8_0, HEED_UNSUPPORTED, "q_type is q8_0"),
    BAD(o_type, HEED_I8, HEED_UNSUPPORTED, "o_type is i8"),
    BAD(o_type, HEED_F8_E4M3, HEED_UNSUPPORTED, "o_type is f8_e4m3"),
    BAD(q_heads, 0, HEED_INVALID_ARGUMENT, "q_heads is 0"),
    BAD(q_heads, -8, HEED_INVALID_ARGUMENT, "q_heads is -8"),
    BAD(q_heads, 7, HEED_INVALID_ARGUMENT, "q_heads 7 is not a multiple of kv_heads 2"),
    BAD(kv_heads, -1, HEED_INVALID_ARGUMENT, "kv_heads is -1"),
    BAD(kv_heads, 3, HEED_INVALID_ARGUMENT, "q_heads 8 is not a multiple of kv_heads 3"),
    BAD(kv_heads, 16, HEED_INVALID_ARGUMENT, "q_heads 8 is not a multiple of kv_heads 16"),
    BAD(head_dim, 0, HEED_INVALID_ARGUMENT, "head_dim is 0"),
    BAD(head_dim, -64, HEED_INVALID_ARGUMENT, "head_dim is -64"),
    BAD(head_dim, 1025, HEED_INVALID_ARGUMENT, "1 .. 1024"),
    BAD(v_head_dim, -1, HEED_INVALID_ARGUMENT, "v_head_dim is -1"),
    BAD(v_head_dim, 1025, HEED_INVALID_ARGUMENT, "v_head_dim is 1025"),
    BAD(max_batch, -1, HEED_INVALID_ARGUMENT, "max_batch is -1"),
    BAD(max_q_len, -1, HEED_INVALID_ARGUMENT, "max_q_len is -1"),
    BAD(max_kv_len, -1, HEED_INVALID_ARGUMENT, "max_kv_len is -1"),
    BAD(page_size, -16, HEED_INVALID_ARGUMENT, "page_size is -16"),
    BAD(rope_dim, -2, HEED_INVALID_ARGUMENT, "rope_dim is -2"),
    BAD(rope_dim, 63, HEED_INVALID_ARGUMENT, "rope_dim is 63: it must be even"),
    BAD(rope_dim, 66, HEED_INVALID_ARGUMENT, "beyond head_dim 64"),
    BAD(rope_offset, -1, HEED_INVALID_ARGUMENT, "rope_offset is -1"),
    BAD(rope_offset, 65, HEED_INVALID_ARGUMENT, "rope_offset 65 + rope_dim 0"),
    BAD(scores_stage, 4, HEED_INVALID_ARGUMENT, "scores_stage is 4"),
    BAD(scores_stage, -1, HEED_INVALID_ARGUMENT, "scores_stage is -1"),
    BAD(window_left, 4, HEED_INVALID_ARGUMENT, "without HEED_WINDOW"),
    BAD(window_left, -1, HEED_INVALID_ARGUMENT, "window_left is -1"),
    BAD(window_right, 4, HEED_INVALID_ARGUMENT, "window_right is 4"),
};

Test(problem, bad_numbers)
{
    for (size_t n = 0; n < sizeof bad_ints / sizeof *bad_ints; n++) {
        const struct bad_int *bad = &bad_ints[n];
        heed_desc desc = plain();
        memcpy((unsigned char *)&desc + bad->offset, &bad->value, sizeof bad->value);
        EXPECT(heed_desc_check(&desc), bad->status, bad->fragment);
    }
}

Test(problem, bad_floats)
{
    heed_desc desc = plain();
    desc.scale = NAN;
    EXPECT(heed_desc_check(&desc), HEED_INVALID_ARGUMENT, "scale is nan");
    desc.scale = -INFINITY;
    EXPECT(heed_desc_check(&desc), HEED_INVALID_ARGUMENT, "scale is -inf");
    desc.scale = -0.5f;
    cr_expect_eq(heed_desc_check(&desc), HEED_OK, "a negative scale is honoured");
    desc.softcap = -0.25f;
    EXPECT(heed_desc_check(&desc), HEED_INVALID_ARGUMENT, "softcap is -0.25");
    desc.softcap = NAN;
    EXPECT(heed_desc_check(&desc), HEED_INVALID_ARGUMENT, "softcap is nan");
    desc.softcap = INFINITY;
    EXPECT(heed_desc_check(&desc), HEED_INVALID_ARGUMENT, "softcap is inf");
}

Test(problem, bad_combinations)
{
    heed_desc desc = plain();
    desc.flags = HEED_WINDOW;
    desc.window_left = -2;
    EXPECT(heed_desc_check(&desc), HEED_INVALID_ARGUMENT, "window_left is -2: it must be at least -1");
    desc.window_left = 0, desc.window_right = -2;
    EXPECT(heed_desc_check(&desc), HEED_INVALID_ARGUMENT, "window_right is -2");
    desc = plain(), desc.flags = HEED_MASK_BOOL | HEED_MASK_BITS;
    EXPECT(heed_desc_check(&desc), HEED_INVALID_ARGUMENT, "HEED_MASK_BOOL and HEED_MASK_BITS");
    desc = plain(), desc.k_type = HEED_Q8_0, desc.head_dim = 80, desc.v_head_dim = 64;
    EXPECT(heed_desc_check(&desc), HEED_INVALID_ARGUMENT, "head_dim is 80: with k_type q8_0 it must be a multiple of 32");
    desc = plain(), desc.v_type = HEED_Q4_0, desc.v_head_dim = 48;
    EXPECT(heed_desc_check(&desc), HEED_INVALID_ARGUMENT, "v_head_dim is 48: with v_type q4_0");
    desc = plain(), desc.v_type = HEED_Q4_0, desc.head_dim = 72;
    EXPECT(heed_desc_check(&desc), HEED_INVALID_ARGUMENT, "head_dim is 72");
    desc = plain(), desc.flags = HEED_BIAS, desc.bias_type = HEED_I8;
    EXPECT(heed_desc_check(&desc), HEED_UNSUPPORTED, "bias_type is i8");
    desc = plain(), desc.rope_dim = 32, desc.rope_offset = 34;
    EXPECT(heed_desc_check(&desc), HEED_INVALID_ARGUMENT, "rope_offset 34 + rope_dim 32");
    desc = plain(), desc.q_type = HEED_F8_E5M2;
    EXPECT(heed_desc_check(&desc), HEED_UNSUPPORTED, "o_type is f8_e5m2");
    desc.o_type = HEED_F16;
    cr_expect_eq(heed_desc_check(&desc), HEED_OK, "%s", heed_error_message());
}

Test(problem, unknown_flags)
{
    for (int bit = 18; bit < 64; bit++) {
        char fragment[32];
        heed_desc desc = plain();
        desc.flags = UINT64_C(1) << bit;
        snprintf(fragment, sizeof fragment, "bit %d set", bit);
        EXPECT(heed_desc_check(&desc), HEED_UNSUPPORTED, fragment);
    }
    heed_desc desc = plain();
    desc.flags = 0x3ffff & ~HEED_MASK_BITS;
    desc.window_left = 3;
    cr_expect_eq(heed_desc_check(&desc), HEED_OK, "%s", heed_error_message());
}

/* ---- sizes of structs ------------------------------------------------------------------- */

Test(problem, struct_sizes)
{
    struct {
        heed_desc desc;
        unsigned char tail[64];
    } longer = {plain(), {0}};
    EXPECT(heed_desc_check(NULL), HEED_INVALID_ARGUMENT, "heed_desc is NULL");
    longer.desc.struct_size = 0;
    EXPECT(heed_desc_check(&longer.desc), HEED_INVALID_ARGUMENT, "struct_size is 0");
    longer.desc.struct_size = 7;
    EXPECT(heed_desc_check(&longer.desc), HEED_INVALID_ARGUMENT, "struct_size is 7");
    longer.desc.struct_size = (size_t)0xa5a5a5a5a5a5a5a5u;
    EXPECT(heed_desc_check(&longer.desc), HEED_INVALID_ARGUMENT, "was it initialised");
    longer.desc.struct_size = sizeof longer;
    cr_expect_eq(heed_desc_check(&longer.desc), HEED_OK, "an unknown tail of zeros is accepted");
    longer.tail[63] = 1;
    EXPECT(heed_desc_check(&longer.desc), HEED_UNSUPPORTED, "is not 0");
    longer.desc.struct_size = sizeof longer - 1;
    cr_expect_eq(heed_desc_check(&longer.desc), HEED_OK, "bytes beyond struct_size are not looked at");
}

/* A caller compiled against a shorter struct: the rest is 0, whatever lies behind it. */
Test(problem, shorter_struct)
{
    struct problem problem;
    heed_desc desc = plain();
    desc.struct_size = offsetof(heed_desc, scale);
    desc.scale = NAN;
    desc.softcap = -1;
    desc.flags = ~UINT64_C(0);
    cr_assert_eq(problem_from_desc(&desc, &problem), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(problem.scale, 0.125f);
    cr_assert_eq(problem.flags, 0);
}

/* ---- what comes out ---------------------------------------------------------------------- */

static struct problem problem_of(const char *words)
{
    heed_desc desc;
    struct problem problem;
    cr_assert_eq(heed_desc_parse(words, &desc), HEED_OK, "%s: %s", words, heed_error_message());
    cr_assert_eq(problem_from_desc(&desc, &problem), HEED_OK, "%s: %s", words, heed_error_message());
    return problem;
}

Test(problem, defaults)
{
    struct problem p = problem_of("hq6 d100");
    cr_assert(p.q_type == HEED_F32 && p.k_type == HEED_F32 && p.v_type == HEED_F32 && p.o_type == HEED_F32 && p.bias_type == HEED_F32);
    cr_assert(p.kv_heads == 6 && p.group == 1 && p.v_head_dim == 100);
    cr_assert_eq(p.scale, 0.1f);
    cr_assert(p.window_left == -1 && p.window_right == -1 && p.features == 0);
    p = problem_of("hq6 hk2 bf16 k=q8_0 o=f32 d64 dv32 bias=f16");
    cr_assert(p.q_type == HEED_BF16 && p.k_type == HEED_Q8_0 && p.v_type == HEED_BF16 && p.o_type == HEED_F32 && p.bias_type == HEED_F16);
    cr_assert(p.group == 3 && p.v_head_dim == 32);
    cr_assert_eq(p.features, HEED_BIAS | FEATURE_GQA | FEATURE_V_DIM);
    p = problem_of("scale=-0.25 d64");
    cr_assert_eq(p.scale, -0.25f);
}

Test(problem, features)
{
    static const struct {
        const char *words;
        uint64_t features;
    } each[] = {
        {"invariant topleft ropeil rope=32", 0},
        {"causal", HEED_CAUSAL},
        {"causal topleft invariant", HEED_CAUSAL},
        {"wl=-1 wr=-1", 0},
        {"wl=3", HEED_WINDOW},
        {"wr=0", HEED_WINDOW},
        {"alibi sinks mask=bool keyrange", HEED_ALIBI | HEED_SINKS | HEED_MASK_BOOL | HEED_KEY_RANGE},
        {"mask=bits lse scores=1", HEED_MASK_BITS | HEED_WRITE_LSE},
        {"scores=3", FEATURE_SUMS},
        {"keysums sumheads", FEATURE_SUMS},
        {"sumheads", 0},
        {"bias=f32 biasfirst softcap=30", HEED_BIAS | HEED_BIAS_FIRST | FEATURE_SOFTCAP},
        {"biasfirst", 0},
        {"lse lsenosink", HEED_WRITE_LSE},
        {"lse lsenosink sinks lse2", HEED_WRITE_LSE | HEED_LSE_WITHOUT_SINK | HEED_SINKS | HEED_LSE_BASE2},
        {"page=1", FEATURE_PAGED},
        {"hq4 hk4 d64 dv64", 0},
        {"hq4 hk1 d64 dv65", FEATURE_GQA | FEATURE_V_DIM},
    };
    for (size_t n = 0; n < sizeof each / sizeof *each; n++)
        cr_expect_eq(problem_of(each[n].words).features, each[n].features, "%s: %llx, not %llx", each[n].words,
                     (unsigned long long)problem_of(each[n].words).features, (unsigned long long)each[n].features);
}

/* ---- text --------------------------------------------------------------------------------- */

static bool same_desc(const heed_desc *a, const heed_desc *b) { return memcmp(a, b, sizeof *a) == 0; }
_Static_assert(sizeof(heed_desc) == sizeof(size_t) + 20 * 4 + sizeof(uint64_t), "padding could hold stray bytes");

static void check_round_trip(const heed_desc *desc)
{
    char text[512], again[512];
    heed_desc back;
    memset(&back, 0, sizeof back);
    const size_t length = heed_desc_format(desc, text, sizeof text);
    cr_assert(length < sizeof text && length == strlen(text));
    cr_assert_eq(heed_desc_parse(text, &back), HEED_OK, "%s: %s", text, heed_error_message());
    heed_desc_format(&back, again, sizeof again);
    cr_assert_str_eq(text, again);
    cr_assert(same_desc(desc, &back), "%s is another descriptor", text);
}

static heed_desc random_desc(uint64_t *state)
{
    heed_desc d;
    memset(&d, 0, sizeof d);
    d.struct_size = sizeof d;
#define PICK(n) ((int32_t)(inner_random(state) % (n)))
#define MAYBE(x) (PICK(2) ? (x) : 0)
    d.flags = inner_random(state) & 0x3ffff;
    if (d.flags & HEED_MASK_BOOL) d.flags &= ~HEED_MASK_BITS;
    d.q_type = PICK(9), d.k_type = PICK(9), d.v_type = PICK(9), d.o_type = PICK(9);
    if (d.flags & HEED_BIAS) d.bias_type = 1 + PICK(8);
    d.q_heads = PICK(200), d.kv_heads = PICK(5), d.head_dim = PICK(2000), d.v_head_dim = MAYBE(PICK(900));
    d.max_batch = MAYBE(PICK(100)), d.max_q_len = MAYBE(PICK(100000)), d.max_kv_len = MAYBE(INT32_MAX - PICK(3));
    d.scale = MAYBE((float)PICK(1000000) * 0x1p-17f - 1), d.softcap = MAYBE((float)PICK(1000) / 7);
    if (d.flags & HEED_WINDOW) d.window_left = PICK(5) - 1, d.window_right = PICK(4) - 1;
    d.page_size = MAYBE(PICK(300)), d.rope_dim = MAYBE(PICK(128)), d.rope_offset = MAYBE(PICK(64));
    if (d.flags & HEED_WRITE_SCORES) d.scores_stage = PICK(4);
    return d;
}

Test(problem, text_round_trip)
{
    uint64_t state = 12345;
    for (int n = 0; n < 20000; n++) {
        heed_desc desc = random_desc(&state);
        check_round_trip(&desc);
    }
}

Test(problem, text_by_hand)
{
    char text[200];
    heed_desc desc;
    cr_assert_eq(heed_desc_parse("  hq32 hk8\td128 f16 b8 q1 kv4096 causal softcap=30 page=16\n", &desc), HEED_OK, "%s",
                 heed_error_message());
    cr_assert(desc.q_heads == 32 && desc.kv_heads == 8 && desc.head_dim == 128 && desc.q_type == HEED_F16 && desc.max_batch == 8);
    cr_assert(desc.max_q_len == 1 && desc.max_kv_len == 4096 && desc.flags == HEED_CAUSAL && desc.softcap == 30 && desc.page_size == 16);
    heed_desc_format(&desc, text, sizeof text);
    cr_assert_str_eq(text, "hq32 hk8 d128 f16 b8 q1 kv4096 page=16 causal softcap=30");
    cr_assert_eq(heed_desc_format(&desc, text, 10), 56, "the length it would have had");
    cr_assert_str_eq(text, "hq32 hk8 ");
    cr_assert_eq(heed_desc_format(&desc, NULL, 0), 56);

    cr_assert_eq(heed_desc_parse("", &desc), HEED_OK);
    cr_assert(desc.q_heads == 1 && desc.head_dim == 64 && desc.flags == 0 && desc.q_type == HEED_TYPE_DEFAULT);
    cr_assert_eq(heed_desc_parse("wl=255 d32 d40 mask=bool mask=bits", &desc), HEED_OK);
    cr_assert(desc.window_left == 255 && desc.window_right == -1 && desc.head_dim == 40);
    cr_assert_eq(desc.flags, HEED_WINDOW | HEED_MASK_BITS, "the later wins");
}

/* A type of its own beats the type of all, in any order; q's own type is not lent to the others. */
Test(problem, text_types)
{
    static const struct {
        const char *words;
        heed_type q, k, v, o;
    } each[] = {
        {"f16", HEED_F16, HEED_F16, HEED_F16, HEED_F16},
        {"k=i8 f16", HEED_F16, HEED_I8, HEED_F16, HEED_F16},
        {"f16 k=i8", HEED_F16, HEED_I8, HEED_F16, HEED_F16},
        {"q=f32 f16", HEED_F32, HEED_F16, HEED_F16, HEED_F16},
        {"q=f16", HEED_F16, HEED_F32, HEED_F32, HEED_F32},
        {"kv=q4_0 v=q8_0", HEED_F32, HEED_Q4_0, HEED_Q8_0, HEED_F32},
        {"bf16 o=f32 kv=f8_e4m3", HEED_BF16, HEED_F8_E4M3, HEED_F8_E4M3, HEED_F32},
    };
    for (size_t n = 0; n < sizeof each / sizeof *each; n++) {
        struct problem p = problem_of(each[n].words);
        cr_expect(p.q_type == each[n].q && p.k_type == each[n].k && p.v_type == each[n].v && p.o_type == each[n].o,
                  "%s: q %s k %s v %s o %s", each[n].words, type_name(p.q_type), type_name(p.k_type), type_name(p.v_type),
                  type_name(p.o_type));
    }
}

Test(problem, text_that_is_no_descriptor)
{
    static const char *const bad[] = {"pos=17",      "ragged",       "kvlens",  "tree",  "kvfirst=100", "layout=blhd", "bcast=hq",
                                      "seed=7",      "data=huge",    "hq",      "hq1.5", "hqx",         "d-",          "d64x",
                                      "q=f64",       "bias",         "bias=x",  "kv=",   "wl=",         "wl=1e3",      "scale=",
                                      "scale=1,5",   "softcap=x",    "scores=", "mask",  "mask=u8",     "CAUSAL",      "d99999999999",
                                      "d2147483648", "b-2147483649", "f64",     "page",  "ropeoff",     "causal,",     "lse3"};
    char fragment[64];
    heed_desc desc = {.q_heads = 77};
    for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) {
        snprintf(fragment, sizeof fragment, "\"%s\"", bad[n]);
        EXPECT(heed_desc_parse(bad[n], &desc), HEED_INVALID_ARGUMENT, fragment);
        cr_assert_eq(desc.q_heads, 77, "untouched on failure");
    }
    static const char *const slips[][2] = {{"cuasal", "mean \"causal\""}, {"fp16", "mean \"f16\""}, {"CAUSAL", "mean \"causal\""},
                                           {"sink", "mean \"sinks\""},    {"hq", "number is missing"}, {"wl=", "value is missing"},
                                           {"mask=u8", "mask=bits"},        {"ragged", "doc/command.md"}, {"x", "doc/command.md"}};
    for (size_t n = 0; n < sizeof slips / sizeof *slips; n++) EXPECT(heed_desc_parse(slips[n][0], &desc), HEED_INVALID_ARGUMENT, slips[n][1]);
    EXPECT(heed_desc_parse(NULL, &desc), HEED_INVALID_ARGUMENT, "text is NULL");
    EXPECT(heed_desc_parse("d64", NULL), HEED_INVALID_ARGUMENT, "desc is NULL");
    cr_assert_eq(heed_desc_parse("b-2147483648 kv2147483647", &desc), HEED_OK);
    cr_assert(desc.max_batch == INT32_MIN && desc.max_kv_len == INT32_MAX);
}

/* A locale whose decimal point is a comma: the machine's, else one made for this test. */
static bool comma_locale(void)
{
    char folder[] = "heed-locale-XXXXXX", command[256];
    if (setlocale(LC_ALL, "de_DE.UTF-8") || setlocale(LC_ALL, "de_DE.utf8")) return true;
    if (!mkdtemp(folder)) return false;
    snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 ./%s/de_DE.UTF-8 >/dev/null 2>&1", folder);
    const bool made = system(command) >= 0;
    setenv("LOCPATH", folder, 1);
    const bool set = made && setlocale(LC_ALL, "de_DE.UTF-8");
    snprintf(command, sizeof command, "rm -r ./%s", folder);
    if (system(command)) return false;
    return set;
}

Test(problem, text_in_a_comma_locale)
{
    char text[100], control[20];
    heed_desc desc;
    uint64_t state = 99;
    if (!comma_locale()) cr_skip_test("no locale with a decimal comma here");
    snprintf(control, sizeof control, "%.1f", 1.5);
    cr_assert_str_eq(control, "1,5", "the locale is in force");
    cr_assert_eq(heed_desc_parse("scale=0.125 softcap=2.5", &desc), HEED_OK);
    cr_assert(desc.scale == 0.125f && desc.softcap == 2.5f);
    heed_desc_format(&desc, text, sizeof text);
    cr_assert_str_eq(text, "hq1 d64 scale=0.125 softcap=2.5");
    for (int n = 0; n < 2000; n++) {
        heed_desc random = random_desc(&state);
        check_round_trip(&random);
    }
    desc.softcap = -0.5f;
    EXPECT(heed_desc_check(&desc), HEED_INVALID_ARGUMENT, "softcap is -0.5");
}

/* ---- lengths -------------------------------------------------------------------------------- */

#define LENGTHS(...) (&(heed_lengths){.struct_size = sizeof(heed_lengths), __VA_ARGS__})
#define INTS(...) ((const int32_t[]){__VA_ARGS__})

Test(problem, bad_lengths)
{
    struct inner in;
    inner_begin(&in);
    cr_assert_eq(inner_problem(&in, "d64"), HEED_OK);
    in.batch.q_total = -7;
    EXPECT(inner_lengths(&in, NULL), HEED_INVALID_ARGUMENT, "heed_lengths is NULL");
    EXPECT(inner_lengths(&in, &(heed_lengths){.batch = 1}), HEED_INVALID_ARGUMENT, "struct_size is 0");
    EXPECT(inner_lengths(&in, LENGTHS(.batch = -1)), HEED_INVALID_ARGUMENT, "batch is -1");
    EXPECT(inner_lengths(&in, LENGTHS(.batch = 1, .q_len = -1)), HEED_INVALID_ARGUMENT, "q_len is -1");
    EXPECT(inner_lengths(&in, LENGTHS(.batch = 1, .kv_len = -1)), HEED_OUT_OF_BOUNDS, "kv_len is -1");
    EXPECT(inner_lengths(&in, LENGTHS(.batch = 2, .kv_lens = INTS(4, -3))), HEED_OUT_OF_BOUNDS, "kv_lens[1] is -3");
    EXPECT(inner_lengths(&in, LENGTHS(.batch = 2, .q_start = INTS(1, 2, 3))), HEED_INVALID_ARGUMENT, "q_start[0] is 1");
    EXPECT(inner_lengths(&in, LENGTHS(.batch = 2, .q_start = INTS(0, 3, 2))), HEED_INVALID_ARGUMENT,
           "q_start[2] is 2, below q_start[1] = 3");
    EXPECT(inner_lengths(&in, LENGTHS(.batch = 0, .q_start = INTS(5))), HEED_INVALID_ARGUMENT, "q_start[0] is 5");
    EXPECT(inner_lengths(&in, LENGTHS(.batch = 2, .kv_start = INTS(-1, 2, 3))), HEED_INVALID_ARGUMENT, "kv_start[0] is -1");
    EXPECT(inner_lengths(&in, LENGTHS(.batch = 2, .kv_start = INTS(0, 9, 8))), HEED_INVALID_ARGUMENT, "kv_start[2] is 8");
    EXPECT(inner_lengths(&in, LENGTHS(.batch = 2, .kv_start = INTS(0, 9, 12), .kv_lens = INTS(9, 4))), HEED_OUT_OF_BOUNDS,
           "kv_lens[1] is 4: kv_start leaves room for 3");
    cr_assert_eq(in.batch.q_total, -7, "untouched on failure");
    cr_assert_eq(in.memory.in_use, 0, "nothing is left");
    cr_assert_eq(inner_problem(&in, "d64 page=4"), HEED_OK);
    EXPECT(inner_lengths(&in, LENGTHS(.batch = 1, .kv_len = 1, .page_table_stride = 1)), HEED_INVALID_ARGUMENT, "page_table is NULL");
    EXPECT(inner_lengths(&in, LENGTHS(.batch = 1, .page_table_stride = -1)), HEED_INVALID_ARGUMENT, "page_table_stride is -1");
    EXPECT(inner_lengths(&in, LENGTHS(.batch = 2, .kv_lens = INTS(4, 9), .page_table_stride = 2, .page_table = INTS(0, 1, 2, 3))),
           HEED_OUT_OF_BOUNDS, "sequence 1 with kv_len 9 has 3 pages");
    EXPECT(inner_lengths(&in, LENGTHS(.batch = 2, .kv_lens = INTS(4, 8), .page_table_stride = 2, .page_table = INTS(0, 1, 2, -1))),
           HEED_OUT_OF_BOUNDS, "page_table[1][1] is -1");
    EXPECT(inner_lengths(&in, LENGTHS(.batch = 65536, .page_table_stride = 65536)), HEED_OUT_OF_BOUNDS, "beyond 2^31");
    cr_assert_eq(in.memory.in_use, 0, "nothing is left");
}

Test(problem, lengths_of_dense_sequences)
{
    struct inner in;
    inner_begin(&in);
    cr_assert_eq(inner_problem(&in, "d64"), HEED_OK);
    cr_assert_eq(inner_lengths(&in, LENGTHS(.batch = 3, .q_len = 2, .kv_len = 7)), HEED_OK);
    const struct sequence *s = in.batch.sequences;
    cr_assert(in.batch.batch == 3 && in.batch.q_total == 6 && in.batch.kv_total == 0 && in.batch.q_len_max == 2 &&
              in.batch.kv_len_max == 7);
    cr_assert(!in.batch.q_packed && !in.batch.kv_packed && in.batch.page_max == -1 && !in.batch.q_positions && !in.batch.page_table);
    cr_assert(s[2].q_len == 2 && s[2].kv_len == 7 && s[2].q_token == 0 && s[2].kv_token == 0 && s[2].q_index == 4 && s[2].reserved == 0);
    cr_assert(s[2].first == 0 && s[2].position == 5, "the last query stands at the last key");
    cr_assert_eq(inner_lengths(&in, LENGTHS(.batch = 2, .q_len = 5, .kv_lens = INTS(3, 0))), HEED_OK);
    s = in.batch.sequences;
    cr_assert(s[0].position == -2 && s[1].position == -5 && s[1].kv_len == 0);
    cr_assert_eq(inner_lengths(&in, LENGTHS(.batch = 2, .q_len = 5, .kv_len = 9, .q_position = INTS(-4, 20), .kv_first = INTS(0, 15))),
                 HEED_OK);
    s = in.batch.sequences;
    cr_assert(s[0].position == -4 && s[1].position == 20 && s[1].first == 15);
    cr_assert_eq(inner_lengths(&in, LENGTHS(.batch = 1, .q_len = 2, .kv_len = 9, .kv_first = INTS(100))), HEED_OK);
    cr_assert_eq(in.batch.sequences[0].position, 107);
    cr_assert_eq(inner_lengths(&in, LENGTHS(.batch = 0)), HEED_OK);
    cr_assert(in.batch.batch == 0 && in.batch.q_total == 0);
    cr_assert_eq(inner_problem(&in, "d64 topleft"), HEED_OK);
    cr_assert_eq(inner_lengths(&in, LENGTHS(.batch = 1, .q_len = 2, .kv_len = 9, .kv_first = INTS(100))), HEED_OK);
    cr_assert_eq(in.batch.sequences[0].position, 100, "query 0 stands at key 0");
    inner_end(&in);
    cr_assert_eq(in.memory.in_use, 0);
}

Test(problem, lengths_of_packed_sequences)
{
    struct inner in;
    inner_begin(&in);
    cr_assert_eq(inner_problem(&in, "d64"), HEED_OK);
    int32_t q_start[] = {0, 3, 3, 10}, positions[] = {5, 4, 3, 2, 1, 0, -1, -2, -3, -4};
    cr_assert_eq(inner_lengths(&in, LENGTHS(.batch = 3, .q_len = 99, .q_start = q_start, .kv_start = INTS(0, 0, 20, 31),
                                            .kv_lens = INTS(0, 5, 11), .q_positions = positions)),
                 HEED_OK, "%s", heed_error_message());
    q_start[1] = 9, positions[9] = 77; /* the arrays were copied */
    const struct sequence *s = in.batch.sequences;
    cr_assert(in.batch.q_packed && in.batch.kv_packed && in.batch.q_total == 10 && in.batch.kv_total == 31);
    cr_assert(in.batch.q_len_max == 7 && in.batch.kv_len_max == 11);
    cr_assert(s[0].q_len == 3 && s[1].q_len == 0 && s[2].q_len == 7 && s[2].q_token == 3 && s[2].q_index == 3);
    cr_assert(s[0].kv_len == 0 && s[1].kv_len == 5 && s[2].kv_len == 11 && s[1].kv_token == 0 && s[2].kv_token == 20);
    cr_assert(s[0].reserved == 1 && in.batch.q_positions[9] == -4);
    inner_end(&in);
    cr_assert_eq(in.memory.in_use, 0);
}

Test(problem, lengths_of_paged_sequences)
{
    struct inner in;
    inner_begin(&in);
    cr_assert_eq(inner_problem(&in, "d64 page=4"), HEED_OK);
    const int32_t table[] = {7, 2, INT32_MAX, 9, 9, INT32_MIN, 3}; /* entries past the length are never read, nor the last row's end */
    cr_assert_eq(inner_lengths(&in, LENGTHS(.batch = 3, .q_len = 1, .kv_lens = INTS(8, 6, 1), .page_table_stride = 3, .page_table = table)),
                 HEED_OK, "%s", heed_error_message());
    cr_assert(in.batch.page_max == 9 && in.batch.page_max_tokens == 4 && in.batch.page_table_stride == 3);
    cr_assert(in.batch.sequences[1].first_page == 3 && in.batch.page_table[4] == 9 && in.batch.page_table[6] == 3);
    cr_assert_eq(inner_lengths(&in, LENGTHS(.batch = 1, .q_len = 1, .kv_len = 6, .page_table_stride = 2, .page_table = table)), HEED_OK);
    cr_assert(in.batch.page_max == 7 && in.batch.page_max_tokens == 4);
    cr_assert_eq(inner_lengths(&in, LENGTHS(.batch = 1, .q_len = 1, .kv_len = 6, .page_table_stride = 2, .page_table = INTS(0, 5))),
                 HEED_OK);
    cr_assert(in.batch.page_max == 5 && in.batch.page_max_tokens == 2);
    cr_assert_eq(inner_lengths(&in, LENGTHS(.batch = 2, .q_len = 1)), HEED_OK, "no keys, no table: %s", heed_error_message());
    cr_assert_eq(in.batch.page_max, -1);
    /* lengths from kv_start, keys from pages: not packed */
    cr_assert_eq(
        inner_lengths(&in, LENGTHS(.batch = 1, .q_len = 1, .kv_start = INTS(0, 5), .page_table_stride = 2, .page_table = INTS(1, 0))),
        HEED_OK);
    cr_assert(!in.batch.kv_packed && in.batch.sequences[0].kv_len == 5 && in.batch.kv_total == 0);
    inner_end(&in);
}

/* The n-th allocation fails, for every n until none is left to fail. */
Test(problem, lengths_without_memory)
{
    struct inner in;
    int failures = 0;
    inner_begin(&in);
    cr_assert_eq(inner_problem(&in, "d64 page=4"), HEED_OK);
    for (;; failures++) {
        in.memory.allowed = failures;
        heed_status status = lengths_take(
            &in.services, &in.plan.problem,
            LENGTHS(.batch = 1, .q_len = 2, .kv_len = 6, .q_positions = INTS(1, 2), .page_table_stride = 2, .page_table = INTS(0, 5)),
            &in.batch);
        if (status == HEED_OK) break;
        cr_assert_eq(status, HEED_OUT_OF_MEMORY);
        cr_assert(strstr(heed_error_message(), "bytes failed"), "%s", heed_error_message());
        cr_assert_eq(in.memory.in_use, 0, "nothing is left after failure %d", failures);
    }
    cr_assert_eq(failures, 3);
    inner_end(&in);
    cr_assert_eq(in.memory.in_use, 0);
}

/* ---- statuses ---------------------------------------------------------------------------------- */

Test(problem, statuses_have_names)
{
    for (int s = 0; s <= HEED_INTERNAL; s++) {
        cr_assert_str_neq(heed_status_string((heed_status)s), "unknown status");
        for (int t = 0; t < s; t++) cr_assert_str_neq(heed_status_string((heed_status)s), heed_status_string((heed_status)t));
    }
    cr_assert_str_eq(heed_status_string((heed_status)99), "unknown status");
    cr_assert_str_eq(heed_status_string((heed_status)-1), "unknown status");
    cr_assert_eq(heed_version(), HEED_VERSION_MAJOR * 10000 + HEED_VERSION_MINOR * 100 + HEED_VERSION_PATCH);
}
