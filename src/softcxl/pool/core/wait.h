/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting: spinning for a while, then sleeping on a word; and waking who sleeps there. */

#define SLICE 100000000ll /* ns asleep between two looks at signals */
#define HELD 2500         /* ns of spinning with the interpreter's lock: about what it costs to give it up and have it again, twice */
#define SPIN_MOST 50000   /* ns of spinning in all: what waking the other side costs here, twice */
#define SPIN_LEAST 1000   /* less is not worth it: then one sleeps at once */
#define IDLE 10000000ll   /* ns asleep, beside which the most that is spun is nothing: what comes then may be the first of many */
#define TRIAL (SPIN_MOST + 1)
#define TRIED 64          /* one wait of so many that would sleep at once is given the most, to see */

static inline int64_t now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1000000000ll + at.tv_nsec;
}

static inline void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Returns 0 where it was woken, or the word had changed; else errno. */
static int futex_wait(scxl_u32 *word, uint32_t value, int64_t ns)
{
	struct timespec left = {ns / 1000000000ll, ns % 1000000000ll};
	return syscall(SYS_futex, word, FUTEX_WAIT, value, &left, NULL, 0) ? errno : 0;
}

static long futex_wake(scxl_u32 *word, int count)
{
	return syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

typedef struct {
	PyObject_HEAD
	Py_buffer view;
	PyObject *ring; /* ring(offset): wakes those that sleep behind a device; NULL: there are none */
	PyObject *rest; /* rest(offset, seconds): sleeps until something is rung; NULL: a futex does it */
} Memory;

static PyObject *memory_type;

static uint64_t offset_of(const Memory *memory, const struct scxl_sleepers *one)
{
	return (uint64_t)((const uint8_t *)&one->waiting - (const uint8_t *)memory->view.buf);
}

/* What was done is done: who cannot be rung looks again by himself, sooner or later. */
static void ring_at(Memory *memory, uint64_t offset)
{
	PyObject *kind, *value, *trace, *result;

	PyErr_Fetch(&kind, &value, &trace);
	result = PyObject_CallFunction(memory->ring, "K", (unsigned long long)offset);
	if (!result)
		PyErr_WriteUnraisable(memory->ring);
	Py_XDECREF(result);
	PyErr_Restore(kind, value, trace);
}

static inline void wake(Memory *memory, struct scxl_sleepers *one)
{
	uint32_t how = scxl_wakes(one);

	/* Behind a device, futexes reach nobody but by its doorbell. */
	if (how & SCXL_SLEEPS_HERE && !memory->rest)
		futex_wake(&one->waiting, INT32_MAX);
	if (memory->ring && (memory->rest ? how : how & SCXL_SLEEPS_REMOTE))
		ring_at(memory, offset_of(memory, one));
}

/* A timeout of Python's, None for ever, in ns; -1 with an exception for what is none. */
static int64_t span_of(PyObject *timeout)
{
	double seconds;

	if (timeout == NULL || timeout == Py_None)
		return INT64_MAX;
	seconds = PyFloat_AsDouble(timeout);
	if (seconds == -1.0 && PyErr_Occurred())
		return -1;
	if (!(seconds >= 0)) {
		PyErr_SetString(PyExc_ValueError, "a timeout is 0 or more seconds, or None");
		return -1;
	}
	return seconds > 9e8 ? INT64_MAX : (int64_t)(seconds * 1e9);
}

/* The point of time at which it is over; the clock is not looked at before it is needed. */
struct until {
	int64_t span, deadline; /* deadline: 0 as long as none was needed */
};

static inline int64_t deadline_at(struct until *until)
{
	if (!until->deadline)
		until->deadline = until->span == INT64_MAX ? INT64_MAX : now() + until->span;
	return until->deadline;
}

/* -1 with an exception for what is no timeout. */
static int64_t deadline_of(PyObject *timeout)
{
	struct until until = {.span = span_of(timeout)};

	return until.span < 0 ? -1 : deadline_at(&until);
}

typedef enum scxl_result (*attempt)(void *);

/* The budget after a wait that had to sleep: half as much, at last nothing. Two that sleep for each other would go on
 * so for ever, though either would see the other's answer come if it only looked for as long as a wake takes: so now and
 * then one does, and what it then gains is what the other sees. */
static inline int32_t spin_less(int32_t spin)
{
	static _Thread_local unsigned waits;

	if (spin == 0 && ++waits % TRIED == 0)
		return TRIAL;
	return spin != TRIAL && spin / 2 >= SPIN_LEAST ? spin / 2 : 0;
}

static inline bool again(enum scxl_result result)
{
	return result == SCXL_EMPTY || result == SCXL_FULL || result == SCXL_BUSY;
}

/* Sleep behind a device, with the interpreter's lock. */
static int rest(Memory *memory, struct scxl_sleepers *sleepers, int64_t ns)
{
	PyObject *result = PyObject_CallFunction(memory->rest, "Kd", (unsigned long long)offset_of(memory, sleepers), ns / 1e9);

	Py_XDECREF(result);
	return result ? 0 : -1;
}

/* Try for a little while; not as often as one can, as each look takes the line from who is about to write it. */
static inline int looked_for(attempt try, void *what)
{
	int result = SCXL_EMPTY;

	for (int i = 0; i < 16 && again(result); i++) {
		relax();
		relax();
		result = try(what);
	}
	return result;
}

/* Try until the result is neither EMPTY nor FULL, or the deadline (then that is returned). `spin` is the budget in ns,
 * adapted to whether spinning was worth it. -1 with an exception where a signal handler raised. */
static int wait_for(attempt try, void *what, Memory *memory, struct scxl_sleepers *sleepers, int64_t deadline, int32_t *spin)
{
	const enum scxl_sleeping how = memory->rest ? SCXL_SLEEPS_REMOTE : SCXL_SLEEPS_HERE;
	int result = try(what);
	int64_t start, at;
	uint32_t waiting;

	if (!again(result))
		return result;
	if (deadline == 0)
		return result;
	start = at = now();
	while (*spin && at - start < HELD && at < deadline) {
		result = looked_for(try, what);
		if (!again(result))
			return result;
		at = now();
	}
	for (;;) {
		Py_BEGIN_ALLOW_THREADS
		while (at - start < *spin && at < deadline) {
			for (int i = 0; i < 16; i++) {
				relax();
				result = try(what);
				if (!again(result))
					goto spun;
			}
			at = now();
		}
		waiting = scxl_sleeps(sleepers, how);
		result = try(what);
		if (again(result) && at < deadline) {
			int64_t left = deadline - at < SLICE ? deadline - at : SLICE;
			int64_t before = at;
			int failed = 0;
			if (memory->rest) {
				Py_BLOCK_THREADS
				failed = rest(memory, sleepers, left);
				Py_UNBLOCK_THREADS
			} else {
				futex_wait(&sleepers->waiting, waiting, left);
			}
			result = try(what);
			if (failed)
				result = -1;
			at = now();
			*spin = at - before > IDLE ? SPIN_MOST : spin_less(*spin);
			start = at - *spin;
		}
		goto through;
	spun:
		*spin = *spin * 2 < SPIN_MOST ? *spin * 2 : SPIN_MOST;
	through:;
		Py_END_ALLOW_THREADS
		if (!again(result) || at >= deadline)
			return result;
		if (PyErr_CheckSignals())
			return -1;
	}
}

