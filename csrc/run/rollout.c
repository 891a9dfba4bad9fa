#include "run/rollout.h"

#include <stdlib.h>

#include "base/base.h"

enum {
    SLOTS_MAX = 4096,
    LOOKAHEAD_MAX = 64,
    STOP_TAIL = 256,          /* bytes of text that are searched for stop strings: the longest stop string */
};

/* -- request ------------------------------------------------------------------------------------------------------- */

static int check_ids(const char *what, const int32_t *ids, int n, int vocab_size) {
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= vocab_size)
            return fail(E_CONFIG, "%s id %d is outside the vocabulary of %d", what, (int)ids[i], vocab_size);
    return OK;
}

/* Something must be left to draw when forbidden ids, and early on the stop ids, are out. */
static int check_choice(const struct rollout_request *q, int vocab_size) {
    if (q->n_forbidden + q->n_stop < vocab_size) return OK;
    uint8_t *out = calloc((size_t)vocab_size, 1);
    if (!out) return fail(E_MEMORY, "no memory for a vocabulary of %d", vocab_size);
    int left = vocab_size;
    for (int i = 0; i < q->n_forbidden; i++) left -= !out[q->forbidden_ids[i]], out[q->forbidden_ids[i]] = 1;
    for (int i = 0; i < q->n_stop && q->min_new_tokens; i++) left -= !out[q->stop_ids[i]], out[q->stop_ids[i]] = 1;
    free(out);
    return left ? OK : fail(E_CONFIG, "forbidden_ids leave no token to draw");
}

static int check_sampler(const struct sampler *s) {
    if (!(s->temperature >= 0))
        return fail(E_CONFIG, "temperature is %g, must be 0 (greedy) or positive", (double)s->temperature);
    float inverse;
    if (s->temperature > 0) TRY(inverse_temperature(&inverse, s->temperature));
    if (!(s->top_p > 0 && s->top_p <= 1)) return fail(E_CONFIG, "top_p is %g, must be in (0, 1]", (double)s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1)) return fail(E_CONFIG, "min_p is %g, must be in [0, 1]", (double)s->min_p);
    if (s->top_k < 0) return fail(E_CONFIG, "top_k is %d, must be 0 (off) or positive", s->top_k);
    if (!(s->repetition_penalty > 0))
        return fail(E_CONFIG, "repetition_penalty is %g, must be positive", (double)s->repetition_penalty);
    return OK;
}

static int check_sizes(const struct rollout_request *q) {
    if (q->num_generations < 1) return fail(E_CONFIG, "num_generations is %d, must be positive", q->num_generations);
    if (q->max_new_tokens < 1) return fail(E_CONFIG, "max_new_tokens is %d, must be positive", q->max_new_tokens);
    if (q->store_rows < 0) return fail(E_CONFIG, "store_rows is %d, must not be negative", q->store_rows);
    if (q->slots < 1 || q->slots > SLOTS_MAX) return fail(E_CONFIG, "slots is %d, must be 1..%d", q->slots, SLOTS_MAX);
    if (q->min_new_tokens < 0) return fail(E_CONFIG, "min_new_tokens is %d, must not be negative", q->min_new_tokens);
    if (q->lookahead < 0 || q->lookahead > LOOKAHEAD_MAX)
        return fail(E_CONFIG, "lookahead is %d, must be 0 (the device's) or up to %d", q->lookahead, LOOKAHEAD_MAX);
    if ((int64_t)q->prompts.n * q->num_generations > COMPLETIONS_MAX)
        return fail(E_CONFIG, "num_generations is %d: %d prompts would make more than %d completions",
                    q->num_generations, q->prompts.n, COMPLETIONS_MAX);
    return OK;
}

static int check_request(const struct rollout_request *q, const struct spec *spec) {
    int vocab_size = spec->vocab_size;
    TRY(check_sizes(q));
    TRY(check_sampler(&q->sampler));
    TRY(check_ids("stop", q->stop_ids, q->n_stop, vocab_size));
    TRY(check_ids("forbidden", q->forbidden_ids, q->n_forbidden, vocab_size));
    TRY(check_choice(q, vocab_size));
    for (int i = 0; i < q->n_stop_strings; i++)
        if (q->stop_offset[i + 1] - q->stop_offset[i] > STOP_TAIL || q->stop_offset[i + 1] == q->stop_offset[i])
            return fail(E_CONFIG, "stop string %d must have 1..%d bytes", i, STOP_TAIL);
    struct groups g = {.prompts = q->prompts, .pictures = q->pictures};
    TRY(groups_check(&g, spec));
    return pictures_have(&g, 0);
}

static struct sequences_config config_of(const struct rollout_request *q, int slots, int prompt_length) {
    return (struct sequences_config){
        .slots = slots,
        .prompt_length = prompt_length,
        .max_new_tokens = q->max_new_tokens,
        .min_new_tokens = q->min_new_tokens,
        .lookahead = q->lookahead,
        .prompts = q->prompts.n,
        .image_tokens = q->pictures ? (int)q->pictures->token_offset[q->prompts.n] : 0,
        .num_generations = q->num_generations,
        .sampler = q->sampler,
        .stop_ids = q->stop_ids,
        .n_stop = q->n_stop,
        .forbidden_ids = q->forbidden_ids,
        .n_forbidden = q->n_forbidden,
        .seed = q->seed,
        .step = q->step,
    };
}

int rollout_check_size(const struct rollout_size *size) {
    if (size->slots * ((int64_t)size->prompt_length + size->max_new_tokens) <= ROWS_MAX) return OK;
    return fail(E_CONFIG, "max_new_tokens is %d: %d slots with prompts of %d tokens make more than %d positions",
                size->max_new_tokens, size->slots, size->prompt_length, ROWS_MAX);
}

static struct sequences_config config_of_size(const struct rollout_size *size) {
    return (struct sequences_config){.slots = size->slots,
                                     .prompts = size->prompts,
                                     .prompt_length = size->prompt_length,
                                     .max_new_tokens = size->max_new_tokens,
                                     .image_tokens = size->image_tokens,
                                     .n_forbidden = size->forbids,
                                     .sampler.repetition_penalty = 1};
}

size_t rollout_bytes(const struct ops *ops, const struct spec *spec, const struct rollout_size *size) {
    struct sequences_config c = config_of_size(size);
    return sequences_bytes(ops, spec, &c);
}

int rollout_vectors(const struct ops *ops, const struct spec *spec, const struct rollout_size *size) {
    struct sequences_config c = config_of_size(size);
    return sequences_vectors(ops, spec, &c);
}

/* -- tokens -------------------------------------------------------------------------------------------------------- */

/* The end of a completion's text, where a stop string may be */
struct tail {
    char bytes[STOP_TAIL];
    int n;
};

struct rollout {
    const struct rollout_request *q;
    struct rollout_result *out;
    struct sequences sequences;
    struct tail *tails;                   /* (completions), where there are stop strings */
    int n, next, finished;                /* completions: in all, the next to start, ended */
    int last_group;                       /* of the completion before `next` */
    int64_t tokens;
    double last_report;
};

/* Adds the token's bytes to the tail; true when the text now holds a stop string. */
static int hits_stop_string(struct tail *tail, const struct rollout_request *q, int32_t id) {
    for (int64_t k = q->token_offset[id]; k < q->token_offset[id + 1]; k++) {
        if (tail->n == STOP_TAIL) memmove(tail->bytes, tail->bytes + 1, (size_t)--tail->n);
        tail->bytes[tail->n++] = q->token_bytes[k];
        for (int i = 0; i < q->n_stop_strings; i++) {
            int n = (int)(q->stop_offset[i + 1] - q->stop_offset[i]);
            if (n <= tail->n && !memcmp(tail->bytes + tail->n - n, q->stop_bytes + q->stop_offset[i], (size_t)n))
                return 1;
        }
    }
    return 0;
}

static int is_stop_id(const struct rollout_request *q, int32_t id) {
    for (int i = 0; i < q->n_stop; i++)
        if (q->stop_ids[i] == id) return 1;
    return 0;
}

static int take_token(struct rollout *r, struct sequence *s, const struct sampled *drawn) {
    const struct rollout_request *q = r->q;
    struct rollout_result *out = r->out;
    int completion = s->tag;
    if (drawn->id < 0)
        return fail(E_NONFINITE, "the logits of prompt %d, completion %d are not finite at token %d",
                    completion / q->num_generations, completion % q->num_generations, s->length);
    size_t at = (size_t)completion * (size_t)q->max_new_tokens + (size_t)s->length;
    out->tokens[at] = drawn->id;
    out->logp[at] = drawn->logp;
    out->policy_logp[at] = drawn->policy_logp;
    out->entropy[at] = drawn->entropy;
    sequence_accept(s, drawn->id);
    out->length[completion] = s->length;
    r->tokens++;
    int stop_string = r->tails && hits_stop_string(&r->tails[completion], q, drawn->id),
        stop_id = is_stop_id(q, drawn->id);
    s->ended = stop_id || stop_string || s->length == q->max_new_tokens;
    if (s->ended) {
        out->finish[completion] = stop_id ? FINISH_STOP_ID : stop_string ? FINISH_STOP_STRING : FINISH_LENGTH;
        r->finished++;
    }
    return OK;
}

/* What live sequences [first, n_live) drew in `steps` steps of `width` columns, of which column 0 is sequence
   `first`; closes those that ended. */
static int take_drawn(struct rollout *r, int first, int steps, int width) {
    struct sequences *s = &r->sequences;
    for (int k = 0; k < steps; k++)
        for (int i = first; i < s->n_live; i++)
            if (!s->live[i].ended)
                TRY(take_token(r, &s->live[i], &s->drawn[(size_t)k * (size_t)width + (size_t)(i - first)]));
    return sequences_close(s);
}

/* -- the loop ------------------------------------------------------------------------------------------------------ */

/* The group of each completion that is about to start; prompts that are new are opened. */
static int open_groups(struct rollout *r, int *group, int n) {
    const struct rollout_request *q = r->q;
    const struct spec *spec = &r->sequences.session->weights->spec;
    struct prompt prompts[n];
    int opened[n], n_new = 0;
    for (int i = 0; i < n; i++) {
        int prompt = (r->next + i) / q->num_generations;
        if ((r->next + i) % q->num_generations) continue;
        prompts[n_new++] = prompt_of(spec, &q->prompts, q->pictures, prompt);
    }
    double start = clock_seconds();
    TRY(sequences_open(&r->sequences, opened, prompts, n_new));
    r->out->prefill_seconds += clock_seconds() - start;
    for (int i = 0, next = 0; i < n; i++) {
        if ((r->next + i) % q->num_generations == 0) r->last_group = opened[next++];
        group[i] = r->last_group;
    }
    return OK;
}

/* Fills free slots with the next completions, which get their first tokens. */
static int admit(struct rollout *r) {
    const struct rollout_request *q = r->q;
    struct sequences *s = &r->sequences;
    int first = s->n_live, n = min_int(s->config.slots - first, r->n - r->next);
    int group[n];
    struct start list[n];
    TRY(open_groups(r, group, n));
    for (int i = 0; i < n; i++, r->next++)
        list[i] = (struct start){.tag = r->next,
                                 .group = group[i],
                                 .sample = r->next % q->num_generations,
                                 .prompt_key = q->first_prompt + (uint32_t)(r->next / q->num_generations)};
    for (int i = 0; i < n; i++) {
        const struct stored_group *stored = s->groups[group[i]].stored;
        r->out->stored[list[i].tag] = stored ? stored->first_id + list[i].sample : -1;
    }
    TRY(sequences_start(s, list, n));
    return take_drawn(r, first, 1, n);
}

static int report(struct rollout *r) {
    double now = clock_seconds();
    if (!r->q->progress || (now - r->last_report < 0.2 && r->finished < r->n)) return OK;
    r->last_report = now;
    return r->q->progress(r->q->progress_arg, r->tokens, r->finished) ? E_INTERRUPT : OK;
}

static int run(struct rollout *r) {
    struct sequences *s = &r->sequences;
    double start = clock_seconds();
    while (r->finished < r->n) {
        int steps, width;
        if (s->n_live < s->config.slots && r->next < r->n) TRY(admit(r));
        if (s->n_live) {
            TRY(sequences_extend(s, &steps, &width));
            TRY(take_drawn(r, 0, steps, width));
        }
        TRY(report(r));
        TRY(poll_interrupt());
    }
    r->out->decode_seconds = clock_seconds() - start - r->out->prefill_seconds;
    return OK;
}

int rollout(struct session *session, struct rollout_result *out, const struct rollout_request *q) {
    TRY(check_request(q, &session->weights->spec));
    struct rollout r = {.q = q, .out = out, .n = q->prompts.n * q->num_generations};
    out->prefill_seconds = out->decode_seconds = 0;
    if (!r.n) return OK;
    int prompt_length = 0;
    for (int i = 0; i < q->prompts.n; i++) prompt_length = max_int(prompt_length, ragged_length(&q->prompts, i));
    struct sequences_config config = config_of(q, min_int(q->slots, r.n), prompt_length);
    TRY(rollout_check_size(&(struct rollout_size){
        .slots = config.slots, .prompt_length = prompt_length, .max_new_tokens = q->max_new_tokens}));
    if (q->n_stop_strings && !(r.tails = calloc((size_t)r.n, sizeof *r.tails)))
        return fail(E_MEMORY, "no memory for %d completions", r.n);
    int status = sequences_create(&r.sequences, session, &config, q->store, q->store_rows);
    if (!status) status = run(&r);
    sequences_free(&r.sequences);
    free(r.tails);
    return status;
}
