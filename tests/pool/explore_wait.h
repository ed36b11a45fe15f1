/* For tests: waiting and waking as the binding does it (wait.h of the core), by a word of what is shared. */
#include "softcxl_pool.h"

static void wake(struct scxl_sleepers *one)
{
	if (scxl_wakes(one) & SCXL_SLEEPS_HERE)
		wake_all(&one->waiting);
}

static bool again(enum scxl_result result)
{
	return result == SCXL_EMPTY || result == SCXL_FULL || result == SCXL_BUSY;
}

/* Try until the result is none of those; at first without a word. */
static enum scxl_result waited(enum scxl_result (*try)(void *), void *what, struct scxl_sleepers *sleepers)
{
	enum scxl_result result = try(what);

	while (again(result)) {
		uint32_t waiting = scxl_sleeps(sleepers, SCXL_SLEEPS_HERE);
		result = try(what);
		if (!again(result))
			break;
		sleep_on(&sleepers->waiting, waiting);
		result = try(what);
	}
	return result;
}
