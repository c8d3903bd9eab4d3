/* SPDX-License-Identifier: MIT
 * explore_lessons.c - the lesson in seven steps. Each begins with numbers small enough to be followed by hand; the last is a real capture.
 * The terminal and the page (web/) tell the same lesson; only how things are moved differs.
 */
#include "explore_lessons.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct lesson lessons[] = {
    {"alignment",
     "The dot product of two arrows is |q| |k| cos(angle): large when they point the same way, and larger for longer arrows.",
     "Turn q with + and -: every key's score moves, and softmax turns the scores into weights that sum to 1.",
     "Drag the query's tip: every score moves, and softmax turns the scores into weights that sum to 1."},
    {"negative",
     "More than a right angle between two arrows makes their dot product negative: they disagree. "
     "Softmax makes that a small weight, but never zero.",
     "Press ! to negate a number and see the order turn around.",
     "Drag the query to the other side and see the order turn around."},
    {"perpendicular",
     "At right angles the dot product is 0: nothing in common. A score of 0 is no weight of 0: e^0 = 1, "
     "so a perpendicular key still gets more than one that disagrees.",
     "With q = 0 (press 0) all weights are equal.",
     "With q = 0 all weights are equal."},
    {"scaling",
     "Sums of many products grow with their number: here 16. Dividing by sqrt(16) = 4 keeps the softmax from picking one winner alone.",
     "Press s to switch the scaling off and on, and watch the weights.",
     "Switch the scaling off and on, and watch the weights."},
    {"causal mask",
     "A word may look back only: with the causal mask query i sees keys 0 to i, hidden ones get no weight at all.",
     "Press c to switch the mask, Tab for the next query. The first word can only attend to itself.",
     "Choose another query: the first word can only attend to itself."},
    {"temperature",
     "Scores divided by T before the softmax: T below 1 sharpens to the best key, T above 1 flattens to the mean. "
     "The same lever as in sampling; scaling by 1 / sqrt(d) is a temperature, too.",
     "Press t and T.",
     "Move the slider of the temperature."},
    {"capture",
     "A real layer: q, k and v of all-MiniLM-L6-v2, 4 of its heads. In head 0 the query `it` looks at `animal`.",
     "[ and ] change the head, Tab the query, m shows the map, o sorts keys by weight. That is what attention is for.",
     "Choose another head and another query, or point at the map. That is what attention is for."},
};
enum { LESSONS = sizeof lessons / sizeof *lessons, WORDS = 6 };

int explore_lesson_count(void) { return LESSONS; }
const struct lesson *explore_lesson(int n) { return &lessons[n]; }

const char *explore_lesson_text(int n, bool page, char text[LESSON_BYTES])
{
    snprintf(text, LESSON_BYTES, "%s %s", lessons[n].text, page ? lessons[n].hands : lessons[n].keys);
    return text;
}

/* Arrows in the plane: the first three steps. */
struct plane {
    const char *q_labels[3], *k_labels[4];
    float q[3][2], k[4][2], v[4][2];
};

static const struct plane planes[3] = {
    {{"q0", "q1", "q2"}, {"same", "near", "longer", "aside"}, {{2, 1}, {1, 2}, {0, 1}}, {{2, 1}, {1, 1}, {4, 2}, {1, -1}}, {{1, 0}, {0, 1}, {1, 1}, {-1, 0}}},
    {{"q0", "q1", "q2"}, {"same", "opposed", "half", "against"}, {{1, 1}, {-1, -1}, {2, 0}}, {{1, 1}, {-1, -1}, {1, 0}, {-2, 0}}, {{1, 0}, {0, 1}, {1, 1}, {-1, 0}}},
    {{"q0", "q1", "q2"}, {"same", "left", "right", "opposed"}, {{2, 0}, {0, 2}, {1, 1}}, {{1, 0}, {0, 1}, {0, -1}, {-1, 0}}, {{1, 0}, {0, 1}, {0, -1}, {-1, 0}}},
};

/* The words of `heed show`: thing, deed, link, self. A word's key says what it is, its query what it looks for. */
static const char *const words[WORDS] = {"the", "cat", "slept", "and", "it", "purred"};
static const float words_k[WORDS][4] = {{0, 0, 0, 2}, {3, 0, 0, 0}, {0, 3, 0, 0}, {0, 0, 3, 0}, {1, 0, 0, 1}, {0, 3, 0, 1}};
static const float words_q[WORDS][4] = {{0, 0, 0, 2}, {1, 0, 0, 1}, {2, 0, 0, 0}, {0, 2, 0, 0}, {3, 0, 0, 0}, {2, 0, 1, 0}};
static const float words_v[WORDS][4] = {{0, 0, 0, 1}, {1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}, {0, 1, 0, 0}};

static bool name(struct explore *explore, const char *const *q_labels, const char *const *k_labels)
{
    explore->q_labels = calloc((size_t)explore->queries, sizeof *explore->q_labels);
    explore->k_labels = calloc((size_t)explore->keys, sizeof *explore->k_labels);
    bool good = explore->q_labels && explore->k_labels;
    for (int32_t n = 0; good && n < explore->queries; n++) good = (explore->q_labels[n] = strdup(q_labels[n])) != NULL;
    for (int32_t n = 0; good && n < explore->keys; n++) good = (explore->k_labels[n] = strdup(k_labels[n])) != NULL;
    if (!good) explore_free(explore);
    return good;
}

static bool load_plane(struct explore *explore, const struct plane *plane)
{
    if (!explore_shape(explore, 3, 4, 1, 1, 2, 2) || !name(explore, plane->q_labels, plane->k_labels)) return false;
    memcpy(explore->q, plane->q, sizeof plane->q);
    memcpy(explore->k, plane->k, sizeof plane->k);
    memcpy(explore->v, plane->v, sizeof plane->v);
    return true;
}

static bool load_words(struct explore *explore)
{
    if (!explore_shape(explore, WORDS, WORDS, 1, 1, 4, 4) || !name(explore, words, words)) return false;
    memcpy(explore->q, words_q, sizeof words_q);
    memcpy(explore->k, words_k, sizeof words_k);
    memcpy(explore->v, words_v, sizeof words_v);
    return true;
}

/* Sixteen dimensions of about +-2, every key a little more like the query than the one before. */
static bool load_wide(struct explore *explore)
{
    static const char *const q_labels[3] = {"q0", "q1", "q2"}, *const k_labels[4] = {"k0", "k1", "k2", "k3"};
    if (!explore_shape(explore, 3, 4, 1, 1, 16, 2) || !name(explore, q_labels, k_labels)) return false;
    for (int32_t d = 0; d < 16; d++) {
        const float wave = roundf(20 * sinf(1.7f * (float)d + 0.4f)) / 10;
        for (int32_t i = 0; i < 3; i++) explore_row(explore, PART_Q, i)[d] = i == 0 ? wave : roundf(20 * sinf(1.7f * (float)d + 0.4f + (float)i)) / 10;
        for (int32_t j = 0; j < 4; j++) explore_row(explore, PART_K, j)[d] = roundf(10 * sinf(1.7f * (float)d + 1.6f - 0.3f * (float)j)) / 10;
    }
    for (int32_t j = 0; j < 4; j++) explore_row(explore, PART_V, j)[j % 2] = j < 2 ? 1 : -1;
    return true;
}

bool explore_load_lesson(struct explore *explore, int n)
{
    const bool good = n < 3 ? load_plane(explore, &planes[n]) : n == 3 ? load_wide(explore) : load_words(explore);
    if (!good) return false;
    explore->causal = n == 4;
    explore->cursor.query = n >= 4 ? 4 : 0; /* `it` */
    return true;
}
