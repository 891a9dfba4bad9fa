/* Any CPU, no assumption on its vector unit. */
#include "cpu/cpu.h"
#define TIER portable
#include "cpu/tier.inc"
