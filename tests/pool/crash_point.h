/* Put before the core's sources (cc -include): a process that has $SOFTCXL_POOL_CRASH dies at its point of that number,
 * counted from the first fork or start. A long write has a point every 4 KiB. */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static inline void crash_point(void)
{
	static pid_t process;
	static long left;

	if (process != getpid()) {
		const char *number = getenv("SOFTCXL_POOL_CRASH");
		process = getpid();
		left = number ? atol(number) : 0;
	}
	if (left > 0 && !--left)
		kill(process, SIGKILL);
}

#define SCXL_POINT() crash_point()
#define SCXL_STEP 4096
