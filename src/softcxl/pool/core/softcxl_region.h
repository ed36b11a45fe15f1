/* SPDX-License-Identifier: Apache-2.0
 *
 * The pool's regions, in shared memory: see softcxl_pool.h for the rules, which hold here, too, and softcxl_directory.h
 * for where regions are told of. These three files are all that a C program needs; examples/pool_region.c is one.
 *
 * A region has one copy or several; good are those that are healthy and have no poison. What is written to it is there
 * whole or not at all, in every copy, whoever dies:
 *
 *  several good copies     the first one is written, then the others. Who died while the first was written has written
 *                          nothing: it is taken back from the second. Who died later has written it all: it is brought
 *                          to the others from the first.
 *  one good copy,          the bytes go to the writer's journal first, and from there to the region: who died is
 *  of several or "atomic"  replayed. A write that is longer than the journal is as many writes, each of them whole.
 *  one copy, plain         who died on the way leaves a range that is neither the old nor the new: it is torn, the region
 *                          says where, and reading that gives SCXL_TORN until it is written anew.
 *
 * Readers take no lock: a sequence says whether what they copied was touched meanwhile. Writers take the region's lock,
 * which says who has it; who finds the holder dead mends what that one left, and goes on. Health is looked at again
 * after a copy was read: a server that gives a copy up says so before the copy's bytes go.
 */
#ifndef SOFTCXL_REGION_H
#define SOFTCXL_REGION_H

#include "softcxl_directory.h"
#if defined(__SSE2__) && !defined(__KERNEL__)
#include <emmintrin.h>
#endif

/* After so many bytes a writer looks whether it still has the lock: one that was taken for dead, stopped and not dead,
 * writes no more than that when it goes on. (Across hosts its memory is taken from it first: fencing.) */
#ifndef SCXL_STEP
#define SCXL_STEP (1ull << 20)
#endif

/* From so many bytes on a write goes past the caches: it would push everything else out of them. */
#ifndef SCXL_STREAM
#define SCXL_STREAM (4ull << 20)
#endif

/* And to the copies that nobody reads while the first one is good: earlier, as the caches have no use for them. */
#ifndef SCXL_STREAM_OTHERS
#define SCXL_STREAM_OTHERS (1ull << 20)
#endif

/* And a read: later, since who reads looks at the bytes next, and finds the last of them in the caches if they are few. */
#ifndef SCXL_STREAM_READ
#define SCXL_STREAM_READ (16ull << 20)
#endif

/* How often a reader tries without the lock. */
#ifndef SCXL_TRIES
#define SCXL_TRIES 64
#endif

/* -- a region as one has it ------------------------------------------------------------------------------------ */

struct scxl_opened {
	struct scxl_pool *pool;
	struct scxl_region *region;
	uint64_t index, live; /* live: what the region's word is while it is this one */
	uint64_t size, own;   /* own: what the lock is while this slot has it */
	uint32_t copies;
	scxl_u64 *intent; /* the lock's holder's */
};

static inline bool scxl_region_live(const struct scxl_opened *one)
{
	return scxl_load(&one->region->word) == one->live;
}

static inline enum scxl_result scxl_region_open(struct scxl_opened *one, struct scxl_pool *pool, uint64_t index, uint64_t generation)
{
	struct scxl_region *region;

	if (index >= pool->region_count)
		return SCXL_TOO_LONG;
	region = &pool->regions[index];
	*one = (struct scxl_opened){
		.pool = pool, .region = region, .index = index, .live = (generation & SCXL_TICKETS) << 24 | SCXL_REGION_LIVE,
		.size = region->size, .own = (uint64_t)pool->slot << 48 | pool->epoch << 8 | 1, .copies = region->copies,
	};
	if (!scxl_region_live(one))
		return SCXL_STALE;
	if (!one->size || one->size > SCXL_OFFSETS || !one->copies || one->copies > SCXL_COPIES)
		return SCXL_CORRUPT;
	return SCXL_OK;
}

/* Which of these copies are of a source that has failed. The server says so of the source first, all at once, and then
 * of one region after the other. */
static inline uint32_t scxl_lost(const struct scxl_opened *one, uint32_t copies)
{
	uint32_t lost = 0;

	for (; copies; copies &= copies - 1) {
		unsigned copy = (unsigned)__builtin_ctz(copies);
		uint64_t source = scxl_load(&one->region->extents[copy]) >> 56;
		if (source < one->pool->source_count && scxl_load(&one->pool->sources[source].state) == SCXL_BROKEN)
			lost |= 1u << copy;
	}
	return lost;
}

/* The copies that a bitmap has, without those that are lost. */
static inline uint32_t scxl_bits(const struct scxl_opened *one, scxl_u32 *bitmap)
{
	uint32_t copies = scxl_load(bitmap) & ((1u << one->copies) - 1);

	return copies & ~scxl_lost(one, copies);
}

/* The copies that are written and not read, the one that is moved to among them. */
static inline uint32_t scxl_joining(const struct scxl_opened *one, uint32_t healthy)
{
	uint32_t joining = scxl_load(&one->region->joining) & ((1u << SCXL_COPIES) - 1) & ~healthy;

	return joining & ~scxl_lost(one, joining);
}

/* Where a copy is. */
static inline enum scxl_result scxl_region_at(const struct scxl_opened *one, unsigned copy, uint8_t **at)
{
	uint64_t address = scxl_load(&one->region->extents[copy]), offset = address & SCXL_OFFSETS;
	const struct scxl_map *map = &one->pool->maps[address >> 56];

	if (address >> 56 >= one->pool->map_count || !map->base)
		return SCXL_UNMAPPED;
	if (offset % SCXL_LINE || offset > map->size || one->size > map->size - offset)
		return SCXL_CORRUPT;
	*at = map->base + offset;
	return SCXL_OK;
}

static inline enum scxl_result scxl_region_all_at(const struct scxl_opened *one, uint32_t which, uint8_t *at[SCXL_COPIES])
{
	for (unsigned copy = 0; copy < SCXL_COPIES; copy++) {
		enum scxl_result result = which >> copy & 1 ? scxl_region_at(one, copy, &at[copy]) : SCXL_OK;
		if (result != SCXL_OK)
			return result;
	}
	return SCXL_OK;
}

static inline bool scxl_region_in(const struct scxl_opened *one, uint64_t offset, uint64_t length)
{
	return offset <= one->size && length <= one->size - offset;
}

/* -- its lock -------------------------------------------------------------------------------------------------- */

/* Say in one's slot that one is about to take this region's lock. */
static inline scxl_u64 *scxl_region_intend(const struct scxl_opened *one)
{
	for (unsigned i = 0; i < SCXL_INTENTS; i++) {
		scxl_u64 *intent = scxl_slot_intent(&one->pool->slots[one->pool->slot], i);
		if (!scxl_peek(intent) && scxl_swap(intent, 0, one->index + 1))
			return intent;
	}
	return NULL;
}

static inline bool scxl_region_mine(const struct scxl_opened *one)
{
	return scxl_load(&one->region->lock) == one->own;
}

/* Give the lock back; the caller then wakes who sleeps on `waiting`. SCXL_STALE: one was taken for dead meanwhile. */
static inline enum scxl_result scxl_region_unlock(struct scxl_opened *one)
{
	scxl_u64 *intent = one->intent;
	bool mine = scxl_swap(&one->region->lock, one->own, 0);

	SCXL_POINT();
	scxl_store(intent, 0);
	SCXL_POINT();
	return mine ? SCXL_OK : SCXL_STALE;
}

#if defined(__SSE2__) && !defined(__KERNEL__)
static inline void scxl_stream_line(uint8_t *to, const uint8_t *from)
{
	const __m128i *source = (const __m128i *)from;
	__m128i *target = (__m128i *)to, a = _mm_loadu_si128(source), b = _mm_loadu_si128(source + 1);
	__m128i c = _mm_loadu_si128(source + 2), d = _mm_loadu_si128(source + 3);

	_mm_stream_si128(target, a);
	_mm_stream_si128(target + 1, b);
	_mm_stream_si128(target + 2, c);
	_mm_stream_si128(target + 3, d);
}

/* Copy past the caches: lines of four pages in turn, as memory has more than one of its banks at work then. */
static inline void scxl_stream(uint8_t *to, const uint8_t *from, uint64_t length)
{
	const uint64_t page = 4096, block = 4 * page;
	uint64_t head = -(uintptr_t)to & (SCXL_LINE - 1), at = head < length ? head : length;

	memcpy(to, from, at);
	for (; length - at >= block; at += block)
		for (uint64_t line = at; line < at + page; line += SCXL_LINE)
			for (uint64_t each = line; each < line + block; each += page)
				scxl_stream_line(to + each, from + each);
	for (; length - at >= SCXL_LINE; at += SCXL_LINE)
		scxl_stream_line(to + at, from + at);
	_mm_sfence();
	memcpy(to + at, from + at, length - at);
}
#else
#define scxl_stream memcpy
#endif

/* Copy within the lock; `stream` bytes and more past the caches. false: one was taken for dead, and must not write any
 * further. */
static inline bool scxl_region_move(const struct scxl_opened *one, uint8_t *to, const uint8_t *from, uint64_t length, uint64_t stream)
{
	for (uint64_t at = 0; at < length; at += SCXL_STEP) {
		uint64_t part = length - at < SCXL_STEP ? length - at : SCXL_STEP;
		if (length < stream)
			memcpy(to + at, from + at, part);
		else
			scxl_stream(to + at, from + at, part);
		SCXL_POINT();
		if (!scxl_region_mine(one))
			return false;
	}
	return true;
}

/* Copy to a reader's own memory. */
static inline void scxl_region_bring(uint8_t *to, const uint8_t *from, uint64_t length)
{
	if (length < SCXL_STREAM_READ)
		memcpy(to, from, length);
	else
		scxl_stream(to, from, length);
	__atomic_thread_fence(__ATOMIC_ACQUIRE); /* what is looked at next may tell that it was no good */
}

static inline void scxl_region_phase(const struct scxl_opened *one, uint64_t writes, uint32_t slot, unsigned first, enum scxl_phase phase)
{
	scxl_fence(); /* the copy may have gone past the caches */
	scxl_store(&one->region->seq, phase == SCXL_IDLE ? (writes + 1) << 24 : writes << 24 | slot << 8 | first << 2 | phase);
	scxl_fence();
	SCXL_POINT();
}

/* In which units a region's torn range is told: bytes, in all but the largest regions. */
static inline unsigned scxl_torn_unit(uint64_t size)
{
	unsigned shift = 0;

	while (size >> shift > 0xffffffffu)
		shift++;
	return shift;
}

/* Take [at, at+length) for torn, with what is already. */
static inline void scxl_region_tear(const struct scxl_opened *one, uint64_t at, uint64_t length)
{
	uint64_t torn = scxl_peek(&one->region->torn), end, mask;
	unsigned unit = scxl_torn_unit(one->size);

	if (!scxl_region_in(one, at, length) || !length)
		at = 0, length = one->size;
	mask = (1ull << unit) - 1;
	end = (at + length + mask) >> unit;
	at >>= unit;
	if (torn & 0xffffffffu) {
		uint64_t last = (torn >> 32) + (torn & 0xffffffffu);
		at = at < torn >> 32 ? at : torn >> 32;
		end = end > last ? end : last;
	}
	end = end - at > 0xffffffffu ? at + 0xffffffffu : end;
	scxl_store(&one->region->torn, at << 32 | (end - at));
}

/* Whether some of these bytes are torn. */
static inline bool scxl_region_torn(const struct scxl_opened *one, uint64_t offset, uint64_t length)
{
	uint64_t torn = scxl_load(&one->region->torn), at, end;
	unsigned unit;

	if (!(torn & 0xffffffffu))
		return false;
	unit = scxl_torn_unit(one->size);
	at = torn >> 32 << unit;
	end = at + ((torn & 0xffffffffu) << unit);
	return at < offset + length && offset < end;
}

/* The redo journal of a slot: its bytes. */
static inline enum scxl_result scxl_journal_of(const struct scxl_pool *pool, uint32_t slot, uint8_t **at, uint64_t *size)
{
	uint64_t from;

	if (slot >= pool->slot_count)
		return SCXL_CORRUPT;
	from = scxl_load(&pool->slots[slot].journal_at);
	*size = scxl_load(&pool->slots[slot].journal_size);
	if (!from || !*size)
		return SCXL_UNPROTECTED;
	if (from > pool->size || *size > pool->size - from)
		return SCXL_CORRUPT;
	*at = (uint8_t *)pool->header + from;
	return SCXL_OK;
}

/* Within the lock: bring a write to its end that somebody else has begun, or undo it. What is needed is mapped: at. A copy
 * that is lost is not touched, and may come back as it is where it was the last one: what it has half of is torn. */
static inline enum scxl_result scxl_region_recover(const struct scxl_opened *one, uint32_t healthy, uint32_t joining, uint8_t *at[SCXL_COPIES])
{
	struct scxl_region *region = one->region;
	uint64_t seq = scxl_load(&region->seq), offset = scxl_load(&region->intent_at), length = scxl_load(&region->intent_length), room;
	uint32_t targets = healthy | joining, clean = healthy & ~scxl_load(&region->poisoned), slot = seq >> 8 & 0xffff;
	uint32_t noted = scxl_load(&region->healthy) | scxl_load(&region->joining); /* the lost ones among them */
	unsigned first = seq >> 2 & 0x3f, phase = seq & 3;
	uint8_t *from = NULL;
	bool torn = false;

	if (phase == SCXL_IDLE)
		return SCXL_OK;
	if (!scxl_region_in(one, offset, length) || first >= one->copies) {
		torn = true;
	} else if (phase == SCXL_FIRST) {
		uint32_t others = healthy & ~(1u << first);
		if (!others)
			torn = noted >> first & 1;
		else
			from = at[__builtin_ctz(others & clean ? others & clean : others)] + offset;
		torn = torn || (from && !(others & clean));
		targets &= 1u << first;
	} else if (phase == SCXL_OTHERS) {
		torn = !(clean >> first & 1);
		if (healthy >> first & 1)
			from = at[first] + offset;
		targets &= ~(1u << first);
	} else {
		torn = !healthy || scxl_journal_of(one->pool, slot, &from, &room) != SCXL_OK || length > room;
		from = torn ? NULL : from;
	}
	for (unsigned copy = 0; from && copy < SCXL_COPIES; copy++)
		if (targets >> copy & 1 && !scxl_region_move(one, at[copy] + offset, from, length, SCXL_STREAM))
			return SCXL_STALE;
	if (torn)
		scxl_region_tear(one, offset, length);
	scxl_region_phase(one, seq >> 24, 0, 0, SCXL_IDLE);
	return torn ? SCXL_TORN : SCXL_OK;
}

/* Take the lock from `holder` (0: from nobody), and finish what that one had begun. */
static inline enum scxl_result scxl_region_seize(struct scxl_opened *one, uint64_t holder)
{
	uint32_t healthy = scxl_bits(one, &one->region->healthy), joining = scxl_joining(one, healthy);
	uint8_t *at[SCXL_COPIES];
	enum scxl_result result;
	scxl_u64 *intent;

	/* Only who reaches all copies can mend. */
	if (scxl_load(&one->region->seq) & 3 && (result = scxl_region_all_at(one, healthy | joining, at)) != SCXL_OK)
		return result;
	intent = scxl_region_intend(one);
	if (!intent)
		return SCXL_BUSY;
	SCXL_POINT();
	if (!scxl_swap(&one->region->lock, holder, one->own)) {
		scxl_store(intent, 0);
		return SCXL_BUSY;
	}
	one->intent = intent;
	SCXL_POINT();
	if (!scxl_region_live(one) || scxl_slot_gone(one->pool, one->pool->slot, one->pool->epoch)) {
		scxl_region_unlock(one);
		return SCXL_STALE;
	}
	if (!(scxl_load(&one->region->seq) & 3))
		return SCXL_OK;
	healthy = scxl_bits(one, &one->region->healthy);
	joining = scxl_joining(one, healthy);
	result = scxl_region_all_at(one, healthy | joining, at);
	if (result == SCXL_OK)
		return scxl_region_recover(one, healthy, joining, at);
	/* The server has changed the copies meanwhile, and not within the lock: the range is given up. */
	scxl_region_tear(one, scxl_load(&one->region->intent_at), scxl_load(&one->region->intent_length));
	scxl_region_phase(one, scxl_load(&one->region->seq) >> 24, 0, 0, SCXL_IDLE);
	return SCXL_TORN;
}

/* Take the lock if nobody has it. SCXL_BUSY: somebody has; scxl_region_holder says who. */
static inline enum scxl_result scxl_region_lock(struct scxl_opened *one)
{
	uint64_t holder = scxl_load(&one->region->lock);
	enum scxl_result result;

	if (!scxl_region_live(one))
		return SCXL_STALE;
	if (holder & 0xff)
		return SCXL_BUSY;
	result = scxl_region_seize(one, holder);
	return result == SCXL_TORN ? SCXL_OK : result;
}

/* Who has the lock; false: nobody. */
static inline bool scxl_region_holder(const struct scxl_opened *one, uint32_t *slot, uint64_t *epoch)
{
	uint64_t holder = scxl_load(&one->region->lock);

	*slot = (uint32_t)(holder >> 48);
	*epoch = holder >> 8 & SCXL_EPOCHS;
	return holder & 0xff;
}

/* Mend what the dead owner of a slot has left in this region, and give its lock free. By anybody, any number of times.
 * SCXL_EMPTY: it has left nothing. SCXL_BUSY: it is not known to be dead. SCXL_TORN: mended, but a range is torn. */
static inline enum scxl_result scxl_region_mend(struct scxl_opened *one, uint32_t slot, uint64_t epoch)
{
	uint64_t holder = scxl_load(&one->region->lock);
	enum scxl_result result;

	if (!(holder & 0xff) || holder >> 48 != slot || (holder >> 8 & SCXL_EPOCHS) != (epoch & SCXL_EPOCHS))
		return SCXL_EMPTY;
	if (!scxl_slot_gone(one->pool, slot, epoch))
		return SCXL_BUSY;
	result = scxl_region_seize(one, holder);
	if (result == SCXL_OK || result == SCXL_TORN)
		scxl_region_unlock(one);
	return result;
}

/* -- writing, within the lock ---------------------------------------------------------------------------------- */

static inline void scxl_region_intent(const struct scxl_opened *one, uint64_t offset, uint64_t length)
{
	scxl_store(&one->region->intent_at, offset);
	scxl_store(&one->region->intent_length, length);
	SCXL_POINT();
}

/* What is written anew is torn no more. */
static inline void scxl_region_heal(const struct scxl_opened *one, uint64_t offset, uint64_t length)
{
	uint64_t torn = scxl_peek(&one->region->torn), at, end;
	unsigned unit;

	if (!(torn & 0xffffffffu))
		return;
	unit = scxl_torn_unit(one->size);
	at = torn >> 32 << unit;
	end = at + ((torn & 0xffffffffu) << unit);
	if (offset <= at && offset + length >= (end < one->size ? end : one->size))
		scxl_store(&one->region->torn, 0);
}

static inline enum scxl_result scxl_region_redo(const struct scxl_opened *one, uint64_t offset, const uint8_t *bytes, uint64_t length, uint32_t targets, uint8_t *at[SCXL_COPIES])
{
	uint64_t room, part;
	uint8_t *journal;
	enum scxl_result result = scxl_journal_of(one->pool, one->pool->slot, &journal, &room);

	for (; result == SCXL_OK && length; offset += part, bytes += part, length -= part) {
		uint64_t writes = scxl_load(&one->region->seq) >> 24;

		part = length < room ? length : room;
		memcpy(journal, bytes, part);
		SCXL_POINT();
		scxl_region_intent(one, offset, part);
		scxl_region_phase(one, writes, one->pool->slot, 0, SCXL_REPLAY);
		for (unsigned copy = 0; copy < SCXL_COPIES; copy++)
			if (targets >> copy & 1 && !scxl_region_move(one, at[copy] + offset, bytes, part, SCXL_STREAM))
				return SCXL_STALE;
		scxl_region_heal(one, offset, part);
		scxl_region_phase(one, writes, 0, 0, SCXL_IDLE);
	}
	return result;
}

/* Write, within the lock. SCXL_OK: every healthy copy has it. */
static inline enum scxl_result scxl_region_write(const struct scxl_opened *one, uint64_t offset, const void *bytes, uint64_t length)
{
	struct scxl_region *region = one->region;
	uint32_t healthy = scxl_bits(one, &region->healthy), targets = healthy | scxl_joining(one, healthy);
	uint32_t clean = healthy & ~scxl_load(&region->poisoned);
	uint64_t writes = scxl_load(&region->seq) >> 24;
	uint8_t *at[SCXL_COPIES];
	enum scxl_result result;
	unsigned first;

	if (!scxl_region_in(one, offset, length))
		return SCXL_TOO_LONG;
	if (!healthy)
		return SCXL_FAILED;
	result = scxl_region_all_at(one, targets, at);
	if (result != SCXL_OK || !length)
		return result;
	first = (unsigned)__builtin_ctz(clean ? clean : healthy);
	if (targets == 1u << first && length == 8 && !(offset % 8)) {
		uint64_t word;
		memcpy(&word, bytes, 8);
		scxl_store((scxl_u64 *)(at[first] + offset), word); /* that is whole by itself */
		SCXL_POINT();
		scxl_region_heal(one, offset, length);
		return SCXL_OK;
	}
	if (!(clean & (clean - 1)) && (one->copies > 1 || region->flags & SCXL_REGION_ATOMIC)) {
		while (__atomic_exchange_n(one->pool->journalling, 1, __ATOMIC_ACQUIRE))
			; /* another thread of this process, for as long as a write of a journal's length takes */
		result = scxl_region_redo(one, offset, bytes, length, targets, at);
		__atomic_store_n(one->pool->journalling, 0, __ATOMIC_RELEASE);
		return result;
	}
	scxl_region_intent(one, offset, length);
	scxl_region_phase(one, writes, one->pool->slot, first, SCXL_FIRST);
	if (!scxl_region_move(one, at[first] + offset, bytes, length, SCXL_STREAM))
		return SCXL_STALE;
	targets &= ~(1u << first);
	if (targets)
		scxl_region_phase(one, writes, one->pool->slot, first, SCXL_OTHERS);
	for (unsigned copy = 0; copy < SCXL_COPIES; copy++)
		if (targets >> copy & 1 && !scxl_region_move(one, at[copy] + offset, bytes, length, SCXL_STREAM_OTHERS))
			return SCXL_STALE;
	scxl_region_heal(one, offset, length);
	scxl_region_phase(one, writes, 0, 0, SCXL_IDLE);
	return scxl_bits(one, &region->healthy) ? SCXL_OK : SCXL_FAILED;
}

/* The server's, within the lock: bring a range of a healthy copy to one that is joining. */
static inline enum scxl_result scxl_region_rebuild(const struct scxl_opened *one, unsigned copy, uint64_t offset, uint64_t length)
{
	uint32_t healthy = scxl_bits(one, &one->region->healthy), clean = healthy & ~scxl_load(&one->region->poisoned);
	uint8_t *at[SCXL_COPIES];
	enum scxl_result result;

	if (copy >= SCXL_COPIES || !scxl_region_in(one, offset, length))
		return SCXL_TOO_LONG;
	clean &= ~(1u << copy);
	if (!clean)
		return healthy ? SCXL_POISONED : SCXL_FAILED;
	result = scxl_region_all_at(one, clean | 1u << copy, at);
	if (result != SCXL_OK)
		return result;
	return scxl_region_move(one, at[copy] + offset, at[__builtin_ctz(clean)] + offset, length, SCXL_STREAM) ? SCXL_OK : SCXL_STALE;
}

/* -- reading --------------------------------------------------------------------------------------------------- */

/* Which copies hold the old or the new, whole, of [offset, offset+length) while the sequence is `seq`. */
static inline uint32_t scxl_region_whole(const struct scxl_opened *one, uint64_t seq, uint64_t offset, uint64_t length)
{
	uint64_t at = scxl_peek(&one->region->intent_at), written = scxl_peek(&one->region->intent_length);
	uint32_t first = 1u << (seq >> 2 & 0x1f);

	if (at >= offset + length || (at < offset && written <= offset - at))
		return ~0u;
	switch ((enum scxl_phase)(seq & 3)) {
	case SCXL_IDLE: return ~0u;
	case SCXL_FIRST: return ~first;
	case SCXL_OTHERS: return first;
	default: return 0;
	}
}

/* Whether `copy` was not touched while the sequence went from `before` to `after`. */
static inline bool scxl_region_kept(uint64_t before, uint64_t after, unsigned copy)
{
	if (before == after)
		return true;
	if ((before & 3) == SCXL_IDLE && (after & 3) == SCXL_FIRST)
		return before >> 24 == after >> 24 && (after >> 2 & 0x3f) != copy;
	return (before & 3) == SCXL_OTHERS && (after & 3) == SCXL_IDLE && after >> 24 == (before >> 24) + 1 && (before >> 2 & 0x3f) == copy;
}

/* Read without the lock. `trusted`: copies whose poison is not in this range. SCXL_BUSY: read within the lock. */
static inline enum scxl_result scxl_region_read(const struct scxl_opened *one, uint64_t offset, void *to, uint64_t length, uint32_t trusted)
{
	struct scxl_region *region = one->region;

	if (!scxl_region_in(one, offset, length))
		return SCXL_TOO_LONG;
	for (int tries = 0; tries < SCXL_TRIES; tries++) {
		uint64_t before = scxl_load(&region->seq), layout = scxl_load(&region->layout);
		uint32_t healthy = scxl_bits(one, &region->healthy), clean = healthy & ~(scxl_load(&region->poisoned) & ~trusted), usable;
		enum scxl_result result = SCXL_OK;
		unsigned copy = 0;
		uint8_t *at = NULL;

		if (!scxl_region_live(one))
			return SCXL_STALE;
		if (!clean)
			return healthy ? SCXL_POISONED : SCXL_FAILED;
		usable = clean & scxl_region_whole(one, before, offset, length);
		if (usable != clean)
			clean = 0; /* there are more, later */
		for (; !at && usable; usable &= usable - 1) {
			copy = (unsigned)__builtin_ctz(usable);
			result = scxl_region_at(one, copy, &at);
		}
		if (!at) {
			if (clean && layout == scxl_load(&region->layout))
				return result;
			continue;
		}
		scxl_region_bring(to, at + offset, length);
		if (scxl_region_torn(one, offset, length))
			return SCXL_BUSY; /* look again within the lock, whether that is to be mended */
		if (scxl_region_kept(before, scxl_load(&region->seq), copy) && layout == scxl_load(&region->layout) &&
		    scxl_bits(one, &region->healthy) >> copy & 1 && !(scxl_load(&region->poisoned) & ~trusted & 1u << copy) && scxl_region_live(one))
			return SCXL_OK;
	}
	return SCXL_BUSY;
}

/* Read within the lock. */
static inline enum scxl_result scxl_region_read_locked(const struct scxl_opened *one, uint64_t offset, void *to, uint64_t length, uint32_t trusted)
{
	struct scxl_region *region = one->region;

	if (!scxl_region_in(one, offset, length))
		return SCXL_TOO_LONG;
	if (scxl_region_torn(one, offset, length))
		return SCXL_TORN;
	for (unsigned tries = 0; tries <= one->copies; tries++) {
		uint32_t healthy = scxl_bits(one, &region->healthy), clean = healthy & ~(scxl_load(&region->poisoned) & ~trusted);
		enum scxl_result result = SCXL_UNMAPPED;
		uint8_t *from = NULL;
		unsigned copy = 0;

		if (!clean)
			return healthy ? SCXL_POISONED : SCXL_FAILED;
		for (; !from && clean; clean &= clean - 1) {
			copy = (unsigned)__builtin_ctz(clean);
			result = scxl_region_at(one, copy, &from);
		}
		if (!from)
			return result;
		scxl_region_bring(to, from + offset, length);
		if (scxl_bits(one, &region->healthy) >> copy & 1 && !(scxl_load(&region->poisoned) & ~trusted & 1u << copy))
			return SCXL_OK;
	}
	return SCXL_FAILED;
}

#endif
