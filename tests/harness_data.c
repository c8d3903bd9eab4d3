/* SPDX-License-Identifier: MIT
 * harness_data.c - the numbers in a problem: seeded, the same on every machine, row by row, so that two layouts of one problem hold the
 * same rows. No libm: a normal value is a sum of four uniform ones.
 */
#include "dtype.h"
#include "harness_parts.h"
#include <string.h>

uint64_t random_bits(struct random *random)
{
    uint64_t x = random->state += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

int32_t random_below(struct random *random, int32_t n) { return (int32_t)(random_bits(random) % (uint64_t)n); }

double random_unit(struct random *random) { return (double)(random_bits(random) >> 11) * 0x1p-53; }

/* Irwin-Hall: four uniform numbers of 16 bits, mean 2, variance 1/3. */
double random_normal(struct random *random)
{
    uint64_t x = random_bits(random);
    double sum = (double)((x & 0xFFFF) + (x >> 16 & 0xFFFF) + (x >> 32 & 0xFFFF) + (x >> 48)) / 65536.0;
    return (sum - 2.0) * 1.7320508075688772;
}

uint64_t hash_of(uint64_t seed, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    struct random random = {seed};
    const uint64_t words[4] = {a, b, c, d};
    for (int n = 0; n < 4; n++) random.state = random_bits(&random) ^ (words[n] * UINT64_C(0xD6E8FEB86659FD93));
    return random_bits(&random);
}

/* A value whose representation is denormal, or as small as the type goes. */
static float tiny_of(heed_type type)
{
    switch (type) {
    case HEED_F16: return 0x1p-18f;
    case HEED_F8_E4M3: return 0x1p-8f;
    case HEED_F8_E5M2: return 0x1p-15f;
    case HEED_Q8_0:
    case HEED_Q4_0: return 0x1p-10f;
    default: return 0x1p-132f;
    }
}

/* Direction shared by every q and k of data=spike. */
static float direction(uint64_t seed, int32_t d) { return hash_of(seed, 77, (uint64_t)d, 0, 0) & 1 ? 1.0f : -1.0f; }

/* Logits rise with every key where b is even (the running maximum changes each time) and fall where it is odd; the newest key dominates. */
static void spike_row(const struct problem_line *line, enum role role, int32_t b, int32_t token, int32_t tokens, float *to, int32_t n)
{
    float place = tokens > 1 ? (float)token / (float)(tokens - 1) : 1.0f;
    float size = role == ROLE_Q ? 1.0f : 2.0f * (b % 2 ? 1 - place : place);
    if (role == ROLE_K && token == tokens - 1) size = 4.0f;
    for (int32_t d = 0; d < n; d++) to[d] = to[d] * 0.05f + size * direction(line->seed, d);
}

void data_row(const struct problem_line *line, enum role role, heed_type type, int32_t b, int32_t h, int32_t token, int32_t tokens, float *to,
              int32_t n)
{
    const bool equal = line->data == DATA_EQUAL && role == ROLE_K;
    struct random random = {hash_of(line->seed, role, (uint64_t)b, (uint64_t)h, equal ? 0 : (uint64_t)token)};
    for (int32_t d = 0; d < n; d++) to[d] = (float)random_normal(&random);
    switch (line->data) {
    case DATA_HUGE:
        for (int32_t d = 0; d < n; d++) to[d] *= role == ROLE_V ? 1000.0f : d == 3 && role == ROLE_Q ? 1000.0f : 64.0f;
        break;
    case DATA_SPIKE:
        if (role != ROLE_V) spike_row(line, role, b, token, tokens, to, n);
        break;
    case DATA_DENORMAL:
        if (role != ROLE_Q)
            for (int32_t d = 0; d < n; d++) to[d] *= tiny_of(type);
        break;
    case DATA_ONEHOT: /* q = 0, so every visible key weighs the same; v[j] says which key it is */
        if (role == ROLE_Q) memset(to, 0, (size_t)n * sizeof *to);
        if (role == ROLE_V)
            for (int32_t d = 0; d < n; d++) to[d] = d == token % n;
        break;
    default: break;
    }
}
