/* Completions while they grow: a slot each, their KV pages, their text. */
#include "rl/engine.h"

int upload_flags(struct engine *e, uint8_t *dst, const int32_t *ids, int n) {
    size_t V = (size_t)e->m->config.vocab_size;
    memset(e->flags, 0, V);
    for (int i = 0; i < n; i++) e->flags[ids[i]] = 1;
    return device_upload(&e->m->device, dst, e->flags, V);
}

/* -- begin ------------------------------------------------------------------------------------------------------------ */

int find_prompt(struct engine *e, int prompt, int *fresh) {
    int empty = -1;
    *fresh = 0;
    for (int i = 0; i < e->S; i++) {
        if (e->prompts[i].unfinished && e->prompts[i].prompt == prompt) return i;
        if (!e->prompts[i].unfinished && empty < 0) empty = i;
    }
    struct active_prompt *p = &e->prompts[empty];
    p->prompt = prompt;
    p->unfinished = e->q->num_generations;
    p->n_pages = pages_of(ragged_length(&e->q->prompts, prompt));
    for (int k = 0; k < p->n_pages; k++) p->pages[k] = take_page(e);
    *fresh = 1;
    return empty;
}

int open_slot(struct engine *e, int active, int32_t *copy_dst, int32_t *copy_src, int *n_copies) {
    struct active_prompt *p = &e->prompts[active];
    struct slot *s = &e->slots[e->n_slots];
    int32_t *table = pages_of_slot(e, e->n_slots);
    int P = ragged_length(&e->q->prompts, p->prompt);
    *s = (struct slot){.sequence = e->next++, .active = active, .own = P / KV_TILE, .prompt_length = P};
    memcpy(table, p->pages, (size_t)s->own * sizeof *table);
    s->n_pages = s->own;
    if (P % KV_TILE) {
        table[s->n_pages++] = take_page(e);
        copy_dst[*n_copies] = table[s->own];
        copy_src[(*n_copies)++] = p->pages[s->own];
    }
    if (e->seen) TRY(upload_flags(e, seen_by(e, e->n_slots), e->q->prompts.ids + e->q->prompts.offset[p->prompt], P));
    e->n_slots++;
    return OK;
}

/* -- end -------------------------------------------------------------------------------------------------------------- */

static void release_prompt(struct engine *e, struct active_prompt *p) {
    if (--p->unfinished) return;
    for (int i = 0; i < p->n_pages; i++) e->free_pages[e->n_free++] = p->pages[i];
    p->n_pages = 0;
}

static void end_slot(struct engine *e, int i) {
    const struct slot *s = &e->slots[i];
    const int32_t *table = pages_of_slot(e, i);
    for (int k = s->own; k < s->n_pages; k++) e->free_pages[e->n_free++] = table[k];
    if (e->kept) kept_end(e->kept, s->sequence, s->t - 1);
    release_prompt(e, &e->prompts[s->active]);
    e->finished++;
}

/* Slots stay in order: those of a group read the same pages of their prompt side by side. */
static int close_slots(struct engine *e) {
    size_t V = (size_t)e->m->config.vocab_size;
    int n = 0;
    for (int i = 0; i < e->n_slots; i++) {
        if (e->slots[i].ended) end_slot(e, i);
        else if (n++ < i) {
            e->slots[n - 1] = e->slots[i];
            memcpy(pages_of_slot(e, n - 1), pages_of_slot(e, i), (size_t)e->max_pages * sizeof(int32_t));
            if (e->seen) TRY(op_copy(&e->m->device, seen_by(e, n - 1), seen_by(e, i), V));
        }
    }
    e->n_slots = n;
    return OK;
}

/* -- tokens ----------------------------------------------------------------------------------------------------------- */

/* Adds the token's bytes to the slot's tail; true when the text now holds a stop string. */
static int hits_stop_string(struct slot *s, const struct rollout_request *q, int32_t id) {
    if (!q->n_stop_strings) return 0;
    for (int64_t k = q->token_offset[id]; k < q->token_offset[id + 1]; k++) {
        if (s->tail_n == STOP_TAIL) memmove(s->tail, s->tail + 1, (size_t)--s->tail_n);
        s->tail[s->tail_n++] = q->token_bytes[k];
        for (int i = 0; i < q->n_stop_strings; i++) {
            int n = (int)(q->stop_offset[i + 1] - q->stop_offset[i]);
            if (n <= s->tail_n && !memcmp(s->tail + s->tail_n - n, q->stop_bytes + q->stop_offset[i], (size_t)n)) return 1;
        }
    }
    return 0;
}

static int is_stop_id(const struct rollout_request *q, int32_t id) {
    for (int i = 0; i < q->n_stop; i++)
        if (q->stop_ids[i] == id) return 1;
    return 0;
}

static int take_token(struct engine *e, struct slot *s, const struct sampled *d) {
    const struct rollout_request *q = e->q;
    if (d->id < 0)
        return fail(E_NONFINITE, "the logits of prompt %d, completion %d are not finite at token %d", s->sequence / q->num_generations,
                    s->sequence % q->num_generations, s->t);
    size_t at = (size_t)s->sequence * (size_t)q->max_new_tokens + (size_t)s->t;
    e->out->tokens[at] = s->last = d->id;
    e->out->logp[at] = d->logp;
    e->out->policy_logp[at] = d->policy_logp;
    e->out->entropy[at] = d->entropy;
    e->out->length[s->sequence] = ++s->t;
    e->tokens++;
    int stop_string = hits_stop_string(s, q, d->id), stop_id = is_stop_id(q, d->id);
    s->ended = stop_id || stop_string || s->t == q->max_new_tokens;
    if (s->ended) e->out->finish[s->sequence] = stop_id ? FINISH_STOP_ID : stop_string ? FINISH_STOP_STRING : FINISH_LENGTH;
    return OK;
}

int take_drawn(struct engine *e, int first, int steps, int width) {
    for (int k = 0; k < steps; k++)
        for (int i = first; i < e->n_slots; i++)
            if (!e->slots[i].ended) TRY(take_token(e, &e->slots[i], &e->drawn[(size_t)k * (size_t)width + (size_t)(i - first)]));
    return close_slots(e);
}
