/* SPDX-License-Identifier: MIT
 * tuning_file.c - tile sizes that somebody measured on his device, read from the file that HEED_TUNING names. They go the way of all rows:
 * a probe has to give right answers with them, so a bad line costs speed and never a result.
 *
 *     # a family or a device's name in quotes, then what differs from the built-in line
 *     "pocl-cpu" rows=6 vectors=4 wgx=2 wgy=16 lanerows=4 lanecolumns=1 lanevector=16 lanes=1 guard=1 limit=20
 *     "nvidia" wgx=16 wgy=8 lanerows=8 lanevector=4 reads=2 qslice=8 vslice=8 local=96
 *     "nvidia" matrix=2 mrows=64 mkeys=64 mwarps=4 mslots=3 mlocal=1
 */
#include "cl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 1024, VALUE_LIMIT = 4096 };

/* name=N at *text; moves behind it. False at the end or at what is no such word. */
static bool take_word(const char **text, char *name, size_t capacity, long *value)
{
    const char *at = *text + strspn(*text, " \t\r\n");
    const size_t length = strcspn(at, "= \t\r\n");
    if (at[length] != '=' || length == 0 || length >= capacity) return false;
    char *end;
    memcpy(name, at, length);
    name[length] = '\0';
    *value = strtol(at + length + 1, &end, 10);
    if (end == at + length + 1 || *value < 0 || *value > VALUE_LIMIT) return false;
    *text = end;
    return true;
}

static bool apply(struct cl_tuning *tuning, const char *name, int32_t value)
{
    const struct { const char *name; int32_t *field;
    } fields[] = {{"vector", &tuning->vector},
                  {"rows", &tuning->tile_rows},
                  {"vectors", &tuning->tile_vectors},
                  {"wgx", &tuning->wg_x},
                  {"wgy", &tuning->wg_y},
                  {"lanerows", &tuning->lane_rows},
                  {"lanecolumns", &tuning->lane_columns},
                  {"lanevector", &tuning->lane_vector},
                  {"reads", &tuning->tile_reads},
                  {"qslice", &tuning->tile_q_slice},
                  {"vslice", &tuning->tile_v_slice},
                  {"local", &tuning->local_kib},
                  {"lanes", &tuning->lanes},
                  {"limit", &tuning->limit},
                  {"matrix", &tuning->matrix},
                  {"mrows", &tuning->matrix_rows},
                  {"mkeys", &tuning->matrix_keys},
                  {"mwarps", &tuning->matrix_warps},
                  {"mslots", &tuning->matrix_slots},
                  {"mlocal", &tuning->matrix_local},
                  {"gkeys", &tuning->group_keys},
                  {"gslots", &tuning->group_slots},
                  {"mlike", &tuning->matrix_like},
                  {"sglanes", &tuning->group_lanes},
                  {"sgrows", &tuning->group_rows},
                  {"sgemulated", &tuning->group_emulated}};
    if (!strcmp(name, "guard")) {
        tuning->loop_guard = value != 0;
        return true;
    }
    for (size_t n = 0; n < sizeof fields / sizeof *fields; n++)
        if (!strcmp(name, fields[n].name)) {
            *fields[n].field = value;
            return true;
        }
    return false;
}

/* Behind the name in quotes, if the line is about this family or device; else NULL. */
static const char *about(const char *line, const char *family, const char *device)
{
    const char *begin = line + strspn(line, " \t");
    const char *end = *begin == '"' ? strchr(begin + 1, '"') : NULL;
    if (!end) return NULL;
    const size_t length = (size_t)(end - begin - 1);
    const bool ours = (strlen(family) == length && !strncmp(begin + 1, family, length)) ||
                      (strlen(device) == length && !strncmp(begin + 1, device, length));
    return ours ? end + 1 : NULL;
}

void cl_tuning_read(const struct services *services, const char *device, struct cl_tuning *tuning)
{
    char line[LINE_BYTES], name[32];
    FILE *file = services->tuning_file ? fopen(services->tuning_file, "re") : NULL;
    if (!file) {
        if (services->tuning_file) log_line(services, 1, "tuning file %s cannot be read", services->tuning_file);
        return;
    }
    for (int number = 1; fgets(line, sizeof line, file); number++) {
        const char *rest = about(line, tuning->family, device);
        struct cl_tuning next = *tuning;
        bool good = true;
        long value;
        while (rest && good && rest[strspn(rest, " \t\r\n")])
            good = take_word(&rest, name, sizeof name, &value) && apply(&next, name, (int32_t)value);
        if (!good)
            log_line(services, 1, "tuning file %s, line %d is not used: it is no list of known words with numbers", services->tuning_file,
                     number);
        else
            *tuning = next;
    }
    fclose(file);
    /* groups of no work-items would be no groups, and no time to probe would refuse every row */
    const struct cl_tuning *built_in = cl_tuning_named(tuning->family);
    int32_t *const sizes[] = {&tuning->wg_x,         &tuning->wg_y,        &tuning->lane_rows,
                              &tuning->lane_columns, &tuning->lane_vector, &tuning->lanes, &tuning->limit};
    const int32_t defaults[] = {built_in->wg_x,         built_in->wg_y,        built_in->lane_rows,
                                built_in->lane_columns, built_in->lane_vector, built_in->lanes, built_in->limit};
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++)
        if (*sizes[n] < 1) *sizes[n] = defaults[n];
}
