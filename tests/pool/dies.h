/* For tests: a process that dies at its point number `fatal`. Included before the core's headers. */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static int fatal, passed;
#define SCXL_POINT() do { if (++passed == fatal) kill(getpid(), SIGKILL); } while (0)
#define CHECK(what, ...) do { if (!(what)) { printf("died at point %d: ", fatal); printf(__VA_ARGS__); puts(""); exit(1); } } while (0)

/* Run `work` in a process that dies at its point number `fatal`; whether it did. */
static bool dies(void (*work)(void))
{
	int status;
	pid_t child = fork();

	if (!child) {
		passed = 0;
		work();
		_exit(0);
	}
	passed = -1000000000; /* the parent never dies */
	waitpid(child, &status, 0);
	CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : !WEXITSTATUS(status), "it ended with %x", status);
	return WIFSIGNALED(status);
}
