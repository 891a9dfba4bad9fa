/* Floor 3: scratch of a device's ops for the calls that a network will make of them. */
#ifndef GRPO_RESERVE_H
#define GRPO_RESERVE_H

#include "net/weights.h"

/* need: what depends on the batches, rows to shared_pages; what the network is, is filled in here. columns: of the
   widest rows, unless layers have wider ones. */
int reserve_for(const struct weights *w, struct op_limits need, int columns);

#endif
