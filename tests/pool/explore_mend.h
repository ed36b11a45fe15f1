/* For tests: the server, as it sees to what the dead have left in a queue. */
#include "explore_wait.h"

static uint32_t *mended; /* in what is shared: bits, the slots that have been seen to */

static bool somebody_died(int self)
{
	(void)self;
	return dead_slots & ~*mended;
}

/* For ever; also what another server has begun, who died. `besides` sees to what a slot has left elsewhere. */
static void mend_as(struct scxl_user one, void (*besides)(uint16_t slot))
{
	for (;;) {
		wait_until(somebody_died, true);
		saw(dead_slots);
		for (uint16_t slot = 0; slot < 16; slot++) {
			if (!((dead_slots & ~*mended) >> slot & 1))
				continue;
			for (uint32_t cell = 0; cell <= one.mask; cell++)
				scxl_queue_mend(&one, cell, slot);
			wake(&one.queue->consumers);
			wake(&one.queue->producers);
			if (besides)
				besides(slot);
			*mended |= 1u << slot;
		}
	}
}
