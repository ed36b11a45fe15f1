/*
 * count: how often a performance event happened, on processor 0, while a program ran. Needs no C library; builds with
 * gcc and tcc.
 *
 *   count TYPE CONFIG PROGRAM ...    TYPE and CONFIG as in perf_event_open(2); PROGRAM by its whole path
 *
 * The count is the last line. Status 2: wrong usage, or the kernel refuses.
 */
#define PROGRAM "count"
#include "bare.h"

enum { SYS_READ = 0, SYS_FORK = 57, SYS_EXECVE = 59, SYS_WAIT4 = 61, SYS_PERF_EVENT_OPEN = 298 };

/* include/uapi/linux/perf_event.h: struct perf_event_attr, as far as it says more than zero */
struct event {
    unsigned type, size;
    u64 config, rest[14];
};

static u64 counted(long counter)
{
    u64 value = 0;
    if (sys(SYS_READ, counter, (u64)&value, 8, 0, 0, 0) != 8)
        fail("the counter cannot be read");
    return value;
}

void start(u64 *stack)
{
    u64 count = stack[0], before;
    char **word = (char **)(stack + 1);
    struct event event;
    long counter, child;
    if (count < 4)
        fail("usage: TYPE CONFIG PROGRAM ...");
    memset(&event, 0, sizeof event);
    event.size = sizeof event;
    event.type = number(word[1]);
    event.config = number(word[2]);
    counter = sys(SYS_PERF_EVENT_OPEN, (u64)&event, -1, 0, -1, 0, 0);
    if (counter < 0)
        fail("the event cannot be counted");
    before = counted(counter);
    child = sys(SYS_FORK, 0, 0, 0, 0, 0, 0);
    if (child == 0) {
        sys(SYS_EXECVE, (u64)word[3], (u64)(word + 3), (u64)(word + count + 1), 0, 0, 0);
        fail("the program cannot be run");
    }
    if (child < 0 || sys(SYS_WAIT4, child, 0, 0, 0, 0, 0) != child)
        fail("the program cannot be waited for");
    say_number(1, counted(counter) - before, 10);
    say(1, "\n");
    leave(0);
}
