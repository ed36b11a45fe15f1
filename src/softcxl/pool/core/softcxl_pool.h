/* SPDX-License-Identifier: Apache-2.0
 *
 * SoftCXL's pool in shared memory: the layout, and what may be done with it. For C11 or later, on any machine that is
 * little-endian and has lock-free 64-bit atomics; gcc or clang; in user space, and in a Linux kernel module. Whoever uses
 * the pool includes this file, softcxl_calls.h for calls, softcxl_region.h for regions (with softcxl_directory.h), and
 * nothing else: everything is static inline.
 *
 * Rules of the layout:
 *  - offsets only, never pointers; little-endian; structures begin on lines of 64 bytes;
 *  - every line has one writer at a time, or is changed by compare-and-swap alone;
 *  - what others write is never trusted: sizes are read once, when one attaches, and held in a structure of one's own;
 *    every index and length that is read later is checked against them (SCXL_CORRUPT);
 *  - whoever claims something writes who he is in the same compare-and-swap, so that what the dead have claimed can be
 *    told from what the living have.
 *
 * Three things:
 *  scxl_ring   bytes from one producer to one consumer, as records, in order;
 *  scxl_queue  records of a fixed size at most, from many producers to many consumers, in order of arrival;
 *  scxl_call   a request and its reply: one cell of a table, whose index goes through a queue (softcxl_calls.h).
 *
 * Each of the operations here tries once and returns. Waiting is the caller's: it spins, then sleeps on a word
 * (`scxl_sleepers`) with a futex where both are on one host, or with whatever wakes a guest.
 */
#ifndef SOFTCXL_POOL_H
#define SOFTCXL_POOL_H

#ifdef __KERNEL__
#include <linux/stddef.h>
#include <linux/string.h>
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#endif

#define SCXL_LINE 64
#define SCXL_VERSION 2
#define SCXL_RING_MAGIC 0x474e4952u  /* "RING" */
#define SCXL_QUEUE_MAGIC 0x55455551u /* "QUEU" */

enum scxl_result {
	SCXL_OK = 0,
	SCXL_EMPTY = 1,    /* nothing there, or no answer yet: try again */
	SCXL_FULL = 2,     /* no room: try again */
	SCXL_CLOSED = 3,   /* the other side has gone, and nothing of it is left */
	SCXL_TOO_LONG = 4, /* it can never fit */
	SCXL_CORRUPT = 5,  /* what is in shared memory cannot be */
	SCXL_FOREIGN = 6,  /* no such structure there, or of another version */
	SCXL_LOST = 7,     /* who had taken it died: whether it was done is not known */
	SCXL_STALE = 8,    /* it is no longer yours: given up, freed, or you were declared dead */
	SCXL_UNPROTECTED = 9, /* it would take a journal to write this whole, and this slot has none */
	SCXL_POISONED = 10,   /* every healthy copy has poison; ask which bytes */
	SCXL_FAILED = 11,     /* no copy is healthy */
	SCXL_TORN = 12,       /* who wrote these bytes died on the way: they are neither the old nor the new */
	SCXL_UNMAPPED = 13,   /* it lies in memory that is not mapped here; ask for it */
	SCXL_BUSY = 14,       /* somebody else has it: try again */
};

/* What several write, each 8 or 4 bytes where they are aligned: by the operations below alone. */
typedef uint64_t scxl_u64;
typedef uint32_t scxl_u32;

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the layout is little-endian");
_Static_assert(__GCC_ATOMIC_LLONG_LOCK_FREE == 2, "64-bit words take no lock");

/* Tests let a process die here, at each of them. */
#ifndef SCXL_POINT
#define SCXL_POINT() ((void)0)
#endif

#define scxl_load(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define scxl_peek(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define scxl_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define scxl_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)

static inline bool scxl_swap(scxl_u64 *word, uint64_t from, uint64_t to)
{
	return __atomic_compare_exchange_n(word, &from, to, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* Ask for a line that one is about to write, while there is something else to do: it comes from another processor. */
static inline void scxl_soon(const void *line)
{
#if defined(__x86_64__)
	__asm__ volatile("prefetchw %0" : : "m"(*(const char *)line));
#else
	__builtin_prefetch(line, 1);
#endif
}

/* -- sleeping -------------------------------------------------------------------------------------------------- */

/* Whether somebody sleeps on this; `waiting` is itself the futex word. A sleeper calls scxl_sleeps, looks once more, and
 * then sleeps while the word is what that returned. A waker calls scxl_wakes after what it has done, and wakes all who
 * sleep in the ways that it says: by futex those on this host, by its doorbell those behind a device. Wakes are counted: who
 * has been woken before it sleeps finds another value, though somebody else has said meanwhile that he sleeps. */
enum scxl_sleeping {
	SCXL_SLEEPS_HERE = 1,   /* on a futex of the server's host */
	SCXL_SLEEPS_REMOTE = 2, /* behind a device: an interrupt wakes it */
};

struct scxl_sleepers {
	scxl_u32 waiting; /* bits of scxl_sleeping, and above them how often somebody was woken */
	scxl_u32 remote;  /* reserved for who sleeps behind a device */
};

static inline uint32_t scxl_sleeps(struct scxl_sleepers *one, enum scxl_sleeping how)
{
	uint32_t waiting = __atomic_fetch_or(&one->waiting, (uint32_t)how, __ATOMIC_SEQ_CST) | (uint32_t)how;
	scxl_fence();
	return waiting;
}

/* How those sleep who are to be woken now: bits of scxl_sleeping, 0 for nobody. */
static inline uint32_t scxl_wakes(struct scxl_sleepers *one)
{
	const uint32_t all = SCXL_SLEEPS_HERE | SCXL_SLEEPS_REMOTE;
	uint32_t waiting;

	scxl_fence();
	waiting = scxl_peek(&one->waiting);
	while (waiting & all)
		if (__atomic_compare_exchange_n(&one->waiting, &waiting, (waiting & ~all) + all + 1, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
			return waiting & all;
	return 0;
}

/* -- ring ------------------------------------------------------------------------------------------------------ */

/* The consumer looks at the place of the next record's header alone: it is 0 until the record is whole. So one line goes
 * from one processor to the other, and not the index and then the record. Whoever writes a record has made the place
 * behind it 0 before; 8 bytes of a ring therefore are always free. `tail` is where a new producer begins to look. */
#define SCXL_RING_HEADER 256
#define SCXL_RECORD_HEADER 8
#define SCXL_RECORD_THERE (1u << 31)

struct scxl_ring {
	/* Whoever makes it writes these once. */
	uint32_t magic;
	uint16_t version, reserved0;
	uint64_t size; /* of what follows the header, in bytes: a power of two, 64 or more */
	uint8_t reserved1[48];
	/* The producer's: bytes written since the beginning. */
	scxl_u64 tail;
	uint8_t reserved2[56];
	/* The consumer's: bytes read since the beginning. */
	scxl_u64 head;
	uint8_t reserved3[56];
	struct scxl_sleepers consumer, producer;
	scxl_u32 closed; /* 1: the producer has gone, 2: the consumer has */
	uint8_t reserved4[44];
	/* size bytes: records, each a length with SCXL_RECORD_THERE, a kind, the bytes, padded to 8 */
};
_Static_assert(sizeof(struct scxl_ring) == SCXL_RING_HEADER, "ring header");

/* One end of a ring, in its owner's own memory. */
struct scxl_end {
	struct scxl_ring *ring;
	uint8_t *data;
	uint64_t size, own, seen; /* own: this end's index; seen: the consumer's, as the producer last looked at it */
	bool producer;
};

static inline uint64_t scxl_room_of(uint64_t length)
{
	return SCXL_RECORD_HEADER + ((length + 7) & ~7ull);
}

/* Make a ring in `available` bytes at `at`: as large as fits. */
static inline enum scxl_result scxl_ring_make(void *at, uint64_t available)
{
	struct scxl_ring *ring = at;
	uint64_t size = 64;

	if (available < SCXL_RING_HEADER + 64 || (uintptr_t)at % SCXL_LINE)
		return SCXL_TOO_LONG;
	while (size << 1 <= available - SCXL_RING_HEADER)
		size <<= 1;
	memset(at, 0, SCXL_RING_HEADER + SCXL_RECORD_HEADER);
	ring->size = size;
	ring->version = SCXL_VERSION;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	ring->magic = SCXL_RING_MAGIC;
	return SCXL_OK;
}

static inline scxl_u64 *scxl_ring_place(const struct scxl_end *end, uint64_t at)
{
	return (scxl_u64 *)(end->data + (at & (end->size - 1)));
}

/* Bytes that the record there takes, 0 where none is; more than the ring has where what is there cannot be. */
static inline uint64_t scxl_ring_there(const struct scxl_end *end, uint64_t at)
{
	uint64_t header = scxl_load(scxl_ring_place(end, at));
	return header & SCXL_RECORD_THERE ? scxl_room_of((uint32_t)header & ~SCXL_RECORD_THERE) : header ? ~0ull : 0;
}

/* Take one end of the ring at `at`, of which `available` bytes may be touched, and go on where its last owner was. */
static inline enum scxl_result scxl_ring_attach(struct scxl_end *end, void *at, uint64_t available, bool producer)
{
	struct scxl_ring *ring = at;
	uint64_t size, tail, head, there, seen;

	if (available < SCXL_RING_HEADER + 64 || (uintptr_t)at % SCXL_LINE)
		return SCXL_TOO_LONG;
	if (ring->magic != SCXL_RING_MAGIC || ring->version != SCXL_VERSION)
		return SCXL_FOREIGN;
	size = ring->size;
	head = scxl_load(&ring->head);
	tail = scxl_load(&ring->tail);
	if (size < 64 || size & (size - 1) || size > available - SCXL_RING_HEADER || head % 8 || tail % 8)
		return SCXL_CORRUPT;
	*end = (struct scxl_end){ring, (uint8_t *)at + SCXL_RING_HEADER, size, head, head, producer};
	if (!producer)
		return SCXL_OK;
	/* The last producer may have died between a record and the index. */
	for (seen = tail; (there = scxl_ring_there(end, tail)); tail += there)
		if (there > size - (tail - seen))
			return SCXL_CORRUPT;
	if (tail - head > size)
		return SCXL_CORRUPT;
	end->own = tail;
	return SCXL_OK;
}

static inline void scxl_ring_in(const struct scxl_end *end, uint64_t at, const void *from, uint64_t length)
{
	uint64_t start = at & (end->size - 1), first = end->size - start;

	if (first >= length) {
		memcpy(end->data + start, from, length);
	} else {
		memcpy(end->data + start, from, first);
		memcpy(end->data, (const uint8_t *)from + first, length - first);
	}
}

static inline void scxl_ring_out(const struct scxl_end *end, uint64_t at, void *to, uint64_t length)
{
	uint64_t start = at & (end->size - 1), first = end->size - start;

	if (first >= length) {
		memcpy(to, end->data + start, length);
	} else {
		memcpy(to, end->data + start, first);
		memcpy((uint8_t *)to + first, end->data, length - first);
	}
}

/* Append a record. Nobody sees a part of it: it is there when its header is. */
static inline enum scxl_result scxl_ring_push(struct scxl_end *end, const void *bytes, uint32_t length, uint32_t kind)
{
	uint64_t room = scxl_room_of(length);

	if (length >= SCXL_RECORD_THERE || room + SCXL_RECORD_HEADER > end->size)
		return SCXL_TOO_LONG;
	if (end->size - (end->own - end->seen) < room + SCXL_RECORD_HEADER) {
		end->seen = scxl_load(&end->ring->head);
		if (end->own - end->seen > end->size)
			return SCXL_CORRUPT;
		if (scxl_peek(&end->ring->closed) & 2)
			return SCXL_CLOSED;
		if (end->size - (end->own - end->seen) < room + SCXL_RECORD_HEADER)
			return SCXL_FULL;
	}
	scxl_ring_in(end, end->own + SCXL_RECORD_HEADER, bytes, length);
	SCXL_POINT();
	__atomic_store_n(scxl_ring_place(end, end->own + room), 0, __ATOMIC_RELAXED);
	SCXL_POINT();
	scxl_store(scxl_ring_place(end, end->own), (uint64_t)kind << 32 | length | SCXL_RECORD_THERE);
	SCXL_POINT();
	end->own += room;
	scxl_store(&end->ring->tail, end->own);
	SCXL_POINT();
	return SCXL_OK;
}

/* The length and kind of the next record, which stays. */
static inline enum scxl_result scxl_ring_next(struct scxl_end *end, uint32_t *length, uint32_t *kind)
{
	uint64_t header = scxl_load(scxl_ring_place(end, end->own));

	if (!header) {
		if (!(scxl_load(&end->ring->closed) & 1))
			return SCXL_EMPTY;
		header = scxl_load(scxl_ring_place(end, end->own));
		if (!header)
			return SCXL_CLOSED;
	}
	*length = (uint32_t)header & ~SCXL_RECORD_THERE;
	*kind = (uint32_t)(header >> 32);
	return header & SCXL_RECORD_THERE && scxl_room_of(*length) < end->size ? SCXL_OK : SCXL_CORRUPT;
}

/* Take the record that scxl_ring_next has told of, of `length` bytes, to `to`. */
static inline void scxl_ring_take(struct scxl_end *end, void *to, uint32_t length)
{
	scxl_ring_out(end, end->own + SCXL_RECORD_HEADER, to, length);
	SCXL_POINT();
	end->own += scxl_room_of(length);
	scxl_store(&end->ring->head, end->own);
	SCXL_POINT();
}

/* Say that one end has gone, be it one's own or that of who died. The other's last records are still there to take. */
static inline void scxl_ring_close(struct scxl_ring *ring, bool producer)
{
	__atomic_fetch_or(&ring->closed, producer ? 1 : 2, __ATOMIC_ACQ_REL);
}

/* -- queue ----------------------------------------------------------------------------------------------------- */

/* A cell's word: a ticket of 40 bits, the slot of who has claimed it (16 bits), and a state. The cell of ticket t is
 * number t modulo the count of cells; when it has been emptied its ticket goes up by that count. `tail` and `head` are
 * hints which anybody may bring up to date; what holds is in the words alone. */
enum scxl_cell_state {
	SCXL_VACANT = 0,
	SCXL_FILLING = 1, /* its owner writes it */
	SCXL_READY = 2,
	SCXL_TAKING = 3, /* its owner reads it */
	SCXL_SPOILT = 4, /* its writer died: there is nothing in it */
};

#define SCXL_QUEUE_HEADER 256
#define SCXL_CELL_HEADER 16
#define SCXL_TICKETS ((1ull << 40) - 1)

struct scxl_cell {
	scxl_u64 word;
	uint32_t length, kind;
	/* stride - 16 bytes */
};

struct scxl_queue {
	uint32_t magic;
	uint16_t version;
	uint16_t mark;   /* for calls: queues that calls of one table go through have different ones */
	uint32_t cells;  /* a power of two, 2 or more */
	uint32_t stride; /* bytes of a cell, a multiple of 64 */
	scxl_u64 begun;  /* for calls: goes up with each that its client has put a note of and does not wait for */
	uint8_t reserved1[40];
	scxl_u64 tail;
	uint8_t reserved2[56];
	scxl_u64 head;
	uint8_t reserved3[56];
	struct scxl_sleepers consumers, producers;
	scxl_u32 closed; /* 1: nothing more will come, 2: nobody will take anything any more */
	uint8_t reserved4[44];
};
_Static_assert(sizeof(struct scxl_queue) == SCXL_QUEUE_HEADER, "queue header");

/* A queue as one of its users has it, who is `slot` in words. */
struct scxl_user {
	struct scxl_queue *queue;
	uint8_t *cells;
	uint64_t mask;
	uint32_t stride;
	uint16_t slot, mark;
};

static inline uint64_t scxl_word(uint64_t ticket, uint16_t slot, enum scxl_cell_state state)
{
	return (ticket & SCXL_TICKETS) << 24 | (uint64_t)slot << 8 | state;
}

static inline struct scxl_cell *scxl_cell_of(const struct scxl_user *user, uint64_t ticket)
{
	return (struct scxl_cell *)(user->cells + (ticket & user->mask) * user->stride);
}

/* How much memory a queue takes. */
static inline uint64_t scxl_queue_size(uint32_t cells, uint32_t stride)
{
	return SCXL_QUEUE_HEADER + (uint64_t)cells * stride;
}

static inline enum scxl_result scxl_queue_make(void *at, uint64_t available, uint32_t cells, uint32_t stride, uint16_t mark)
{
	struct scxl_queue *queue = at;

	if (cells < 2 || cells & (cells - 1) || stride < SCXL_LINE || stride % SCXL_LINE || (uintptr_t)at % SCXL_LINE ||
	    scxl_queue_size(cells, stride) > available)
		return SCXL_TOO_LONG;
	/* Cells first: others may be at a queue that is made anew, and would take its hints past cells that cannot be. */
	for (uint32_t i = 0; i < cells; i++)
		scxl_store((scxl_u64 *)((uint8_t *)at + SCXL_QUEUE_HEADER + (uint64_t)i * stride), scxl_word(i, 0, SCXL_VACANT));
	scxl_fence();
	memset(at, 0, SCXL_QUEUE_HEADER);
	queue->cells = cells;
	queue->stride = stride;
	queue->mark = mark;
	queue->version = SCXL_VERSION;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	queue->magic = SCXL_QUEUE_MAGIC;
	return SCXL_OK;
}

static inline enum scxl_result scxl_queue_attach(struct scxl_user *user, void *at, uint64_t available, uint16_t slot)
{
	struct scxl_queue *queue = at;
	uint32_t cells, stride;

	if (available < SCXL_QUEUE_HEADER || (uintptr_t)at % SCXL_LINE)
		return SCXL_TOO_LONG;
	if (queue->magic != SCXL_QUEUE_MAGIC || queue->version != SCXL_VERSION)
		return SCXL_FOREIGN;
	cells = queue->cells;
	stride = queue->stride;
	if (cells < 2 || cells & (cells - 1) || stride < SCXL_LINE || stride % SCXL_LINE || scxl_queue_size(cells, stride) > available)
		return SCXL_CORRUPT;
	*user = (struct scxl_user){queue, (uint8_t *)at + SCXL_QUEUE_HEADER, cells - 1, stride, slot, queue->mark};
	return SCXL_OK;
}

/* Bring a hint up to date: a losing race is won by who was as fast. */
static inline void scxl_advance(scxl_u64 *hint, uint64_t from)
{
	scxl_swap(hint, from, from + 1);
}

/* Where a record is there, and the hint of consumers has gone past it, bring that back: they skip what has been taken
 * since. Returns whether that was so. */
static inline bool scxl_recede(struct scxl_user *user, uint64_t ticket)
{
	scxl_fence();
	for (;;) {
		uint64_t head = scxl_load(&user->queue->head), behind = (head - ticket) & SCXL_TICKETS;
		uint64_t word = scxl_load(&scxl_cell_of(user, ticket)->word);

		if (word >> 24 != (ticket & SCXL_TICKETS) || (word & 0xff) != SCXL_READY || behind == 0 || behind > user->mask + 1)
			return false;
		if (scxl_swap(&user->queue->head, head, head - behind))
			return true;
	}
}

static inline enum scxl_result scxl_queue_put(struct scxl_user *user, const void *bytes, uint32_t length, uint32_t kind)
{
	struct scxl_queue *queue = user->queue;

	if (length > user->stride - SCXL_CELL_HEADER)
		return SCXL_TOO_LONG;
	for (uint64_t turns = 0; turns <= 4 * user->mask + 64; turns++) {
		uint64_t ticket = scxl_load(&queue->tail);
		struct scxl_cell *cell = scxl_cell_of(user, ticket);
		uint64_t word = scxl_load(&cell->word);

		if (word == scxl_word(ticket, 0, SCXL_VACANT)) {
			if (scxl_peek(&queue->closed))
				return SCXL_CLOSED;
			if (!scxl_swap(&cell->word, word, scxl_word(ticket, user->slot, SCXL_FILLING)))
				continue;
			SCXL_POINT();
			cell->length = length;
			cell->kind = kind;
			memcpy((uint8_t *)cell + SCXL_CELL_HEADER, bytes, length);
			SCXL_POINT();
			/* By compare-and-swap: who was declared dead meanwhile must not bring it back. */
			if (!scxl_swap(&cell->word, scxl_word(ticket, user->slot, SCXL_FILLING), scxl_word(ticket, user->slot, SCXL_READY)))
				return SCXL_STALE;
			SCXL_POINT();
			scxl_advance(&queue->tail, ticket);
			SCXL_POINT();
			return SCXL_OK;
		}
		if (word >> 24 == (ticket & SCXL_TICKETS)) {
			scxl_advance(&queue->tail, ticket);
		} else if (word >> 24 == ((ticket - user->mask - 1) & SCXL_TICKETS)) {
			if (scxl_load(&queue->tail) == ticket)
				return scxl_peek(&queue->closed) & 2 ? SCXL_CLOSED : SCXL_FULL;
		} else if (scxl_load(&queue->tail) == ticket) {
			/* The cell is a whole turn ahead: the hint was lost sight of */
			scxl_advance(&queue->tail, ticket);
		}
	}
	return SCXL_CORRUPT;
}

/* Claim the next record: it stays in its cell, this user's, until scxl_queue_release. Who dies before that leaves it to
 * the next one (scxl_queue_mend). Its length has been checked. */
static inline enum scxl_result scxl_queue_claim(struct scxl_user *user, uint64_t *claimed, uint32_t *length, uint32_t *kind)
{
	struct scxl_queue *queue = user->queue;

	for (uint64_t turns = 0; turns <= 4 * user->mask + 64; turns++) {
		uint64_t ticket = scxl_load(&queue->head);
		struct scxl_cell *cell = scxl_cell_of(user, ticket);
		uint64_t word = scxl_load(&cell->word), next = scxl_word(ticket + user->mask + 1, 0, SCXL_VACANT);
		uint64_t ahead = ((word >> 24) - ticket) & SCXL_TICKETS;

		if (ahead) {
			if (!(ahead & user->mask) && ahead <= 4 * (user->mask + 1)) /* who mends may bring the hint back late */
				scxl_advance(&queue->head, ticket);
			else if (scxl_load(&queue->head) == ticket) /* a turn behind: its consumer is still at it */
				return word >> 24 == ((ticket - user->mask - 1) & SCXL_TICKETS) ? SCXL_EMPTY : SCXL_CORRUPT;
			continue;
		}
		switch ((enum scxl_cell_state)(word & 0xff)) {
		case SCXL_VACANT:
			return scxl_load(&queue->closed) & 1 && scxl_load(&cell->word) == word ? SCXL_CLOSED : SCXL_EMPTY;
		case SCXL_FILLING:
			return SCXL_EMPTY;
		case SCXL_READY: {
			uint64_t mine = scxl_word(ticket, user->slot, SCXL_TAKING);
			if (!scxl_swap(&cell->word, word, mine))
				continue;
			SCXL_POINT();
			scxl_advance(&queue->head, ticket);
			SCXL_POINT();
			*claimed = ticket;
			*length = cell->length;
			*kind = cell->kind;
			if (*length > user->stride - SCXL_CELL_HEADER) {
				scxl_swap(&cell->word, mine, next);
				return SCXL_CORRUPT;
			}
			return SCXL_OK;
		}
		case SCXL_TAKING:
			SCXL_POINT();
			scxl_advance(&queue->head, ticket);
			scxl_recede(user, ticket); /* where its consumer has died since, and was mended before the hint went on */
			break;
		case SCXL_SPOILT:
			if (scxl_swap(&cell->word, word, next)) {
				SCXL_POINT();
				scxl_advance(&queue->head, ticket);
			}
			break;
		default:
			return SCXL_CORRUPT;
		}
	}
	return SCXL_CORRUPT;
}

/* The bytes of a record that one has claimed. */
static inline const uint8_t *scxl_queue_bytes(const struct scxl_user *user, uint64_t claimed)
{
	return (const uint8_t *)scxl_cell_of(user, claimed) + SCXL_CELL_HEADER;
}

/* Be done with a record that one has claimed. SCXL_STALE: one was taken for dead meanwhile, and another has it, too. */
static inline enum scxl_result scxl_queue_release(struct scxl_user *user, uint64_t claimed)
{
	uint64_t mine = scxl_word(claimed, user->slot, SCXL_TAKING), next = scxl_word(claimed + user->mask + 1, 0, SCXL_VACANT);

	if (scxl_swap(&scxl_cell_of(user, claimed)->word, mine, next))
		return SCXL_OK;
	scxl_recede(user, claimed); /* the hint may have gone on after it was brought back for others */
	return SCXL_STALE;
}

/* Take the next record. `room` are the bytes at `to`: a cell's at least (stride - 16). */
static inline enum scxl_result scxl_queue_get(struct scxl_user *user, void *to, uint32_t room, uint32_t *length, uint32_t *kind)
{
	uint64_t claimed;
	enum scxl_result result;

	if (room < user->stride - SCXL_CELL_HEADER)
		return SCXL_TOO_LONG;
	result = scxl_queue_claim(user, &claimed, length, kind);
	if (result != SCXL_OK)
		return result;
	memcpy(to, scxl_queue_bytes(user, claimed), *length);
	SCXL_POINT();
	return scxl_queue_release(user, claimed);
}

/* What the dead have left in one cell: called for each, any number of times, by any number of menders. What one who
 * filled had not finished is spoilt. What one who took had not read to its end is there again. The hint goes back to what
 * is there, whosoever it was: who was to do that may be the one that died. Returns whether consumers have to look again. */
static inline bool scxl_queue_mend(struct scxl_user *user, uint32_t cell_number, uint16_t dead)
{
	struct scxl_cell *cell = scxl_cell_of(user, cell_number);
	uint64_t word = scxl_load(&cell->word), ticket = word >> 24;
	bool again = false;

	if ((uint16_t)(word >> 8) == dead && (word & 0xff) == SCXL_FILLING)
		return scxl_swap(&cell->word, word, scxl_word(ticket, 0, SCXL_SPOILT));
	if ((uint16_t)(word >> 8) == dead && (word & 0xff) == SCXL_TAKING) {
		again = scxl_swap(&cell->word, word, scxl_word(ticket, dead, SCXL_READY));
		SCXL_POINT();
	}
	return scxl_recede(user, ticket) || again;
}

static inline void scxl_queue_close(struct scxl_queue *queue, bool consumers)
{
	__atomic_fetch_or(&queue->closed, consumers ? 2 : 1, __ATOMIC_ACQ_REL);
}

#endif
