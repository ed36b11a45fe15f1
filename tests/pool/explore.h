/* For tests: all interleavings of a few processes over shared memory, as far as a bound on preemptions goes, each process
 * dying at each point where it may. Included before the core's headers, whose every access to shared words becomes a point at
 * which another process may go on: processes are coroutines, and memory is sequentially consistent.
 *
 * Schedules are gone through depth first, by running all from the beginning again; a run ends where it comes to a state in
 * which an earlier one was. What a process knows is what it has read, so that a state is the memory and what each has read.
 * What a test notes of what happened has to lie in that memory, too. */
#undef _FORTIFY_SOURCE /* its longjmp takes another stack for a mistake */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { PROCESSES = 6, DEEPEST = 20000, STACK = 65536, SEEN_BITS = 24, MOST_STATES = 7 << (SEEN_BITS - 3) };
enum { NOBODY = -1, DIES = -2 };

/* What is explored. */
struct scenario {
	const char *name;
	void (*work[PROCESSES])(int self);
	uint16_t slot[PROCESSES]; /* those of one slot die together */
	uint32_t mortal;          /* bits: which may die */
	int preemptions, deaths;
	void (*make)(void);    /* the memory as it is at first */
	void (*settled)(void); /* looks at it when all have ended */
};

static const struct scenario *scenario;
static uint8_t *known; /* all that is shared, and what is noted */
static size_t known_length;

static struct process {
	sigjmp_buf fresh, at;
	bool ended, dead, idle; /* idle: it may wait for ever */
	bool (*until)(int self);
	const void *asleep_at;
	uint32_t asleep_while, *asleep_on;
	uint64_t history;
} processes[PROCESSES];

static int current = NOBODY, preempted, died;
static uint32_t dead_slots; /* bits */
static sigjmp_buf home;

static struct { uint8_t chosen, of; } choices[DEEPEST];
static int depth, chosen_before;
static uint64_t runs, states, points, seed;
static struct { int process; const char *where; int line; } trace[DEEPEST];
static int passed;

static void failed(const char *format, ...)
{
	va_list arguments;

	printf("%s: ", scenario->name);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf(", after");
	for (int i = 0; i < passed; i++) {
		bool same = i && trace[i - 1].process == trace[i].process && !strcmp(trace[i - 1].where, trace[i].where);
		if (same)
			printf(",%d", trace[i].line);
		else
			printf("%s %c %s %d", i ? ";" : "", 'A' + trace[i].process, trace[i].where, trace[i].line);
	}
	puts("");
	exit(1);
}
#define CHECK(what, ...) do { if (!(what)) failed(__VA_ARGS__); } while (0)

static inline uint64_t mixed(uint64_t sum, uint64_t value)
{
	sum = (sum ^ value) * 0x9e3779b97f4a7c15ull;
	return sum ^ sum >> 29;
}

static inline void saw(uint64_t value)
{
	if (current >= 0)
		processes[current].history = mixed(processes[current].history, value);
}

static void saw_bytes(const void *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		saw(((const uint8_t *)bytes)[i]);
}

/* Whether an earlier run was in this state; it is one that has been, from now on. */
static bool seen(bool going)
{
	static uint64_t *table;
	uint64_t sum = mixed(mixed(1, (uint64_t)current << 8 | going), (uint64_t)preempted << 32 | (uint64_t)died << 16 | dead_slots), at, word;

	if (!table)
		table = calloc(1ull << SEEN_BITS, sizeof *table);
	if (!states)
		memset(table, 0, sizeof *table << SEEN_BITS);
	for (int i = 0; i < PROCESSES && scenario->work[i]; i++) {
		const struct process *one = &processes[i];
		sum = mixed(sum, one->history);
		sum = mixed(sum, (uint64_t)one->ended << 3 | one->dead << 2 | one->idle << 1 | !one->until);
		sum = mixed(sum, one->asleep_on ? (uint64_t)one->asleep_while + 1 : 0);
	}
	for (size_t i = 0; i < known_length; i += 8) {
		memcpy(&word, known + i, 8);
		sum = mixed(sum, word);
	}
	sum |= !sum;
	for (at = sum >> (64 - SEEN_BITS); table[at]; at = (at + 1) & ((1ull << SEEN_BITS) - 1))
		if (table[at] == sum)
			return true;
	table[at] = sum;
	states++;
	return false;
}

static uint64_t drawn(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

static int chosen(int count, bool going)
{
	if (count == 1)
		return 0;
	if (seed)
		return going && drawn() % 6 ? 0 : (int)(drawn() % (uint64_t)count);
	if (depth == chosen_before) {
		if (seen(going))
			siglongjmp(home, 1);
		CHECK(depth + 1 < DEEPEST, "it goes on for ever");
		choices[chosen_before].chosen = 0;
		choices[chosen_before++].of = (uint8_t)count;
	}
	return choices[depth++].chosen;
}

static bool ready(int process)
{
	const struct process *one = &processes[process];

	if (!scenario->work[process] || one->ended || one->dead || (one->until && !one->until(process)))
		return false;
	return !one->asleep_on || *one->asleep_on != one->asleep_while;
}

/* Let somebody go on: who is now at a point, or waits (`going` is false). */
static void schedule(bool going)
{
	int options[PROCESSES + 1], count = 0, next, was = current;

	if (going)
		options[count++] = current;
	if (!going || preempted < scenario->preemptions)
		for (int i = 0; i < PROCESSES; i++)
			if (!(going && i == current) && ready(i))
				options[count++] = i;
	if (going && died < scenario->deaths && scenario->mortal >> current & 1)
		options[count++] = DIES;
	if (!count) {
		for (int i = 0; i < PROCESSES && scenario->work[i]; i++)
			CHECK(processes[i].ended || processes[i].dead || processes[i].idle, "%c is stuck", 'A' + i);
		siglongjmp(home, 2);
	}
	next = options[chosen(count, going)];
	if (next == DIES) {
		died++;
		dead_slots |= 1u << scenario->slot[current];
		for (int i = 0; i < PROCESSES && scenario->work[i]; i++)
			processes[i].dead = processes[i].dead || (scenario->slot[i] == scenario->slot[current] && !processes[i].ended);
		if (passed < DEEPEST)
			trace[passed].process = current, trace[passed].where = "dies", trace[passed++].line = 0;
		schedule(false);
	}
	if (next == was && going)
		return;
	preempted += going;
	processes[next].until = NULL;
	processes[next].asleep_on = NULL;
	current = next;
	if (!sigsetjmp(processes[was].at, 0))
		siglongjmp(processes[next].at, 1);
}

/* Before each access to what is shared. */
static void point(const char *where, int line)
{
	if (current < 0)
		return;
	schedule(true);
	CHECK(passed < DEEPEST, "it goes on for ever");
	trace[passed].process = current, trace[passed].where = where, trace[passed++].line = line;
	points++;
	saw((uint64_t)line); /* a step further, whatever it reads, or if it writes what was there */
}

/* Wait until that holds; `idle`: it need not ever. */
static void wait_until(bool (*holds)(int self), bool idle)
{
	processes[current].idle = idle;
	processes[current].until = holds;
	schedule(false);
	processes[current].idle = false;
}

/* As a futex has it: sleep while the word has that value, until one is woken. */
static inline void sleep_on(uint32_t *word, uint32_t value)
{
	processes[current].asleep_on = word;
	processes[current].asleep_while = value;
	schedule(false);
}

static inline void wake_all(const uint32_t *word)
{
	for (int i = 0; i < PROCESSES; i++)
		if (processes[i].asleep_on == word)
			processes[i].asleep_on = NULL;
}

static void coroutine(int self)
{
	if (!sigsetjmp(processes[self].fresh, 0))
		siglongjmp(home, 1);
	scenario->work[current](current);
	processes[current].ended = true;
	schedule(false);
}

static void prepare(void)
{
	static uint8_t stacks[PROCESSES][STACK];

	for (volatile int i = 0; i < PROCESSES; i++) {
		static ucontext_t context;
		getcontext(&context);
		context.uc_stack.ss_sp = stacks[i];
		context.uc_stack.ss_size = STACK;
		makecontext(&context, (void (*)(void))coroutine, 1, i);
		if (!sigsetjmp(home, 0))
			setcontext(&context);
	}
}

/* One run, by the choices made before and the first at each point after them. */
static void run(void)
{
	static int first[PROCESSES], count;

	count = 0;
	depth = preempted = died = passed = 0;
	dead_slots = 0;
	memset(known, 0, known_length);
	scenario->make();
	for (int i = 0; i < PROCESSES; i++) {
		struct process *one = &processes[i];
		one->ended = one->dead = one->idle = false;
		one->until = NULL;
		one->asleep_on = NULL;
		one->history = (uint64_t)i + 1;
		memcpy(one->at, one->fresh, sizeof one->at);
	}
	runs++;
	switch (sigsetjmp(home, 0)) {
	case 0:
		current = 0;
		for (int i = 0; i < PROCESSES; i++)
			if (ready(i))
				first[count++] = i;
		current = first[chosen(count, false)];
		siglongjmp(processes[current].at, 1);
	case 2:
		current = NOBODY;
		scenario->settled();
	}
	current = NOBODY;
}

/* [more preemptions [schedules at random [the only scenario]]] */
static int more;
static uint64_t random_runs = 1000;
static const char *only;

static void start(int count, char **arguments)
{
	more = count > 1 ? atoi(arguments[1]) : 0;
	random_runs = count > 2 ? strtoull(arguments[2], NULL, 10) : random_runs;
	only = count > 3 ? arguments[3] : NULL;
	setvbuf(stdout, NULL, _IONBF, 0);
	prepare();
}

/* All schedules; then some at random, with any number of preemptions. */
static void explore(const struct scenario *given)
{
	static struct scenario one;

	one = *given;
	one.preemptions += more;
	scenario = &one;
	if (only && strcmp(only, one.name))
		return;
	runs = states = points = 0;
	chosen_before = 0;
	for (;;) {
		run();
		while (chosen_before && choices[chosen_before - 1].chosen + 1 == choices[chosen_before - 1].of)
			chosen_before--;
		if (!chosen_before || states >= MOST_STATES)
			break;
		choices[chosen_before - 1].chosen++;
	}
	printf("%s: %llu schedules, %llu states%s\n", one.name, (unsigned long long)runs, (unsigned long long)states, states < MOST_STATES ? "" : ": not all");
	one.preemptions = 1 << 30;
	for (uint64_t i = 1; i <= random_runs; i++) {
		seed = i * 0x9e3779b97f4a7c15ull;
		run();
	}
	seed = 0;
}

/* All of these: each has a scenario, and more that the program says of it; `shape` is the present one. */
#define EXPLORE(shapes) \
	for (shape = shapes; shape < shapes + sizeof shapes / sizeof *shapes; shape++) \
		explore(&shape->scenario)

#define HERE point(__func__, __LINE__)
#define __atomic_load_n(p, order) ({ HERE; __typeof__(*(p)) got_ = __atomic_load_n((p), (order)); saw((uint64_t)got_); got_; })
#define __atomic_store_n(p, value, order) ({ HERE; __atomic_store_n((p), (value), (order)); })
#define __atomic_exchange_n(p, value, order) ({ HERE; __typeof__(*(p)) got_ = __atomic_exchange_n((p), (value), (order)); saw((uint64_t)got_); got_; })
#define __atomic_fetch_or(p, value, order) ({ HERE; __typeof__(*(p)) got_ = __atomic_fetch_or((p), (value), (order)); saw((uint64_t)got_); got_; })
#define __atomic_fetch_add(p, value, order) ({ HERE; __typeof__(*(p)) got_ = __atomic_fetch_add((p), (value), (order)); saw((uint64_t)got_); got_; })
#define __atomic_compare_exchange_n(p, from, to, weak, yes, no) ({ HERE; bool done_ = __atomic_compare_exchange_n((p), (from), (to), (weak), (yes), (no)); saw(done_); saw(*(from)); done_; })

static bool is_shared(const void *at)
{
	return (const uint8_t *)at >= known && (const uint8_t *)at < known + known_length;
}

/* Bytes are copied by words: others may come in between. */
static inline void *copied(void *to, const void *from, size_t length, const char *where, int line)
{
	bool shared = current >= 0 && (is_shared(to) || is_shared(from));

	saw(length);
	for (size_t at = 0; at < length; at += 8) {
		size_t part = length - at < 8 ? length - at : 8;
		if (shared)
			point(where, line);
		memmove((uint8_t *)to + at, (const uint8_t *)from + at, part);
		if (shared)
			saw_bytes((uint8_t *)to + at, part);
	}
	return to;
}
#define memcpy(to, from, length) copied((to), (from), (length), __func__, __LINE__)
