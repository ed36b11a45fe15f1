/* Calls under all interleavings: each that was asked is answered, lost or given up; it is run once at most, and not before
 * what its client had begun earlier; no cell of a table is lost, and nobody waits for ever, whoever dies and whenever. */
#include "explore.h"
#include "explore_mend.h"
#include "softcxl_calls.h"

enum { STRIDE = 64, CELLS = 4, CLIENTS = 2, PLACES = 2, NUMBERS = 8, MARK = 7, MENDER = 14, CHECKER = 15 };

/* What came of a call. */
enum fate { NOT_ASKED, ASKED, REFUSED, ANSWERED, LOST, GIVEN_UP };

static struct {
	uint8_t queue[SCXL_QUEUE_HEADER + CELLS * STRIDE] __attribute__((aligned(64)));
	uint8_t tables[CLIENTS][SCXL_CALLS_HEADER + PLACES * STRIDE] __attribute__((aligned(64)));
	uint8_t fate[CLIENTS][NUMBERS], run[CLIENTS][NUMBERS], order[CLIENTS][NUMBERS]; /* of each client's calls, as it counts them */
	uint8_t served, through;                                                        /* calls run in all; clients that are through */
	uint32_t mended;                                                                /* bits: slots */
} shared __attribute__((aligned(64)));

static struct shape {
	struct scenario scenario;
	int calls;     /* that each client makes */
	uint32_t cells; /* of the queue */
	bool started;  /* the first call of each client is begun, and not waited for before the next is made */
	bool gives_up; /* and that one is given up then */
	bool in_order; /* a client's calls are run in its order */
} *shape;

static struct scxl_user user(uint16_t slot)
{
	struct scxl_user one;

	CHECK(scxl_queue_attach(&one, shared.queue, sizeof shared.queue, slot) == SCXL_OK, "cannot attach");
	return one;
}

static struct scxl_table table(uint32_t client)
{
	struct scxl_table one;

	CHECK(scxl_calls_attach(&one, shared.tables[client], sizeof shared.tables[client], MARK) == SCXL_OK, "cannot attach");
	return one;
}

/* -- a client, as calls.h has it ----------------------------------------------------------------------------------- */

struct client {
	struct scxl_user user;
	struct scxl_table table;
	struct scxl_note note;
	uint32_t next;
};

static enum scxl_result try_note(void *what)
{
	struct client *one = what;

	return scxl_call_look(&one->table, one->note.cell, one->note.number) == SCXL_OK ? scxl_queue_put(&one->user, &one->note, sizeof one->note, 0) : SCXL_OK;
}

static enum scxl_result ask(struct client *one, uint64_t name)
{
	struct scxl_sleepers *consumers = &one->user.queue->consumers;
	enum scxl_result result = SCXL_FULL;

	for (uint32_t i = 0; i < PLACES && result == SCXL_FULL; i++) {
		one->note.cell = one->next;
		one->next = (one->next + 1) % PLACES;
		result = scxl_call_ask(&one->table, one->note.cell, &name, 8, 0, &one->note.number);
	}
	CHECK(result == SCXL_OK, "asking gives %d", result);
	result = scxl_queue_put(&one->user, &one->note, sizeof one->note, 0);
	if (result == SCXL_FULL)
		result = waited(try_note, one, &one->user.queue->producers);
	if (result == SCXL_OK)
		wake(consumers);
	else if (!scxl_call_undo(&one->table, one->note.cell, one->note.number))
		result = SCXL_OK;
	return result;
}

struct poll {
	struct client *client;
	struct scxl_note note;
};

static enum scxl_result try_poll(void *what)
{
	struct poll *poll = what;
	uint32_t length, kind;

	return scxl_call_poll(&poll->client->table, poll->note.cell, poll->note.number, &length, &kind);
}

static enum fate answer(struct client *one, struct scxl_note note, uint64_t name)
{
	struct poll poll = {one, note};
	enum scxl_result result = waited(try_poll, &poll, &one->table.calls->client);
	uint64_t there = 0;

	CHECK(result == SCXL_OK || (result == SCXL_LOST && died), "waiting gives %d", result);
	if (result == SCXL_OK) {
		memcpy(&there, scxl_call_bytes(scxl_call_at(&one->table, note.cell)), 8);
		CHECK(there == name + 100, "the answer to %d is %d", (int)name, (int)there);
	}
	CHECK(scxl_call_free(&one->table, note.cell, note.number) == SCXL_OK, "a call that is over is not freed");
	one->next = note.cell;
	return result == SCXL_OK ? ANSWERED : LOST;
}

static void client(int self)
{
	uint32_t mine = (uint32_t)self;
	struct client one = {user(shape->scenario.slot[self]), table(mine), .note.client = mine};
	struct scxl_note first = {0};

	for (int i = 0; i < shape->calls; i++) {
		enum scxl_result result;

		shared.fate[mine][i] = ASKED;
		result = ask(&one, mine * NUMBERS + (uint64_t)i);
		CHECK(result == SCXL_OK, "a note gives %d", result);
		if (shape->started && i == 0) {
			scxl_call_begun(&one.user);
			first = one.note;
			if (!shape->gives_up)
				continue;
			scxl_call_free(&one.table, first.cell, first.number);
			shared.fate[mine][0] = GIVEN_UP;
			continue;
		}
		shared.fate[mine][i] = answer(&one, one.note, mine * NUMBERS + (uint64_t)i);
	}
	if (shape->started && !shape->gives_up)
		shared.fate[mine][0] = answer(&one, first, mine * NUMBERS);
	shared.through++;
	wake(&one.user.queue->consumers);
}

/* The worker looks for a call in the cell where the last one is asked, and the one that is begun before that is in the other. */
static void hurried(int self)
{
	uint32_t mine = (uint32_t)self;
	struct client one = {user(shape->scenario.slot[self]), table(mine), .note.client = mine};
	struct scxl_note notes[4];

	for (uint64_t i = 0; i < 4; i++) {
		if (i == 2)
			for (uint64_t before = 2; before-- > 0;)
				shared.fate[mine][before] = answer(&one, notes[before], mine * NUMBERS + before);
		shared.fate[mine][i] = ASKED;
		CHECK(ask(&one, mine * NUMBERS + i) == SCXL_OK, "a note cannot be put");
		notes[i] = one.note;
		if (i < 3)
			scxl_call_begun(&one.user);
	}
	for (uint64_t i = 2; i < 4; i++)
		shared.fate[mine][i] = answer(&one, notes[i], mine * NUMBERS + i);
	shared.through++;
}

/* -- a worker, as worker.h has it ---------------------------------------------------------------------------------- */

struct worker {
	struct scxl_worker core;
	struct scxl_user user;
	struct scxl_found found;
};

static enum scxl_result try_find(void *what)
{
	struct worker *one = what;

	return scxl_worker_find(&one->core, &one->user, &one->found);
}

static void release(struct worker *one)
{
	if (scxl_worker_release(&one->core, &one->user))
		wake(&one->user.queue->producers);
}

static void worker(int self)
{
	struct worker one = {.user = user(shape->scenario.slot[self])};

	processes[current].idle = true;
	for (;;) {
		struct scxl_table calls;
		uint32_t length, kind, mine;
		enum scxl_result result;
		uint64_t name = 0;

		release(&one);
		one.found.ahead = false;
		result = scxl_queue_claim(&one.user, &one.found.claimed, &one.found.length, &one.found.kind);
		if (result == SCXL_EMPTY)
			result = waited(try_find, &one, &one.user.queue->consumers);
		CHECK(result == SCXL_OK, "looking for calls gives %d", result);
		if (!scxl_worker_has(&one.core, &one.user, &one.found))
			continue;
		mine = one.core.note.client;
		CHECK(mine < CLIENTS && one.core.note.cell < PLACES, "a note is of cell %u of client %u", one.core.note.cell, mine);
		calls = table(mine);
		result = scxl_worker_take(&one.core, &one.user, &calls, one.found.ahead, &length, &kind);
		release(&one);
		if (result != SCXL_OK)
			continue;
		memcpy(&name, scxl_call_bytes(scxl_call_at(&calls, one.core.note.cell)), 8);
		CHECK(name / NUMBERS == mine && length == 8, "a request is %d", (int)name);
		shared.run[mine][name % NUMBERS]++;
		shared.order[mine][name % NUMBERS] = ++shared.served;
		name += 100;
		result = scxl_call_answer(&calls, one.core.note.cell, one.core.note.number, one.user.slot, &name, 8, 0);
		CHECK(result == SCXL_OK || (result == SCXL_STALE && shape->gives_up), "answering gives %d", result);
		if (result == SCXL_OK)
			wake(&calls.calls->client);
	}
}

/* -- the server ---------------------------------------------------------------------------------------------------- */

static void mend_tables(uint16_t slot)
{
	for (uint32_t client = 0; client < CLIENTS; client++) {
		struct scxl_table calls = table(client);
		for (uint32_t cell = 0; cell < PLACES; cell++)
			scxl_call_mend(&calls, cell, slot);
		wake(&calls.calls->client);
	}
}

static void mender(int self)
{
	(void)self;
	mend_as(user(MENDER), mend_tables);
}

static void make(void)
{
	CHECK(scxl_queue_make(shared.queue, sizeof shared.queue, shape->cells, STRIDE, MARK) == SCXL_OK, "cannot make");
	for (int i = 0; i < CLIENTS; i++)
		CHECK(scxl_calls_make(shared.tables[i], sizeof shared.tables[i], PLACES, STRIDE) == SCXL_OK, "cannot make");
}

static void settled(void)
{
	for (uint32_t mine = 0; mine < CLIENTS; mine++) {
		struct scxl_table calls = table(mine);
		void (*work)(int) = shape->scenario.work[mine];
		bool gone = processes[mine].dead || work == worker || work == mender;
		for (int i = 0; i < NUMBERS; i++) {
			enum fate fate = shared.fate[mine][i];
			CHECK(shared.run[mine][i] <= 1, "call %d of client %u is run twice", i, mine);
			CHECK(fate != ANSWERED || shared.run[mine][i], "call %d of client %u is answered, and was not run", i, mine);
			CHECK(fate != ASKED || gone, "call %d of client %u is forgotten", i, mine);
			CHECK(fate != LOST || died, "call %d of client %u is lost", i, mine);
		}
		for (int i = 1; i < NUMBERS && shape->in_order; i++)
			CHECK(!shared.run[mine][i] || !shared.run[mine][i - 1] || shared.order[mine][i - 1] < shared.order[mine][i], "what client %u began first is run later", mine);
		for (uint32_t cell = 0; cell < PLACES && !gone; cell++)
			CHECK((scxl_load(&scxl_call_at(&calls, cell)->word) & 0xff) == SCXL_FREE, "cell %u of client %u is not free in the end", cell, mine);
	}
}

#define ALL(most_preempted, most_dead, who) .preemptions = most_preempted, .deaths = most_dead, .mortal = who, .make = make, .settled = settled

static struct shape shapes[] = {
	{{"one worker", {client, client, worker}, {1, 2, 3}, ALL(1, 0, 0)}, .calls = 2, .cells = 4},
	{{"calls are begun", {client, client, worker}, {1, 2, 3}, ALL(1, 0, 0)}, .calls = 2, .cells = 4, .started = true, .in_order = true},
	{{"four are begun", {hurried, worker}, {1, 3}, ALL(3, 0, 0)}, .cells = 4, .in_order = true},
	{{"a small queue", {client, client, worker}, {1, 2, 3}, ALL(1, 0, 0)}, .calls = 2, .cells = 2, .started = true},
	{{"calls are given up", {client, client, worker}, {1, 2, 3}, ALL(1, 0, 0)}, .calls = 2, .cells = 4, .started = true, .gives_up = true},
	{{"two workers", {client, worker, worker}, {1, 3, 4}, ALL(2, 0, 0)}, .calls = 2, .cells = 2, .started = true},
	{{"a worker dies", {client, worker, worker, mender}, {1, 3, 4, MENDER}, ALL(0, 1, 2)}, .calls = 2, .cells = 2, .started = true},
	{{"a worker dies early", {client, worker, worker, mender}, {1, 3, 4, MENDER}, ALL(1, 1, 2)}, .calls = 1, .cells = 2},
	{{"a client dies", {client, worker, mender}, {1, 3, MENDER}, ALL(2, 1, 1)}, .calls = 2, .cells = 4, .started = true},
	{{"one of two clients dies", {client, client, worker, mender}, {1, 2, 3, MENDER}, ALL(0, 1, 1)}, .calls = 2, .cells = 4, .started = true},
};

int main(int count, char **arguments)
{
	known = (uint8_t *)&shared;
	known_length = sizeof shared;
	mended = &shared.mended;
	start(count, arguments);
	EXPLORE(shapes);
	return 0;
}
