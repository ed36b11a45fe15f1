/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls in the pool's shared memory: requests, each with its answer. See softcxl_pool.h for the rules, which hold here,
 * too, and for the queue that calls go through.
 *
 * A cell of a table of calls. Its word: a number of 40 bits, which goes up with each use; 16 bits; and a state. The 16 bits
 * are the mark of the queue where it is asked, and the slot of the worker that has it from then on. The client makes free
 * cells asked, and puts a note of each into the queue; a worker takes them by compare-and-swap and answers, the client
 * frees them. Giving up is a compare-and-swap, too: what a worker has taken it may finish, and nobody looks.
 *
 * The note is so that some worker hears of a call, whoever dies. Who has just served a client need not wait for it: the
 * next call is likely to come to the same cell, with the next number, and may be taken from there (scxl_call_look) ahead
 * of its note, which then is of a call that has been taken. That spares one line's way from one processor to the other.
 * So that nobody waits the longer for it, who serves looks into the queue before each call. And who has begun a call and
 * goes on says so (scxl_call_begun): what he, or whoever hears of it, asks then is not to be run ahead of that. A worker
 * takes a call ahead of its note only if the queue's `begun`, looked at after the call, is what it was before some look
 * into the queue that found nothing.
 */
#ifndef SOFTCXL_CALLS_H
#define SOFTCXL_CALLS_H

#include "softcxl_pool.h"

#define SCXL_CALLS_MAGIC 0x4c4c4143u /* "CALL" */

enum scxl_call_state {
	SCXL_FREE = 0,
	SCXL_ASKED = 1,   /* of a worker of the queue with that mark */
	SCXL_RUNNING = 2, /* by the worker of that slot */
	SCXL_ANSWERED = 3,
	SCXL_ABANDONED = 4, /* the client gave it up while it ran */
	SCXL_ORPHANED = 5,  /* the worker died while it ran */
};

#define SCXL_CALLS_HEADER 128

struct scxl_call {
	scxl_u64 word;
	uint32_t length, kind;
	/* stride - 16 bytes */
};

struct scxl_calls {
	uint32_t magic;
	uint16_t version, reserved0;
	uint32_t cells;  /* 1 or more */
	uint32_t stride; /* bytes of a cell, a multiple of 64 */
	uint8_t reserved1[48];
	struct scxl_sleepers client;
	uint8_t reserved2[56];
};
_Static_assert(sizeof(struct scxl_calls) == SCXL_CALLS_HEADER, "calls header");

struct scxl_table {
	struct scxl_calls *calls;
	uint8_t *cells;
	uint32_t count, stride;
	uint16_t mark;
};

static inline uint64_t scxl_calls_size(uint32_t cells, uint32_t stride)
{
	return SCXL_CALLS_HEADER + (uint64_t)cells * stride;
}

static inline enum scxl_result scxl_calls_make(void *at, uint64_t available, uint32_t cells, uint32_t stride)
{
	struct scxl_calls *calls = at;

	if (!cells || stride < SCXL_LINE || stride % SCXL_LINE || (uintptr_t)at % SCXL_LINE || scxl_calls_size(cells, stride) > available)
		return SCXL_TOO_LONG;
	memset(at, 0, SCXL_CALLS_HEADER);
	for (uint32_t i = 0; i < cells; i++)
		scxl_store((scxl_u64 *)((uint8_t *)at + SCXL_CALLS_HEADER + (uint64_t)i * stride), 0);
	calls->cells = cells;
	calls->stride = stride;
	calls->version = SCXL_VERSION;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	calls->magic = SCXL_CALLS_MAGIC;
	return SCXL_OK;
}

/* Have the table at `at`, of which `available` bytes may be touched, for calls through the queue with that mark. */
static inline enum scxl_result scxl_calls_attach(struct scxl_table *table, void *at, uint64_t available, uint16_t mark)
{
	struct scxl_calls *calls = at;
	uint32_t cells, stride;

	if (available < SCXL_CALLS_HEADER || (uintptr_t)at % SCXL_LINE)
		return SCXL_TOO_LONG;
	if (calls->magic != SCXL_CALLS_MAGIC || calls->version != SCXL_VERSION)
		return SCXL_FOREIGN;
	cells = calls->cells;
	stride = calls->stride;
	if (!cells || stride < SCXL_LINE || stride % SCXL_LINE || scxl_calls_size(cells, stride) > available)
		return SCXL_CORRUPT;
	*table = (struct scxl_table){calls, (uint8_t *)at + SCXL_CALLS_HEADER, cells, stride, mark};
	return SCXL_OK;
}

static inline struct scxl_call *scxl_call_at(const struct scxl_table *table, uint32_t cell)
{
	return (struct scxl_call *)(table->cells + (uint64_t)cell * table->stride);
}

static inline uint8_t *scxl_call_bytes(struct scxl_call *call)
{
	return (uint8_t *)call + SCXL_CELL_HEADER;
}

static inline uint64_t scxl_call_word(uint64_t number, uint16_t whose, enum scxl_call_state state)
{
	return (number & SCXL_TICKETS) << 24 | (uint64_t)whose << 8 | state;
}

/* What goes through the queue: which call it is. */
struct scxl_note {
	uint32_t client, cell;
	uint64_t number;
};

/* The client's: put a request in a free cell. `number` is the call's from then on. */
static inline enum scxl_result scxl_call_ask(struct scxl_table *table, uint32_t cell, const void *bytes, uint32_t length, uint32_t kind, uint64_t *number)
{
	struct scxl_call *call = scxl_call_at(table, cell);
	uint64_t word = scxl_load(&call->word);

	if ((word & 0xff) != SCXL_FREE)
		return SCXL_FULL;
	if (length > table->stride - SCXL_CELL_HEADER)
		return SCXL_TOO_LONG;
	*number = ((word >> 24) + 1) & SCXL_TICKETS;
	call->length = length;
	call->kind = kind;
	memcpy(scxl_call_bytes(call), bytes, length);
	SCXL_POINT();
	scxl_store(&call->word, scxl_call_word(*number, table->mark, SCXL_ASKED));
	SCXL_POINT();
	return SCXL_OK;
}

/* The client's: whether there is an answer. SCXL_OK: it is in the cell, until it is freed; its length has been checked. */
static inline enum scxl_result scxl_call_poll(struct scxl_table *table, uint32_t cell, uint64_t number, uint32_t *length, uint32_t *kind)
{
	struct scxl_call *call = scxl_call_at(table, cell);
	uint64_t word = scxl_load(&call->word);

	if (word >> 24 != number)
		return SCXL_CORRUPT;
	switch ((enum scxl_call_state)(word & 0xff)) {
	case SCXL_ASKED:
	case SCXL_RUNNING:
		return SCXL_EMPTY;
	case SCXL_ANSWERED:
		*length = call->length;
		*kind = call->kind;
		return *length > table->stride - SCXL_CELL_HEADER ? SCXL_CORRUPT : SCXL_OK;
	case SCXL_ORPHANED:
		return SCXL_LOST;
	default:
		return SCXL_CORRUPT;
	}
}

/* The client's: be done with a call. One that runs is abandoned: its cell is free once its worker is through (or dead).
 * SCXL_OK: the cell is free now. */
static inline enum scxl_result scxl_call_free(struct scxl_table *table, uint32_t cell, uint64_t number)
{
	struct scxl_call *call = scxl_call_at(table, cell);

	for (;;) {
		uint64_t word = scxl_load(&call->word);

		if (word >> 24 != number || (word & 0xff) == SCXL_FREE)
			return SCXL_STALE;
		if ((word & 0xff) == SCXL_ANSWERED) { /* nobody else changes that */
			scxl_store(&call->word, scxl_call_word(number, 0, SCXL_FREE));
			return SCXL_OK;
		}
		if ((word & 0xff) == SCXL_ABANDONED)
			return SCXL_EMPTY;
		if ((word & 0xff) == SCXL_RUNNING) {
			if (scxl_swap(&call->word, word, (word & ~0xffull) | SCXL_ABANDONED))
				return SCXL_EMPTY;
		} else if (scxl_swap(&call->word, word, scxl_call_word(number, 0, SCXL_FREE))) {
			return SCXL_OK;
		}
	}
}

/* The client's, who could put no note of a call: take it back. False: a worker has taken it ahead of the note. */
static inline bool scxl_call_undo(struct scxl_table *table, uint32_t cell, uint64_t number)
{
	return scxl_swap(&scxl_call_at(table, cell)->word, scxl_call_word(number, table->mark, SCXL_ASKED), scxl_call_word(number, 0, SCXL_FREE));
}

/* The client's, when it has put the note of a call and goes on without the answer. */
static inline void scxl_call_begun(struct scxl_user *user)
{
	__atomic_fetch_add(&user->queue->begun, 1, __ATOMIC_RELEASE);
}

/* Look for a call: SCXL_OK: it is asked, and can be taken; SCXL_EMPTY: it is to come; SCXL_STALE: it has been, or is another
 * queue's. */
static inline enum scxl_result scxl_call_look(const struct scxl_table *table, uint32_t cell, uint64_t number)
{
	uint64_t word = scxl_load(&scxl_call_at(table, cell)->word);

	if (word == scxl_call_word(number, table->mark, SCXL_ASKED))
		return SCXL_OK;
	return word >> 24 == ((number - 1) & SCXL_TICKETS) ? SCXL_EMPTY : SCXL_STALE;
}

/* A worker's: take a call that it has heard of. SCXL_STALE: it was given up, or another has it. */
static inline enum scxl_result scxl_call_take(struct scxl_table *table, uint32_t cell, uint64_t number, uint16_t worker, uint32_t *length, uint32_t *kind)
{
	struct scxl_call *call;

	if (cell >= table->count || number > SCXL_TICKETS)
		return SCXL_CORRUPT;
	call = scxl_call_at(table, cell);
	scxl_soon((uint8_t *)call + SCXL_LINE * (table->stride > SCXL_LINE)); /* of the answer, too */
	if (!scxl_swap(&call->word, scxl_call_word(number, table->mark, SCXL_ASKED), scxl_call_word(number, worker, SCXL_RUNNING)))
		return SCXL_STALE;
	SCXL_POINT();
	*length = call->length;
	*kind = call->kind;
	return *length > table->stride - SCXL_CELL_HEADER ? SCXL_CORRUPT : SCXL_OK;
}

/* A worker's: answer a call that it has taken. SCXL_STALE: the client has given it up, and the cell is free again. */
static inline enum scxl_result scxl_call_answer(struct scxl_table *table, uint32_t cell, uint64_t number, uint16_t worker, const void *bytes, uint32_t length, uint32_t kind)
{
	struct scxl_call *call = scxl_call_at(table, cell);
	uint64_t running = scxl_call_word(number, worker, SCXL_RUNNING);

	if (length > table->stride - SCXL_CELL_HEADER)
		return SCXL_TOO_LONG;
	if (scxl_load(&call->word) == running) {
		call->length = length;
		call->kind = kind;
		memcpy(scxl_call_bytes(call), bytes, length);
		SCXL_POINT();
		if (scxl_swap(&call->word, running, scxl_call_word(number, 0, SCXL_ANSWERED)))
			return SCXL_OK;
	}
	scxl_swap(&call->word, scxl_call_word(number, worker, SCXL_ABANDONED), scxl_call_word(number, 0, SCXL_FREE));
	return SCXL_STALE;
}

/* A worker has died: what it ran is orphaned, what nobody waits for is free. Any number of times, by anybody. Returns
 * whether something was left there, so that the client has to be woken. */
static inline bool scxl_call_mend(struct scxl_table *table, uint32_t cell, uint16_t dead)
{
	struct scxl_call *call = scxl_call_at(table, cell);
	uint64_t word = scxl_load(&call->word), number = word >> 24;

	if ((uint16_t)(word >> 8) != dead)
		return false;
	if ((word & 0xff) == SCXL_RUNNING)
		return scxl_swap(&call->word, word, scxl_call_word(number, dead, SCXL_ORPHANED));
	if ((word & 0xff) == SCXL_ABANDONED)
		scxl_swap(&call->word, word, scxl_call_word(number, 0, SCXL_FREE));
	return false;
}

/* -- a worker that takes calls ahead of their notes -------------------------------------------------------------- */

/* A worker of a queue, in its own memory. One turn of it: scxl_worker_release; scxl_worker_find, or scxl_queue_claim alone
 * at first, as whoever has been there for longer goes first; scxl_worker_has; scxl_worker_take; scxl_call_answer. */
struct scxl_worker {
	struct scxl_note note;    /* the call that it found last */
	uint64_t claimed;         /* the note's ticket in the queue */
	bool holds;               /* the note, which has not been given up yet */
	struct scxl_note after;   /* the call that may come next from the client that was served last */
	struct scxl_table looked; /* where it would come; calls is NULL where none is looked for */
	uint32_t ahead;           /* so many ahead of it were taken ahead of their notes, which are still to come */
	uint64_t begun;           /* the queue's, before a look into it that found nothing */
};

struct scxl_found {
	uint64_t claimed;
	uint32_t length, kind;
	bool ahead; /* of its note: none is claimed */
};

/* Give the note up. Returns whether there was one: who waits for room in the queue is to be woken then. */
static inline bool scxl_worker_release(struct scxl_worker *worker, struct scxl_user *user)
{
	if (!worker->holds)
		return false;
	worker->holds = false;
	scxl_queue_release(user, worker->claimed);
	return true;
}

/* Look no more for calls of a client, of whom one does not know any more where they are. */
static inline void scxl_worker_look_away(struct scxl_worker *worker, uint32_t client)
{
	if (client == worker->after.client) {
		worker->looked.calls = NULL;
		worker->ahead = 0;
	}
}

/* Look for a call: the one that is looked for may come ahead of its note, but not ahead of what was begun before it was
 * asked. SCXL_OK: something was found. Else as scxl_queue_claim says. */
static inline enum scxl_result scxl_worker_find(struct scxl_worker *worker, struct scxl_user *user, struct scxl_found *found)
{
	enum scxl_result look = worker->looked.calls ? scxl_call_look(&worker->looked, worker->after.cell, worker->after.number) : SCXL_EMPTY;
	uint64_t begun = scxl_load(&user->queue->begun);
	enum scxl_result result;

	if (look == SCXL_OK && begun == worker->begun) {
		found->ahead = true;
		return SCXL_OK;
	}
	if (look == SCXL_STALE)
		worker->looked.calls = NULL;
	result = scxl_queue_claim(user, &found->claimed, &found->length, &found->kind);
	if (result != SCXL_EMPTY)
		return result;
	worker->begun = begun;
	found->ahead = look == SCXL_OK;
	return found->ahead ? SCXL_OK : SCXL_EMPTY;
}

/* Have what was found. False: it is no call, or the note of one that was taken ahead of it; to look at that one's cell
 * would take the line from the client. */
static inline bool scxl_worker_has(struct scxl_worker *worker, struct scxl_user *user, const struct scxl_found *found)
{
	uint64_t past;

	if (found->ahead) {
		worker->note = worker->after;
		return true;
	}
	worker->claimed = found->claimed;
	worker->holds = true;
	if (found->length != sizeof worker->note)
		return false;
	memcpy(&worker->note, scxl_queue_bytes(user, found->claimed), sizeof worker->note);
	past = (worker->after.number - worker->note.number) & SCXL_TICKETS;
	if (!past || past > worker->ahead || worker->note.client != worker->after.client || worker->note.cell != worker->after.cell)
		return true;
	worker->ahead = (uint32_t)past - 1;
	return false;
}

/* Take the call that the note is of; `table` is its client's. The note is to be given up then, be it there or not. */
static inline enum scxl_result scxl_worker_take(struct scxl_worker *worker, struct scxl_user *user, struct scxl_table *table, bool ahead, uint32_t *length, uint32_t *kind)
{
	const struct scxl_note *note = &worker->note;
	enum scxl_result result = scxl_call_take(table, note->cell, note->number, user->slot, length, kind);

	if (result != SCXL_OK)
		return result;
	worker->looked = *table;
	worker->ahead = ahead ? worker->ahead + 1 : 0;
	worker->after = (struct scxl_note){note->client, note->cell, (note->number + 1) & SCXL_TICKETS};
	return SCXL_OK;
}

#endif
