/* SPDX-License-Identifier: MIT
 * python.c - peers that live in Python packages: one child process for the whole bench, spoken to in lines over two pipes (the words are in
 * the head of python_peers.py). The child times its own runs, so that the pipe costs it nothing; arrays go through files. A child that dies
 * or keeps silent is a peer that failed, never a bench that hangs.
 */
#include "internal.h"
#include "peers.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 16384 /* 500 times, and more */, MOST_PYTHON = 8, PATIENCE_MS = 180000 };

static struct {
    pid_t pid;
    int to, from;
    char line[LINE], left[LINE];
    size_t left_bytes;
    struct peer peer[MOST_PYTHON];
    char name[MOST_PYTHON][64], version[MOST_PYTHON][200], absent[MOST_PYTHON][200], setting[MOST_PYTHON][100];
    int count;
    char folder[256];
    const struct instance *instance; /* whose arrays lie in the folder, and its line: a freed instance's place is used again */
    char text[LINE_BYTES];
} child;

static const char *setting_of(const char *name, const char *built_in)
{
    const char *value = getenv(name);
    return value && *value ? value : built_in;
}

/* ---- lines ------------------------------------------------------------------ */

static void child_kill(void)
{
    if (!child.pid) return;
    kill(child.pid, SIGKILL);
    waitpid(child.pid, NULL, 0);
    close(child.to);
    close(child.from);
    child.pid = 0;
}

static bool say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static bool say(const char *format, ...)
{
    char text[LINE];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (!child.pid || length < 0 || length >= LINE) return false;
    for (int done = 0; done < length;) {
        const ssize_t n = write(child.to, text + done, (size_t)(length - done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        done += (int)n;
    }
    return true;
}

/* The next line into child.line, without its end. false: the child is dead, silent or talks nonsense; it is gone then. */
static bool hear(void)
{
    for (;;) {
        char *end = memchr(child.left, '\n', child.left_bytes);
        if (end) {
            const size_t length = (size_t)(end - child.left);
            memcpy(child.line, child.left, length);
            child.line[length] = 0;
            child.left_bytes -= length + 1;
            memmove(child.left, end + 1, child.left_bytes);
            return true;
        }
        struct pollfd ready = {.fd = child.from, .events = POLLIN};
        const int polled = child.pid ? poll(&ready, 1, PATIENCE_MS) : 0;
        if (polled < 0 && errno == EINTR) continue;
        const ssize_t n = polled > 0 && child.left_bytes < LINE ? read(child.from, child.left + child.left_bytes, LINE - child.left_bytes) : 0;
        if (n <= 0) break;
        child.left_bytes += (size_t)n;
    }
    child_kill();
    return false;
}

/* One question, one answer: "ok REST" or "error WHY". NULL, or why not; *rest is what stands behind "ok". */
static const char *answer(bool said, const char **rest)
{
    if (!said || !hear()) return "the Python process died or kept silent";
    *rest = strchr(child.line, '\t') ? strchr(child.line, '\t') + 1 : "";
    return strncmp(child.line, "ok", 2) ? *rest : NULL;
}

/* ---- the child -------------------------------------------------------------------- */

static bool start(int threads)
{
    const char *python = setting_of("HEED_PEERS_PYTHON", HEED_PEERS_FOLDER "/.peers/python/bin/python");
    const char *script = setting_of("HEED_PEERS_SCRIPT", HEED_PEERS_FOLDER "/bench/peers/python_peers.py");
    int to[2], from[2];
    char number[16];
    snprintf(number, sizeof number, "%d", threads);
    if (pipe(to)) return false;
    if (pipe(from)) return close(to[0]), close(to[1]), false;
    const pid_t pid = fork();
    if (pid == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        close(to[0]), close(to[1]), close(from[0]), close(from[1]);
        setenv("OMP_NUM_THREADS", number, 1); /* before any library starts its threads */
        setenv("MKL_NUM_THREADS", number, 1);
        execlp(python, python, script, number, (char *)NULL);
        _exit(127);
    }
    close(to[0]), close(from[1]);
    if (pid < 0) return close(to[1]), close(from[0]), false;
    child.pid = pid;
    child.to = to[1];
    child.from = from[0];
    child.left_bytes = 0;
    signal(SIGPIPE, SIG_IGN); /* a dead child is a failed write */
    return true;
}

/* ---- arrays ------------------------------------------------------------------- */

/* Rows of one tensor in the order (b, h, token, d), dense, in the tensor's own type. */
static bool save(const char *name, const heed_tensor *t, heed_type type, int32_t batch, int32_t heads, int32_t tokens, int32_t dim)
{
    char path[320];
    const size_t element = type == HEED_F32 ? 4 : 2;
    snprintf(path, sizeof path, "%s/%s", child.folder, name);
    FILE *file = fopen(path, "wb");
    if (!file) return false;
    bool good = true;
    for (int32_t b = 0; b < batch; b++)
        for (int32_t h = 0; h < heads; h++)
            for (int32_t i = 0; i < tokens; i++) {
                const int64_t at = t->offset + b * t->batch_stride + h * t->head_stride + i * t->token_stride;
                good = good && fwrite((const char *)t->data + at * (int64_t)element, element, (size_t)dim, file) == (size_t)dim;
            }
    return fclose(file) == 0 && good;
}

static void folder_remove(void)
{
    static const char *const names[] = {"q", "k", "v", "o"};
    char path[320];
    for (size_t n = 0; child.folder[0] && n < sizeof names / sizeof names[0]; n++) {
        snprintf(path, sizeof path, "%s/%s", child.folder, names[n]);
        unlink(path);
    }
    if (child.folder[0]) rmdir(child.folder);
    child.folder[0] = 0;
}

static const char *type_word(heed_type type)
{
    return type == HEED_F32 ? "f32" : type == HEED_F16 ? "f16" : type == HEED_BF16 ? "bf16" : NULL;
}

/* After a death: the same peers again, so their introductions are passed over. */
static bool revive(int threads)
{
    if (child.pid) return true;
    child.instance = NULL;
    if (!start(threads)) return false;
    while (hear())
        if (!strcmp(child.line, "end")) return true;
    return false;
}

static const char *give(const struct instance *in, int threads)
{
    const struct problem *p = &in->problem;
    const char *rest;
    const bool given = child.instance == in && !strcmp(child.text, in->line.text);
    if (given) return child.pid ? NULL : "its process died";
    child.instance = NULL;
    if (!revive(threads)) return "the Python process does not start again";
    if (!child.folder[0]) {
        snprintf(child.folder, sizeof child.folder, "%s/heed-peers-XXXXXX", setting_of("TMPDIR", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm"));
        if (!mkdtemp(child.folder)) return child.folder[0] = 0, "no folder for the arrays";
    }
    if (!save("q", &in->tensors.q, p->q_type, in->line.batch, p->q_heads, in->line.q_len, p->head_dim) ||
        !save("k", &in->tensors.k, p->k_type, in->line.batch, p->kv_heads, in->line.kv_len, p->head_dim) ||
        !save("v", &in->tensors.v, p->v_type, in->line.batch, p->kv_heads, in->line.kv_len, p->v_head_dim))
        return "the arrays could not be written";
    const char *why = answer(say("problem\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%.9g\t%d\n", child.folder, type_word(p->q_type),
                                 in->line.batch, p->q_heads, p->kv_heads, in->line.q_len, in->line.kv_len, p->head_dim, p->v_head_dim,
                                 p->flags & HEED_CAUSAL ? p->flags & HEED_TOP_LEFT ? 2 : 1 : 0, (double)p->scale, threads), &rest);
    if (why) return why;
    child.instance = in;
    snprintf(child.text, sizeof child.text, "%s", in->line.text);
    return NULL;
}

/* ---- the peer ------------------------------------------------------------------- */

static const char *absent(const struct peer *self) { return child.absent[self->number][0] ? child.absent[self->number] : NULL; }
static const char *version(const struct peer *self) { return child.version[self->number]; }
static const char *setting(const struct peer *self) { return child.setting[self->number]; }

static const char *refuses(const struct peer *self, const struct instance *instance)
{
    const struct problem *p = &instance->problem;
    (void)self;
    if (!type_word(p->q_type) || p->k_type != p->q_type || p->v_type != p->q_type) return "one type for q, k and v: f32, f16 or bf16";
    if (p->page_size || instance->line.ragged || instance->line.kvlens || instance->line.tree || instance->line.pos_given ||
        instance->line.kvfirst_given)
        return "dense sequences of equal lengths only";
    if ((p->flags & ~(HEED_CAUSAL | HEED_INVARIANT)) || p->softcap != 0) return "causal is all it is asked for";
    return NULL;
}

static const char *begin(const struct peer *self, const struct services *services, const struct instance *instance)
{
    const char *rest, *why = give(instance, services->threads.workers);
    if (!why) why = answer(say("begin\t%s\n", self->name), &rest);
    if (!why) snprintf(child.setting[self->number], sizeof child.setting[0], "%s", rest);
    return why && !strcmp(why, peer_cannot) ? peer_cannot : why;
}

static const char *run(const struct peer *self, float *o, int count, double *seconds)
{
    (void)o;
    const char *rest, *why = answer(say("run\t%s\t%d\n", self->name, count), &rest);
    for (int n = 0; !why && n < count; n++) {
        char *end;
        seconds[n] = strtod(rest, &end);
        if (end == rest || !(seconds[n] > 0)) why = "the Python process reported no time";
        rest = end;
    }
    return why;
}

static const char *fetch(const struct peer *self, float *o)
{
    const struct instance *in = child.instance;
    const heed_tensor *t = &in->tensors.o;
    char path[320];
    const char *rest, *why = answer(say("result\t%s\n", self->name), &rest);
    if (why) return why;
    snprintf(path, sizeof path, "%s/o", child.folder);
    FILE *file = fopen(path, "rb");
    if (!file) return "the Python process wrote no result";
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t h = 0; h < in->problem.q_heads; h++)
            for (int32_t i = 0; i < in->line.q_len; i++) {
                float *row = o + t->offset + b * t->batch_stride + h * t->head_stride + i * t->token_stride;
                if (!why && fread(row, sizeof *row, (size_t)in->problem.v_head_dim, file) != (size_t)in->problem.v_head_dim)
                    why = "its result is too short";
            }
    fclose(file);
    return why;
}

static bool on_heed_threads(const struct peer *self)
{
    (void)self;
    return false;
}

static void end(const struct peer *self)
{
    const char *rest;
    answer(say("end\t%s\n", self->name), &rest);
}

static struct peer *add(const char *name)
{
    const int n = child.count;
    if (n == MOST_PYTHON) return NULL;
    snprintf(child.name[n], sizeof child.name[n], "%s", name);
    child.peer[n] = (struct peer){child.name[n], absent, version, refuses, begin, run, fetch, setting, on_heed_threads, end, n};
    child.absent[n][0] = 0;
    child.count++;
    return &child.peer[n];
}

static void all_absent(const char *why)
{
    static const char *const names[] = {"pytorch", "onnxruntime", "openvino"};
    for (int n = 0; n < 3; n++) {
        const struct peer *peer = add(names[n]);
        if (peer) snprintf(child.absent[peer->number], sizeof child.absent[0], "%s", why);
    }
}

/* "peer NAME VERSION" or "absent NAME WHY" until "end". */
static bool introduce(void)
{
    while (hear()) {
        char *name = strchr(child.line, '\t'), *text = name ? strchr(name + 1, '\t') : NULL;
        if (!strcmp(child.line, "end")) return true;
        if (!text) continue;
        *text++ = 0;
        const struct peer *peer = add(name + 1);
        if (!peer) continue;
        const bool here = !strncmp(child.line, "peer\t", 5);
        snprintf(here ? child.version[peer->number] : child.absent[peer->number], sizeof child.absent[0], "%s", text);
    }
    return false;
}

void python_open(const struct peer *list[MOST_PEERS + 1], int *count, int threads)
{
    const char *python = setting_of("HEED_PEERS_PYTHON", HEED_PEERS_FOLDER "/.peers/python/bin/python");
    if (strchr(python, '/') && access(python, X_OK)) all_absent("not installed (script/peers does it)");
    else if (!start(threads) || !introduce()) {
        child_kill();
        if (!child.count) all_absent("the Python process did not start");
    }
    for (int n = 0; n < child.count && *count < MOST_PEERS; n++) list[(*count)++] = &child.peer[n];
}

double python_cpu_seconds(void)
{
    clockid_t clock;
    struct timespec used;
    if (!child.pid || clock_getcpuclockid(child.pid, &clock) || clock_gettime(clock, &used)) return 0;
    return (double)used.tv_sec + 1e-9 * (double)used.tv_nsec;
}

void python_close(void)
{
    if (child.pid) {
        close(child.to); /* end of file: it leaves by itself, or is made to */
        for (int n = 0; n < 50 && waitpid(child.pid, NULL, WNOHANG) == 0; n++) usleep(20000);
        child.to = -1;
        if (kill(child.pid, 0) == 0) kill(child.pid, SIGKILL), waitpid(child.pid, NULL, 0);
        close(child.from);
        child.pid = 0;
    }
    folder_remove();
    child.count = 0;
    child.instance = NULL;
}
